#!/usr/bin/env bash
# Trains on the GPU hosts of a SLURM cluster: one process a host, which drives all its GPUs.
#
#   sbatch --nodes=2 --gpus-per-node=8 docs/launch_slurm.sh \
#     --gin_file=models/mr_mt3.gin --gin_file=optimizers/mr_mt3.gin --gin_file=runs/train.gin \
#     --gin.MODEL_DIR=/shared/runs/mr_mt3 --gin.DATA_DIR=/shared/slakh2100_flac_redux
#
# MODEL_DIR must be a folder that all hosts share. PYTHON names the interpreter that has mrmt3 with jax[cuda12] (default: python),
# PORT the coordinator's port (default: follows from the job's number). Asked to stop (the time limit is near, or a
# higher priority wants the hosts), the run saves and the job goes back into the queue; so it does when a host was lost.
#SBATCH --job-name=mrmt3
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mrmt3-%j.log
set -euo pipefail

fail() {
  echo "launch_slurm.sh: error: $*" >&2
  exit 2
}

[ -n "${SLURM_JOB_ID:-}" ] || fail 'start it with sbatch (the first lines of this file say how)'
[ $# -gt 0 ] || fail 'name the gin files, for example --gin_file=runs/train.gin'
python=${PYTHON:-python}
command -v "$python" >/dev/null || fail "there is no $python; PYTHON names the interpreter that has mrmt3"
port=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}

flags=("$@")
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || fail "scontrol does not know the hosts $SLURM_JOB_NODELIST"
  flags+=(--multiprocess_gpu --coordinator_address="${hosts%%$'\n'*}:$port" --process_count="$SLURM_JOB_NUM_NODES")
fi

code=0
# Each process takes its number from the step it is part of.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c \
  '[ "$SLURM_NTASKS" = 1 ] || set -- "$@" --process_index="$SLURM_PROCID"; exec "$0" -m mrmt3.train "$@"' "$python" "${flags[@]}" ||
  code=$?
case "$code" in
  0) echo 'launch_slurm.sh: the run is done' ;;
  1 | 2 | 130) fail "the run ended with exit code $code; it says why above" ;;
  *)
    [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ] || fail "exit code $code; given up after 20 restarts"
    echo "launch_slurm.sh: stopped or a host lost (exit code $code); the job goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || fail 'scontrol cannot requeue the job; start it again with sbatch'
    ;;
esac
