#!/usr/bin/env bash
# Rehearses a cluster on this machine: N processes of one run, which find each other at localhost:PORT (8476).
#     DEVICES=4 bash launch/processes.sh 2 pretrain --config pretrain_tiny --workdir runs/two
# DEVICES is the number of simulated CPU devices of each process. Each line of output begins with the number of its
# process; Ctrl-C and SIGTERM are passed on to all. Exits with the first code that isn't 0.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] >= 51)) || { echo "processes.sh: needs bash 5.1" >&2 && exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-.venv/bin/python}
PORT=${PORT:-8476}

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ || $# -lt 2 ]]; then
    echo "usage: launch/processes.sh N pretrain ... (N processes, then the arguments of bert-jax)" >&2
    exit 2
fi
if ! command -v "$PYTHON" > /dev/null; then
    echo "processes.sh: no $PYTHON; run launch/local.sh once, or set PYTHON to one with bert_jax installed" >&2
    exit 2
fi
count=$1
shift
if [ -n "${DEVICES:-}" ]; then
    export JAX_PLATFORMS=cpu XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$DEVICES"
fi

# Each process has its own group: Ctrl-C reaches only this script, which passes it on once, and isn't ignored.
set -m
running=() printers=()
trap 'kill -TERM "${running[@]}" 2> /dev/null || true' TERM
trap 'kill -INT "${running[@]}" 2> /dev/null || true' INT
for ((i = 0; i < count; i++)); do
    exec {out}> >(trap '' INT TERM; exec sed --unbuffered "s/^/[$i] /")
    printers+=("$!")
    "$PYTHON" -m bert_jax "$@" --distributed --coordinator "localhost:$PORT" --processes "$count" --process "$i" \
        < /dev/null >&"$out" 2>&1 {out}>&- &
    running[$!]=$!
    exec {out}>&-
done

code=0
while ((${#running[@]})); do
    ended='' status=0
    wait -n -p ended "${running[@]}" || status=$?
    [ -n "${ended:-}" ] || continue # A signal came, no process ended.
    unset "running[$ended]"
    ((code)) || code=$status
done
wait "${printers[@]}" || true # Their remaining output.
exit "$code"
