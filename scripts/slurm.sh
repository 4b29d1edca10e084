#!/usr/bin/env bash
# A run on SLURM that survives preemption and time limits: it saves, is queued again, and goes on with the same bits.
#
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 scripts/slurm.sh configs/cifar10_sngan.yaml
#
# 120 seconds before the time limit, and on preemption, SLURM signals this script, which passes the signal on to every
# process of the run; each finishes its step, one saves, all end. The job is then queued again, because it was signalled:
# no exit code of a launcher is asked. A run that came to its end meanwhile says so and does nothing. After the crash of
# a node SLURM queues the job again by itself (--requeue). A run that stops with an error is not queued again.
#SBATCH --job-name=flipside
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# The processes find each other without a launcher: srun starts one per GPU and tells each its number.
export MASTER_ADDR MASTER_PORT WORLD_SIZE
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS

signalled=no
on_signal() {
    signalled=yes
    kill -USR1 "$step" 2>/dev/null # srun passes it on to every process
}
trap on_signal USR1 TERM

srun --kill-on-bad-exit=1 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "${PYTHON:-python}" train.py "$@"' train "$@" &
step=$!
wait "$step"
while kill -0 "$step" 2>/dev/null; do wait "$step"; done # a signal ends the first wait, not the run

if [ "$signalled" = yes ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
