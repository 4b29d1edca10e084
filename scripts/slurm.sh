#!/usr/bin/env bash
# A run on SLURM that survives preemption and time limits: it saves, is queued again, and goes on with the same bits.
#
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 scripts/slurm.sh configs/cifar10_sngan.yaml
#
# 120 seconds before the time limit SLURM signals this script, which passes it on to every process of the run; at a
# preemption it signals the processes themselves. Each finishes its step, one saves, all end, and leave a mark that a
# signal stopped them; because of the mark the job is queued again. No exit code of srun is asked. A run that came to its
# end meanwhile says so and does nothing; one that stops with an error leaves no mark. After the crash of a node SLURM
# queues the job again by itself (--requeue).
#SBATCH --job-name=flipside
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# The processes find each other without a launcher: srun starts one per GPU and tells each its number.
export MASTER_ADDR MASTER_PORT WORLD_SIZE STOPPED
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
STOPPED=$PWD/slurm-$SLURM_JOB_ID.stopped # the mark

train() { # one process of the run
    RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID "${PYTHON:-python}" train.py "$@" &
    local trainer=$! code
    trap 'kill -USR1 "$trainer" 2>/dev/null' USR1 TERM
    while wait "$trainer"; code=$?; kill -0 "$trainer" 2>/dev/null; do :; done # a signal ends a wait, not the run
    # 75 is train.py's own word; over 128 a signal cut the wait short just as it ended
    if [ "$code" -eq 75 ] || [ "$code" -gt 128 ]; then touch "$STOPPED"; fi
    return "$code"
}
export -f train

rm -f "$STOPPED"
srun --kill-on-bad-exit=1 bash -c 'train "$@"' train "$@" &
step=$!
trap 'kill -USR1 "$step" 2>/dev/null' USR1 TERM # srun passes it on to every process
while wait "$step"; kill -0 "$step" 2>/dev/null; do :; done

if [ -e "$STOPPED" ]; then
    rm -f "$STOPPED"
    scontrol requeue "$SLURM_JOB_ID"
fi
