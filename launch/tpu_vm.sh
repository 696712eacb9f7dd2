#!/bin/bash
# A run on a Cloud TPU VM or a pod slice, through queued resources.
#
#   launch/tpu_vm.sh run --name NAME --zone ZONE --type TYPE [options] -- COMMAND...
#   launch/tpu_vm.sh status | logs | stop | delete --name NAME --zone ZONE [--project P]
#
#   run      get the TPU, install this checkout on all workers, run the command on all of them, and
#            again on a new TPU whenever this one is preempted, until WORKDIR/results.json is there;
#            started again it takes up what it finds, so the machine that runs it may be lost too
#   status   state of the queued resource, and of the run on each worker
#   logs     follow the log of a worker (--worker I, default 0)
#   stop     all workers save the same step and end; "run" goes on from there
#   delete   give the TPU back (run does not: stop paying with this)
#
#   --name NAME          of the queued resource and of the TPU in it
#   --zone ZONE          such as us-west4-a
#   --project P          default: gcloud's
#   --type TYPE          accelerator type: v5litepod-8 (one host), v5litepod-16 (a slice of hosts)
#   --runtime VERSION    software of the VM (default v2-alpha-tpuv5-lite)
#   --spot               cheaper, and preempted at any time
#   --setup COMMAND      on every worker before the run, and before each run again; mount the file
#                        system of --workdir here, so that nothing happens if it is mounted already
#   --create-flag FLAG   a further flag of "gcloud compute tpus queued-resources create"; repeatable
#   --poll SECONDS       between two looks (default 30)
#   --dry-run            print every command and execute none
#
# The command is run in a copy of this checkout, with "--hosts auto" at its end. Its --workdir must
# be an absolute path on a file system that all workers share and that outlives them.

set -euo pipefail

readonly REMOTE=hmgr_jax                  # the checkout on a worker, in its home
readonly SHIPPED=(pyproject.toml setup.py README.md LICENSE hmgr_jax configs benchmarks launch)
readonly PATIENCE=4                       # looks until a failure is taken as one
readonly TRIES=3                          # unfinished ends in a row on a TPU that is still there
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly source_folder

action=${1-}
name='' zone='' project='' type='' workdir='' results=results.json setup=''
runtime=v2-alpha-tpuv5-lite poll=30 worker=0 dry_run=false
create_flags=() command=() place=()
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "error: $1" >&2
    exit "${2-2}"
}

say() {
    echo "tpu_vm: $1" >&2
}

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

parse() {
    while [[ $# -gt 0 && $1 != -- ]]; do
        case $1 in
            -h | --help) usage && exit 0 ;;
            --spot) create_flags+=(--spot) ;;
            --dry-run) dry_run=true ;;
            --name | --zone | --project | --type | --runtime | --setup | --poll | --worker | --create-flag)
                [[ -n ${2-} && $2 != -- ]] || fail "$1 expects a value."
                if [[ $1 == --create-flag ]]; then
                    create_flags+=("$2")
                else
                    printf -v "${1#--}" %s "$2"
                fi
                shift
                ;;
            *) fail "There is no flag '$1'; --help shows the command line." ;;
        esac
        shift
    done
    [[ $# -eq 0 ]] || shift
    command=("$@")
}

check() {
    [[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "--name expects small letters, digits and dashes, such as hmgr-coco, not '$name'."
    [[ -n $zone ]] || fail "Give the zone of the TPU, as --zone us-west4-a."
    [[ $poll =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--poll expects seconds, not '$poll'."
    [[ $worker =~ ^[0-9]+$ ]] || fail "--worker expects the number of a worker, not '$worker'."
    place=(--quiet "--zone=$zone")
    [[ -z $project ]] || place+=("--project=$project")
    $dry_run || command -v gcloud >/dev/null || fail "gcloud is not on the PATH: install the Google Cloud CLI."
    [[ $action != run ]] || check_run
}

check_run() {
    [[ -n $type ]] || fail "Give the accelerator type, as --type v5litepod-16."
    [[ ${#command[@]} -gt 0 ]] || fail "Give the command after --, as: tpu_vm.sh run ... -- python -m hmgr_jax.main ..."
    local previous='' word
    for word in "${command[@]}"; do
        [[ $previous != --workdir ]] || workdir=$word
        [[ $word != --seeds* ]] || results=seeds.json
        [[ $word != --workdir=* ]] || workdir=${word#*=}
        [[ $word != --hosts && $word != --hosts=* ]] || fail "Leave --hosts out of the command: it is added here."
        previous=$word
    done
    [[ $workdir == /* ]] || fail "The command needs --workdir with an absolute path on a file system that all workers share, not '$workdir'."
}

# Run "$@", or print it; also where its output is caught.
exec 3>&1
call() {
    if $dry_run; then
        { printf '%q ' "$@" && echo; } >&3
    else
        "$@" 3>&-
    fi
}

queued() {
    call gcloud compute tpus queued-resources "$1" "$name" "${place[@]}" "${@:2}"
}

# on WORKER COMMAND: through ssh, in the home of that worker ("all": of each).
on() {
    call gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

worker_sh() {
    echo "bash $REMOTE/launch/tpu_worker.sh $*"
}

# State of the queued resource; NONE if there is none, UNKNOWN if Google did not answer.
resource_state() {
    if queued describe '--format=value(state.state)' 2>"$scratch/refusal"; then
        return
    elif grep -q NOT_FOUND "$scratch/refusal"; then
        echo NONE
    else
        cat "$scratch/refusal" >&2
        echo UNKNOWN
    fi
}

create() {
    queued create "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$runtime" \
        "${create_flags[@]}" || fail "Google refused to create '$name' (see above)." 1
}

delete() {
    queued delete --force
}

# Until the TPU is there. What is suspended or failed is deleted and asked for again.
get_tpu() {
    local state last='' failed=0 unknown=0
    while true; do
        state=$(resource_state)
        [[ $state == "$last" ]] || say "$name is $state"
        last=$state
        case $state in
            ACTIVE) return ;;
            NONE) create ;;
            SUSPENDED) delete || true ;;
            FAILED)
                failed=$((failed + 1))
                [[ $failed -lt $TRIES ]] || fail "'$name' failed $failed times in a row: gcloud compute tpus queued-resources describe $name says why." 1
                delete || true
                ;;
            UNKNOWN)
                unknown=$((unknown + 1))
                [[ $unknown -lt $PATIENCE ]] || fail "Google does not say how '$name' is (see above)." 1
                ;;
        esac
        [[ $state == NONE ]] || sleep "$poll"
    done
}

install() {
    local archive=$scratch/checkout.tar.gz
    call tar -czf "$archive" --exclude=__pycache__ -C "$source_folder" "${SHIPPED[@]}" &&
        call gcloud compute tpus tpu-vm scp "$archive" "$name:$REMOTE.tar.gz" "${place[@]}" --worker=all &&
        on all "mkdir -p $REMOTE && tar -xzf $REMOTE.tar.gz -C $REMOTE && $(worker_sh install)"
}

start() {
    [[ -z $setup ]] || on all "$setup" || return
    on all "$(worker_sh start "$(printf '%q ' "${command[@]}" --hosts auto)")"
}

# One line a worker; fails when a worker cannot be reached.
probe() {
    on all "if test -d $REMOTE; then $(worker_sh probe); else echo none; fi" |
        grep -E '^(running|ended|stopped|lost|none)'
}

finished() {
    on 0 "test -e $(printf %q "$workdir/$results")"
}

# Look at the run until it ends. Sets outcome: gone (the TPU is no longer ACTIVE, or cannot be
# reached), again (to be started again), stopped, failed CODE, done.
watch() {
    local lines code silent=0 ended=0
    outcome=gone
    while [[ $silent -lt $PATIENCE && $(resource_state) =~ ^(ACTIVE|UNKNOWN)$ ]]; do
        sleep "$poll"
        lines=$(probe 2>/dev/null) || { silent=$((silent + 1)) && continue; }
        silent=0
        if grep -qE '^(lost|none)' <<<"$lines"; then outcome=again && return; fi
        code=$(sed -nE 's/^(ended|stopped) ([1-9][0-9]*).*/\2/p' <<<"$lines" | head -n 1)
        if [[ -z $code ]]; then
            ! grep -q '^running' <<<"$lines" || continue
            if finished; then outcome="done" && return; fi
            if grep -q '^stopped' <<<"$lines"; then outcome=stopped && return; fi
        fi
        # A preemption ends the processes before it shows in the state of the TPU.
        ended=$((ended + 1))
        if [[ $ended -ge $PATIENCE ]]; then
            if [[ -n $code ]]; then outcome="failed $code"; else outcome=again; fi
            return
        fi
    done
}

# Take up a run that is there already, or install and start it.
take_up() {
    local lines
    lines=$(probe 2>/dev/null) || return
    if ! grep -qv '^running' <<<"$lines"; then
        say "running already: watching it"
        return
    fi
    # Some run and some do not: they wait for each other, so all are started together.
    ! grep -q '^running' <<<"$lines" || on all "$(worker_sh stop)" || return
    install && start
}

run() {
    local outcome repeated=0
    while true; do
        get_tpu
        outcome=gone
        if take_up; then
            watch
        else
            say "could not start on all workers; looking again"
        fi
        case $outcome in
            done) say "finished: $workdir/$results" && return ;;
            stopped) say "stopped; the same command goes on" && return ;;
            failed*) end_failed "${outcome#* }" ;;
        esac
        repeated=$((repeated + 1))
        [[ $(resource_state) == ACTIVE ]] || repeated=0
        [[ $repeated -lt $TRIES ]] || fail "The run ended $repeated times without $workdir/$results on a TPU that is still there: see tpu_vm.sh logs." 1
        say "going on ($outcome)"
        sleep "$poll"
    done
}

end_failed() {
    on all "$(worker_sh stop)" || true
    on all "tail -n 20 $REMOTE/run/log" >&2 || true
    fail "The run failed on '$name' with exit code $1 (see the logs above); the TPU is still there and paid for." "$1"
}

# Every command of a first run, in its order.
rehearse() {
    resource_state >/dev/null
    create
    resource_state >/dev/null
    install
    start
    probe || true
    finished
    echo "# preempted, suspended or failed:" >&3
    delete
    create
}

case $action in
    run | status | logs | stop | delete) ;;
    -h | --help | '') usage && exit 0 ;;
    *) fail "There is no action '$action'; known: run, status, logs, stop, delete." ;;
esac
parse "${@:2}"
check
case $action in
    run) if $dry_run; then rehearse; else run; fi ;;
    status)
        state=$(resource_state)
        say "$name is ${state:-printed above}"
        if $dry_run || [[ $state == ACTIVE ]]; then probe || true; fi
        ;;
    logs) on "$worker" "tail -n 100 -F $REMOTE/run/log" ;;
    stop) on all "$(worker_sh stop)" ;;
    delete) delete ;;
esac
