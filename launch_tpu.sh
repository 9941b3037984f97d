#!/usr/bin/env bash
# Trains on a TPU VM: creates or reuses it, copies this checkout, installs it, and starts the run in tmux in the home folder.
# --dry_run prints every command and runs none. Needs the gcloud command, logged in.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: launch_tpu.sh COMMAND --name NAME --zone ZONE [options] [-- TRAIN FLAGS]

commands:
  train     create the TPU VM if it is not there, copy and install mrmt3, start python -m mrmt3.train in tmux
  logs      follow the run's log
  stop      end the run, keep the TPU
  delete    delete the TPU

options:
  --name NAME      name of the TPU VM
  --zone ZONE      for example us-central2-b
  --type TYPE      accelerator type of one host (default v4-8)
  --version NAME   TPU software version (default tpu-ubuntu2204-base)
  --project ID     Google Cloud project (default: gcloud's own)
  --spot           a preemptible TPU
  --dry_run        print the commands only

example:
  ./launch_tpu.sh train --name mr-mt3 --zone us-central2-b -- \
    --gin_file=models/mr_mt3.gin --gin_file=optimizers/mr_mt3.gin --gin_file=runs/train.gin \
    --gin.MODEL_DIR=runs/mr_mt3 --gin.DATA_DIR=/data/slakh2100_flac_redux
USAGE
}

fail() {
  echo "launch_tpu.sh: error: $*" >&2
  exit 2
}

command=${1:-}
case "$command" in
  train | logs | stop | delete) shift ;;
  -h | --help) usage; exit 0 ;;
  '') usage >&2; exit 2 ;;
  *) fail "no command '$command'; there are train, logs, stop, delete (--help)" ;;
esac

name='' zone='' type=v4-8 version=tpu-ubuntu2204-base project='' spot=false dry_run=false
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --zone | --type | --version | --project)
      [ $# -ge 2 ] || fail "$1 needs a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    --spot) spot=true; shift ;;
    --dry_run) dry_run=true; shift ;;
    --) shift; break ;;
    *) fail "no option '$1' (--help)" ;;
  esac
done
[ -n "$name" ] || fail 'give the TPU a name: --name NAME'
[ -n "$zone" ] || fail 'say where: --zone ZONE'
$dry_run || command -v gcloud >/dev/null || fail 'gcloud is not installed; or look first with --dry_run'

where=(--zone "$zone")
[ -z "$project" ] || where+=(--project "$project")

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  $dry_run || "$@"
}

tpu() { run gcloud compute tpus tpu-vm "$@" "${where[@]}"; }

on_all_workers() { tpu ssh "$name" --worker all --command "$1"; }

exists() { gcloud compute tpus tpu-vm describe "$name" "${where[@]}" >/dev/null 2>&1; }

case "$command" in
  train)
    [ $# -gt 0 ] || fail 'name the gin files after --, for example -- --gin_file=runs/train.gin'
    if $dry_run || ! exists; then
      extra=()
      ! $spot || extra+=(--spot)
      tpu create "$name" --accelerator-type "$type" --version "$version" ${extra[@]+"${extra[@]}"}
    fi
    archive=$(mktemp -t mrmt3.XXXXXX.tar.gz)
    trap 'rm -f "$archive"' EXIT
    run git -C "$(dirname "$0")" archive --format tar.gz -o "$archive" HEAD
    tpu scp "$archive" "$name:mrmt3.tar.gz" --worker all
    on_all_workers 'sudo apt-get install -y -q tmux python3.11 python3.11-venv && rm -rf mrmt3 && mkdir mrmt3 && tar xzf mrmt3.tar.gz -C mrmt3 && python3.11 -m venv venv && venv/bin/pip install -q -e "mrmt3[train]" "jax[tpu]"'
    flags=$(printf ' %q' "$@")
    # The inner quotes are for the remote shell, which hands the whole line to tmux.
    on_all_workers "tmux new-session -d -s mrmt3 $(printf '%q' "venv/bin/python -m mrmt3.train$flags 2>&1 | tee -a train.log")"
    ;;
  logs) tpu ssh "$name" --worker 0 --command 'tail -n 100 -f train.log' ;;
  stop) on_all_workers 'tmux kill-session -t mrmt3' ;;
  delete) tpu delete "$name" --quiet ;;
esac
