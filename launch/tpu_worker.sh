#!/usr/bin/env bash
# Called by tpu_pod.sh on a worker of the pod, over ssh, in the copy of the checkout there:
#   install         installs into .venv, with Python 3.11 if the machine's own is older
#   start ARGUMENTS starts bert-jax with these arguments, detached from the connection
#   follow          prints the run's log until the run ends
#   state           one line: no run, running, or exit CODE
#   stop            SIGINT: the run saves and ends; waits for that
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

running() {
    # Not by the process's number alone: after a restart of the machine it may be another process's.
    [ -e run.pid ] && [ ! -e run.exit ] && grep --quiet --text bert_jax "/proc/$(< run.pid)/cmdline" 2> /dev/null
}

case ${1:-} in
install)
    if ! python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
        # The TPU runtimes are Ubuntu 22.04, with Python 3.10; after booting, the machine updates itself for a while.
        apt=(sudo DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --option=DPkg::Lock::Timeout=600)
        "${apt[@]}" update
        "${apt[@]}" install python3.11 python3.11-venv
        PYTHON=python3.11
    fi
    source launch/environment.sh
    install '.[tpu]'
    ;;
start)
    if running; then
        echo "$(hostname): a run is under way already" >&2
        exit 1
    fi
    rm -f run.pid run.exit
    setsid --fork bash launch/tpu_worker.sh supervise "${@:2}" >> run.log 2>&1 < /dev/null
    until [ -e run.pid ]; do sleep 0.1; done
    ;;
supervise) # Run by `start` in the background; it outlives the signals that are meant for the run.
    trap : HUP INT TERM
    code=0
    # shellcheck disable=SC2016
    bash -c 'echo "$$" > run.pid; exec .venv/bin/python -m bert_jax "$@"' bert_jax "${@:2}" || code=$?
    echo "$code" > run.exit.new
    mv run.exit.new run.exit
    ;;
follow)
    [ -e run.pid ] || { echo "$(hostname): no run" >&2 && exit 1; }
    tail --lines=100 --follow=name --retry --pid="$(< run.pid)" run.log 2> /dev/null
    ;;
state)
    if [ ! -e run.pid ]; then
        echo "$(hostname): no run"
    elif running; then
        echo "$(hostname): running"
    else # Without run.exit, the machine itself went down, for which its peers exit with 75.
        echo "$(hostname): exit $(cat run.exit 2> /dev/null || echo 75)"
    fi
    ;;
stop)
    if running; then
        kill -INT "$(< run.pid)"
        while running; do sleep 1; done
    fi
    ;;
*)
    echo "usage: tpu_worker.sh install|start|follow|state|stop" >&2
    exit 2
    ;;
esac
