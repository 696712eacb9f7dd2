#!/bin/bash
#SBATCH --job-name=hmgr
#SBATCH --open-mode=append
#SBATCH --requeue
# Without "B:" the signal goes to the tasks that srun started, not to this shell: they save and end
# with exit code 0, srun returns, and the lines at the end of this file put the job back.
#SBATCH --signal=TERM@120
#
# A run under SLURM, put back into the queue until it has finished.
#
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --time=12:00:00 launch/slurm.sh -- \
#       python -m hmgr_jax.main --config configs/coco.py --workdir /shared/runs/coco
#
#   --max-requeues N   put it back at most N times (default 100)
#   --dry-run          print the commands and do nothing: bash launch/slurm.sh --dry-run -- COMMAND
#
# One task a GPU, or one task a node (which then has all of its GPUs). Load modules and activate the
# environment before sbatch. Lengthen the time to save with sbatch --signal=TERM@SECONDS.
# --workdir must lie on a file system that all nodes share.

set -euo pipefail

max_requeues=100
dry_run=false
workdir='' results=results.json
command=()

fail() {
    echo "error: $1" >&2
    exit 2
}

usage() {
    sed -n '/^# A run under/,/^# --workdir/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

parse() {
    while [[ $# -gt 0 && $1 != -- ]]; do
        case $1 in
            -h | --help) usage && exit 0 ;;
            --dry-run) dry_run=true ;;
            --max-requeues)
                [[ ${2-} =~ ^[0-9]+$ ]] || fail "--max-requeues expects a number, not '${2-}'."
                max_requeues=$2
                shift
                ;;
            *) fail "There is no flag '$1'; known: --max-requeues, --dry-run, and -- before the command." ;;
        esac
        shift
    done
    [[ $# -gt 1 ]] || fail "Give the command after --, as: sbatch launch/slurm.sh -- python -m hmgr_jax.main ..."
    shift
    command=("$@")
    find_workdir "$@"
}

find_workdir() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            --workdir) workdir=${2-} ;;
            --seeds | --seeds=*) results=seeds.json ;;
            --workdir=*) workdir=${1#*=} ;;
            --hosts | --hosts=*) fail "Leave --hosts out of the command: it is added here." ;;
        esac
        shift
    done
    [[ -n $workdir ]] || fail "The command needs --workdir, on a file system that all nodes share: without it a run cannot go on after the time limit."
}

# How many tasks a node has, and whether each sees the GPUs that it should.
arrange() {
    local nodes=${SLURM_JOB_NUM_NODES:-1} gpus=${SLURM_GPUS_ON_NODE:-0} ids
    tasks_per_node=${SLURM_NTASKS_PER_NODE:-$((${SLURM_NTASKS:-$nodes} / nodes))}
    tasks=$((tasks_per_node * nodes))
    [[ ${SLURM_NTASKS:-$tasks} -eq $tasks ]] || fail "$SLURM_NTASKS tasks on $nodes nodes are not the same number on each: give --ntasks-per-node."
    # Bound to one GPU, a task sees it as number 0, but jax looks for the number of the task.
    [[ -z ${SLURM_GPUS_PER_TASK-} ]] || fail "Give --gpus-per-node instead of --gpus-per-task: jax picks the GPU of a task itself."
    if [[ $tasks -gt 1 && $gpus -gt 1 && $tasks_per_node -eq 1 ]]; then
        # jax would take one GPU a task under SLURM; this gives it all of the node's.
        ids=$(seq -s, 0 $((gpus - 1)))
        environment=("JAX_LOCAL_DEVICE_IDS=$ids")
    elif [[ $gpus -gt 0 && $tasks_per_node -ne 1 && $tasks_per_node -ne $gpus ]]; then
        fail "$tasks_per_node tasks a node do not fit its $gpus GPUs: give --ntasks-per-node=$gpus (a task a GPU) or 1 (a task a node)."
    fi
    [[ $tasks -eq 1 ]] || hosts=(--hosts auto)
}

# Run "$@", or print it.
call() {
    if $dry_run; then
        printf '%q ' "$@" && echo
    else
        "$@"
    fi
}

requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    if [[ $restarts -ge $max_requeues ]]; then
        fail "The job was put back $restarts times and has not finished: look at $workdir, then submit it again or raise --max-requeues."
    fi
    # A cancelled or preempted job is no longer RUNNING, and not ours to put back.
    if ! $dry_run && ! scontrol show job "$SLURM_JOB_ID" --oneliner | grep -q 'JobState=RUNNING'; then
        echo "slurm.sh: stopped from outside; submit it again to go on." >&2
        return
    fi
    echo "slurm.sh: saved but not finished: back into the queue." >&2
    call scontrol requeue "${SLURM_JOB_ID:-JOB}"
}

parse "$@"
tasks=1 tasks_per_node=1 hosts=() environment=()
arrange
run=(env "${environment[@]}" srun "--ntasks=$tasks" "--ntasks-per-node=$tasks_per_node"
    --kill-on-bad-exit=1 --label "${command[@]}" "${hosts[@]}")
[[ ${#environment[@]} -gt 0 ]] || run=("${run[@]:1}")
code=0
call "${run[@]}" || code=$?
if [[ $code -ne 0 ]]; then
    echo "slurm.sh: the run failed with exit code $code and is not put back." >&2
elif ! $dry_run && [[ -e $workdir/$results ]]; then
    echo "slurm.sh: finished: $workdir/$results" >&2
else
    requeue
fi
exit "$code"
