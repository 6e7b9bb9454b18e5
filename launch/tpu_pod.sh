#!/usr/bin/env bash
# Pretrains on a Cloud TPU pod from this checkout, and continues by itself after a preemption:
#     launch/tpu_pod.sh all bert --type v5litepod-256 --zone us-west4-a --spot -- \
#         pretrain --config pretrain_base --workdir gs://bucket/runs/base --examples gs://bucket/examples
#
#   all      create, install and run; again after each preemption or lost worker, until the run is done
#   create   ask for the pod (a queued resource) and wait until it is there
#   install  copy this checkout to every worker, and install it there
#   run      start the command after `--` on every worker, and follow its log; follow only, if there is a run already
#   log      follow the log of worker 0
#   status   the state of the pod, and of the run on each worker
#   stop     SIGINT to the run: it saves and ends, also for `all`
#   delete   delete the pod, whatever runs there. Nothing else deletes it, and until then it costs money
#
# The run continues if this script is stopped or its machine is off; `all` and `run`, given again, follow it. They exit
# with the run's code: 0 done, 2 bad input, 130 stopped. Name, zone and slices have to be the same each time.
#   --type TYPE        the slice, for example v5litepod-256, v5p-128, v6e-64
#   --zone Z, --project P (default: gcloud's own)
#   --slices N         number of slices, joined by the data center's network
#   --spot             cheaper, but may be preempted
#   --runtime VERSION  of the TPU software (default: by type)
#   --dry-run          print the commands instead
# CREATE_FLAGS and SSH_FLAGS hold further flags of gcloud, for example --network=N, --internal-ips and --internal-ip.
# Needs gcloud, git and bash 4.4.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit; }
((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] >= 44)) || { echo "tpu_pod.sh: needs bash 4.4" >&2 && exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
POLL=${POLL:-30} # Whole seconds between two checks while waiting.

say() { echo "tpu_pod.sh: $1" >&2; }
fail() {
    say "$1"
    exit 2
}

# Runs a command, or prints it in a dry run.
call() {
    if [ -z "$dry_run" ]; then
        "$@" < /dev/null
        return
    fi
    local word line=''
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
        line+="$word "
    done
    echo "${line% }" >&3
}

# The state of the queued resource, for example ACTIVE; empty where there is none.
pod_state() {
    call gcloud compute tpus queued-resources list "${where[@]}" --filter="name~/$name\$" --format='value(state.state)'
}

# on NODE WORKERS COMMAND: runs a line of shell on that worker, or on all.
on() { call gcloud compute tpus tpu-vm ssh "$1" "${where[@]}" "${ssh_flags[@]}" --quiet --worker="$2" --command="$3"; }

# worker NODE WORKERS ACTION...: runs tpu_worker.sh there, with arguments quoted for the remote shell.
worker() {
    local command
    printf -v command '%q ' bash bert_jax/launch/tpu_worker.sh "${@:3}"
    on "$1" "$2" "${command% }"
}

# each FUNCTION ...: calls it for every slice, all at once; fails if one fails. (gcloud's own command for all slices,
# `queued-resources ssh --node=all`, skips slices that it can't reach, and succeeds.)
each() {
    local node pid code=0 pids=()
    for node in "${nodes[@]}"; do
        if [ -n "$dry_run" ]; then
            "$1" "$node" "${@:2}"
        else
            "$1" "$node" "${@:2}" &
            pids+=("$!")
        fi
    done
    for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
    return "$code"
}

# A line for each worker, without gcloud's own two lines for each.
states() { each worker all state 2> /dev/null; }

# Before the pod exists, the person corrects a failure. Later, maybe at night, the step is tried again for 20 minutes.
trouble() {
    [ -n "$there" ] || fail "$1"
    if ((++failures == 5)); then
        say "$1, and so it went five times in a row: giving up. The pod costs until it is deleted"
        exit 75
    fi
    say "$1: trying again in $((POLL * 3 ** failures)) seconds"
    sleep "$((POLL * 3 ** failures))"
}

create() {
    local shape=(--node-id="$name")
    ((slices == 1)) || shape=(--node-count="$slices" --node-prefix="$name")
    call gcloud compute tpus queued-resources create "$name" "${where[@]}" "${shape[@]}" --accelerator-type="$type" \
        --runtime-version="$runtime" "${spot[@]}" "${create_flags[@]}"
}

delete() { call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --quiet --force; }

# Requests the pod if there is none, and waits until it exists.
wait_for_pod() {
    local state last='' asked=''
    while true; do
        if ! state=$(pod_state); then
            [ -n "$there$asked$last" ] || fail "gcloud can't say whether there is a pod $name"
            say "gcloud doesn't answer"
            sleep "$POLL"
            continue
        fi
        [ -z "$dry_run" ] || state=${asked:+ACTIVE}
        case $state in
        ACTIVE)
            there=yes
            return
            ;;
        '') if create; then asked=yes; else trouble "gcloud refused to create $name"; fi ;;
        SUSPENDED | FAILED)
            [[ $action$state == allSUSPENDED || -n $there ]] || fail "$name is $state; delete it and create it anew"
            [ "$state" = SUSPENDED ] || trouble "the request for $name failed"
            # The machines are gone already; this deletes the request for them.
            say "$name is $state: asking for another"
            delete || trouble "gcloud can't delete $name"
            ;;
        *)
            [ "$state" = "$last" ] || say "$name is $state"
            last=$state
            sleep "$POLL"
            ;;
        esac
    done
}

copy() {
    call gcloud compute tpus tpu-vm scp "$temporary/bert_jax.tar.gz" "$1:bert_jax.tar.gz" "${where[@]}" "${ssh_flags[@]}" --quiet \
        --worker=all
}

unpack() {
    local extract='mkdir -p bert_jax && tar --extract --gzip --file=bert_jax.tar.gz --directory=bert_jax'
    on "$1" all "$extract && bash bert_jax/launch/tpu_worker.sh install"
}

# Copies the checkout, committed or not, without the files that git ignores, by an archive that others can neither read
# nor have laid a link to.
install() {
    local list='git ls-files -z --cached --others --exclude-standard' archive
    [ -n "$dry_run" ] || rm -rf "$temporary"
    temporary=${TMPDIR:-/tmp}/bert_jax-XXXXXXXXXX
    [ -n "$dry_run" ] || temporary=$(mktemp -d "$temporary") || return
    archive=$temporary/bert_jax.tar.gz
    call bash -o pipefail -c "$list | tar --null -T - -czf ${archive@Q}" && each copy && each unpack
}

# The run's exit code from those of its workers: the first that forbids another start, or else the first.
outcome() {
    local code result=0
    while read -r code; do
        case $code in
        0) ;;
        75 | 143) [ "$result" != 0 ] || result=$code ;;
        *)
            result=$code
            break
            ;;
        esac
    done < <(sed -n 's/.*: exit //p' <<< "$1")
    echo "$result"
}

lost() {
    say "$1"
    [ -n "$there" ] && return 75 || return 2
}

# Starts the run if there is none, follows it, and returns its exit code; 75 if workers don't answer.
run() {
    local now
    now=$(states) || { lost "not all workers of $name answer; is the checkout installed there?" || return; }
    if [[ $now == *': running'* ]]; then
        say "a run is under way on $name: following it"
    elif ! each worker all start "${arguments[@]}"; then
        each worker all stop || true
        lost "the run didn't start on all workers of $name" || return
    fi
    there=yes
    while true; do
        worker "${nodes[0]}" 0 follow || true # Ends with the run, or with the connection.
        now=$(states) || { lost "not all workers of $name answer" || return; }
        [[ $now == *': running'* ]] || break
        sleep "$POLL"
    done
    return "$(outcome "$now")"
}

all() {
    local code began
    while true; do
        wait_for_pod
        if [[ $(states) != *': running'* ]] && ! install; then
            trouble "installing on $name failed"
            continue
        fi
        began=$SECONDS code=0
        run || code=$?
        case $code in 75 | 143) ;; *) return "$code" ;; esac
        if ((SECONDS - began > 600)) || [ "$(pod_state)" != ACTIVE ]; then
            failures=0
            say "the run was interrupted ($code); it goes on from its last checkpoint"
        else
            trouble "the run ended with $code after $((SECONDS - began)) seconds"
        fi
    done
}

action=${1:-} name=${2:-} type='' runtime='' slices=1 spot=() where=() arguments=() dry_run='' there='' failures=0
case $action in
create | install | run | log | status | stop | delete | all) ;;
*) fail "the first word must be all, create, install, run, log, status, stop or delete, not '$action'" ;;
esac
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] || fail "after $action comes the pod's name, of a-z, 0-9 and -, not '$name'"
shift 2
while (($#)); do
    case $1 in
    --type | --zone | --project | --slices | --runtime)
        [[ -n ${2:-} && $2 != -* ]] || fail "$1 needs a value"
        case $1 in
        --zone | --project) where+=("$1=$2") ;;
        *) printf -v "${1#--}" %s "$2" ;;
        esac
        shift
        ;;
    --spot) spot=(--spot) ;;
    --dry-run) dry_run=yes ;;
    --)
        arguments=("${@:2}")
        break
        ;;
    *) fail "no option $1; the arguments of bert-jax come after --" ;;
    esac
    shift
done
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices is '$slices', must be a number from 1"
if [[ $action =~ ^(all|create)$ ]]; then
    [ -n "$type" ] || fail "--type is missing: the slice's accelerator type, as v5litepod-256"
    case $type in # https://cloud.google.com/tpu/docs/runtimes
    v2-* | v3-* | v4-*) default=tpu-ubuntu2204-base ;;
    v5litepod-*) default=v2-alpha-tpuv5-lite ;;
    v5p-*) default=v2-alpha-tpuv5 ;;
    v6e-*) default=v2-alpha-tpuv6e ;;
    *) default='' ;;
    esac
    runtime=${runtime:-$default}
    [ -n "$runtime" ] || fail "--runtime is missing: the TPU software version for $type"
fi
if [[ $action =~ ^(all|run)$ ]]; then
    [ "${arguments[0]:-}" = pretrain ] || fail "what to run comes last: -- pretrain --config C --workdir gs://B/RUN"
    [[ " ${arguments[*]} " =~ \ --workdir[\ =]gs:// ]] || fail "--workdir must be gs://B/RUN; no worker's disk lasts"
    arguments=(pretrain --distributed "${arguments[@]:1}")
fi
[ -n "$dry_run" ] || command -v gcloud > /dev/null || fail "no gcloud; install the Google Cloud CLI and log in"
read -ra create_flags <<< "${CREATE_FLAGS:-}"
read -ra ssh_flags <<< "${SSH_FLAGS:-}"
nodes=("$name")
if ((slices > 1)); then
    nodes=()
    for ((slice = 0; slice < slices; slice++)); do nodes+=("$name-$slice"); done
fi
temporary=''
exec 3>&1
trap '[ -n "$dry_run" ] || rm -rf "$temporary"' EXIT
trap 'say "stopped following; the pod $name, or the request for it, and what runs there stay"; exit 130' INT

case $action in
create) wait_for_pod ;;
log) worker "${nodes[0]}" 0 follow ;;
status)
    echo "pod: $(pod_state)"
    each worker all state
    ;;
stop) each worker all stop ;;
all | run)
    code=0
    "$action" || code=$?
    [ -n "$dry_run" ] || say "the run ended with $code; the pod costs until: launch/tpu_pod.sh delete $name ${where[*]}"
    exit "$code"
    ;;
*) "$action" ;;
esac
