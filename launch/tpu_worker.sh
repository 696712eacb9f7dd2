#!/bin/bash
# What tpu_vm.sh does on each TPU worker: one detached run, that a lost connection does not end.
#
#   tpu_worker.sh install            Python and the package with its TPU extra, beside this checkout
#   tpu_worker.sh start COMMAND...   start the command if it does not run, and return at once
#   tpu_worker.sh probe              one line: "running", "ended CODE", "stopped CODE", "lost" or "none"
#   tpu_worker.sh stop               ask the run to save and end, and wait until it has
#
# Kept beside the checkout in run/: pid (of the command), keeper (the shell that waits for it), boot
# (the start of the machine that both belong to), code (its exit code), stopped (stop was asked
# for), log.

set -euo pipefail

home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$home/run
export PATH="$home/.venv/bin:$HOME/.local/bin:$PATH"

install() {
    command -v uv >/dev/null || python3 -m pip install --quiet --user uv
    [[ -d $home/.venv ]] || uv venv --quiet --python 3.12 "$home/.venv"
    uv pip install --quiet --python "$home/.venv" --editable "${home}[tpu]"
}

boot() {
    cat /proc/sys/kernel/random/boot_id
}

# The keeper counts too: it lives until the exit code is written down.
running() {
    [[ -f $state/pid && ! -f $state/code && $(boot) == "$(cat "$state/boot")" ]] || return 1
    kill -0 "$(cat "$state/keeper")" 2>/dev/null || kill -0 "$(cat "$state/pid")" 2>/dev/null
}

start() {
    running && return
    mkdir -p "$state"
    rm -f "$state"/{pid,keeper,code,stopped}
    boot >"$state/boot"
    cd "$home"
    setsid bash "$home/launch/tpu_worker.sh" hold "$@" >>"$state/log" 2>&1 </dev/null &
    until [[ -f $state/pid ]]; do sleep 0.05; done
}

# Stay with the command and write down its exit code, also when both are told to end.
hold() {
    local child code interrupted=true
    trap 'interrupted=true' TERM
    echo $$ >"$state/keeper"
    "$@" &
    child=$!
    echo "$child" >"$state/pid.new" && mv "$state/pid.new" "$state/pid"
    # A signal ends "wait" before the command has ended; then it is waited for again.
    while $interrupted; do
        code=0 interrupted=false
        wait "$child" || code=$?
        [[ $code -gt 128 ]] || break
    done
    echo "$code" >"$state/code.new" && mv "$state/code.new" "$state/code"
}

probe() {
    if running; then
        echo running
    elif [[ -f $state/code && -f $state/stopped ]]; then
        echo "stopped $(cat "$state/code")"
    elif [[ -f $state/code ]]; then
        echo "ended $(cat "$state/code")"
    elif [[ -f $state/pid ]]; then
        echo lost
    else
        echo none
    fi
}

stop() {
    running || return 0
    touch "$state/stopped"
    kill -TERM "$(cat "$state/pid")" || true
    while running; do sleep 0.2; done
}

case ${1-} in
    install | probe | stop) "$1" ;;
    start | hold) "$@" ;;
    *) echo "error: tpu_worker.sh expects install, start, probe or stop." >&2 && exit 2 ;;
esac
