#!/usr/bin/env bash
# Trains on a TPU VM or a pod slice: creates or reuses the TPU, copies and installs this checkout, and starts the run in
# tmux on every worker. --dry_run prints the commands without running them. Needs the gcloud command, logged in.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: launch_tpu.sh COMMAND --name NAME --zone ZONE [options] [-- TRAIN FLAGS]

commands:
  train     create the TPU (again, if it was preempted), copy and install mrmt3, and start python -m mrmt3.train in tmux
            on every worker, with its output in train.log
  watch     same as train, then wait; if the TPU is preempted or a host is lost, restart from the last checkpoint, until
            the run is done
  status    show the state of the TPU and of the run on every worker
  logs      follow a worker's train.log
  attach    attach to a worker's tmux session (Ctrl-b d detaches)
  stop      stop the run on every worker, which saves first; keep the TPU
  delete    delete the TPU

options:
  --name NAME       name of the TPU
  --zone ZONE       for example us-central2-b
  --type TYPE       accelerator type, with one or several hosts: v4-8 (default), v4-32, v5litepod-256, v6e-16, ...
  --version NAME    TPU software version (default: the one for the type)
  --project ID      Google Cloud project (default: gcloud's project)
  --bucket NAME     mount this Cloud Storage bucket as ~/bucket on every worker, with gcsfuse. A run on several hosts,
                    or one that is to outlive its TPU, needs a MODEL_DIR in a folder that all workers share
  --worker N        worker for logs and attach (default 0)
  --spot            create a preemptible TPU
  --restarts N      maximum number of restarts by watch (default 20)
  --dry_run         only print the commands

example:
  ./launch_tpu.sh watch --name mr-mt3 --zone us-west4-a --type v5litepod-16 --spot --bucket my-bucket -- \
    --gin_file=models/mr_mt3.gin --gin_file=optimizers/mr_mt3.gin --gin_file=runs/train.gin \
    --gin.MODEL_DIR=bucket/runs/mr_mt3 --gin.DATA_DIR=bucket/slakh2100_flac_redux
USAGE
}

fail() {
  echo "launch_tpu.sh: error: $*" >&2
  exit 2
}

say() { echo "launch_tpu.sh: $*"; }

command=${1:-}
case "$command" in
  train | watch | status | logs | attach | stop | delete) shift ;;
  -h | --help) usage; exit 0 ;;
  '') fail 'no command given; give train, watch, status, logs, attach, stop or delete (--help)' ;;
  *) fail "no command '$command'; give train, watch, status, logs, attach, stop or delete (--help)" ;;
esac

name='' zone='' type=v4-8 version='' project='' bucket='' worker=0 restarts=20 spot=false dry_run=false
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --zone | --type | --version | --project | --bucket | --worker | --restarts)
      case "${2:-}" in '' | --*) fail "$1 needs a value" ;; esac
      declare "${1#--}=$2"
      shift 2
      ;;
    --spot) spot=true; shift ;;
    --dry_run) dry_run=true; shift ;;
    --) shift; break ;;
    *) fail "no option '$1'; see --help" ;;
  esac
done
train_flags=("$@")
[ -n "$name" ] || fail 'no name of the TPU; add --name NAME'
[ -n "$zone" ] || fail 'no zone; add --zone ZONE'
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
  fail "--name $name: a name consists of lower-case letters, digits and hyphens, and starts with a letter"
for number in worker restarts; do
  [[ ${!number} =~ ^[0-9]+$ ]] || fail "--$number ${!number}: give an integer of at least 0"
done
bucket=${bucket#gs://} bucket=${bucket%/}
[[ -z $bucket || $bucket =~ ^[a-z0-9][-_.a-z0-9]*$ ]] || fail "--bucket $bucket: give only the bucket's name"
case "$command" in
  train | watch)
    [ ${#train_flags[@]} -gt 0 ] || fail 'no gin files; give them after --, for example -- --gin_file=runs/train.gin'
    ;;
  *) [ ${#train_flags[@]} = 0 ] || fail "$command takes no training flags; remove everything after --" ;;
esac
if [ -z "$version" ]; then
  case "$type" in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) version='tpu-ubuntu2204-base' ;;
  esac
fi
$dry_run || command -v gcloud >/dev/null || fail 'gcloud is not installed; install it, or use --dry_run'

where=(--zone "$zone")
[ -z "$project" ] || where+=(--project "$project")
scratch=$(mktemp -d -t launch_tpu.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
errors=$scratch/errors
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# quoted WORD...: prints the words quoted for a shell, each after a space.
quoted() {
  local word
  for word in "$@"; do
    [[ $word =~ ^[-_=/:.,@a-zA-Z0-9]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    printf ' %s' "$word"
  done
}

show() {
  printf '+'
  quoted "$@"
  printf '\n'
}

# The most informative line of gcloud's errors: an API's message, else the last line that is not about ssh itself.
reason() {
  local line noise='exited with return code|^Using ssh batch|^SSH: |--troubleshoot|^Recommendation'
  line=$(grep -o '"message": ".*"' "$errors" | tail -n 1) ||
    line=$(grep -Ev "^[[:space:]]*[]{}[]*\$|$noise" "$errors" | tail -n 1) || line=$(tail -n 1 "$errors")
  echo "${line:-gcloud gave no reason}"
}

# attempt WHAT COMMAND...: runs the command; a failure ends the script with one line.
attempt() {
  local what=$1
  shift
  show "$@"
  $dry_run || "$@" 2>"$errors" || fail "cannot $what: $(reason)"
}

tpu=(gcloud compute tpus tpu-vm)

# Commands for the workers, in their home folder. This machine's shell expands nothing in them.
# shellcheck disable=SC2016
{
  install='set -eo pipefail
sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q tmux >/dev/null
rm -rf mrmt3
mkdir mrmt3
tar xzf mrmt3.tar.gz -C mrmt3
python3 -m pip install -q --user uv
[ -x venv/bin/python ] || python3 -m uv venv -q --python 3.12 venv
python3 -m uv pip install -q --python venv/bin/python -e "mrmt3[train]" "jax[tpu]"'
  mount='set -eo pipefail
if ! command -v gcsfuse >/dev/null; then
  from=https://packages.cloud.google.com/apt key=/usr/share/keyrings/gcsfuse.asc
  curl -fsS $from/doc/apt-key.gpg | sudo tee $key >/dev/null
  echo "deb [signed-by=$key] $from gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -o DPkg::Lock::Timeout=600 update -q >/dev/null
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q gcsfuse >/dev/null
fi
mkdir -p bucket
mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit 100000'
  begin='tmux kill-session -t mrmt3 2>/dev/null
rm -f train.exit train.stop
tmux new-session -d -s mrmt3 bash run_mrmt3.sh'
  look='if tmux has-session -t mrmt3 2>/dev/null; then echo run: running
elif [ -e train.stop ]; then echo run: stopped
else echo "run: $(cat train.exit 2>/dev/null || echo none)"; fi'
  end="touch train.stop
pkill -TERM -u \"\$(id -u)\" -f '[v]env/bin/python -m mrmt3.train' || true"
  run_begin='#!/usr/bin/env bash'
  # Written under another name first, so that the file is never read half-written.
  run_end='echo "${PIPESTATUS[0]}" > train.exit.new && mv train.exit.new train.exit'
}

on_all_workers() {
  attempt "$1 on every worker of $name" "${tpu[@]}" ssh "$name" "${where[@]}" --worker all --command "$2"
}

state() {
  local found
  if found=$("${tpu[@]}" describe "$name" "${where[@]}" --format 'value(state)' 2>"$errors"); then
    echo "${found:-UNKNOWN}"
  elif grep -qiE 'NOT_?FOUND|not found' "$errors" && grep -q "nodes/$name" "$errors"; then
    echo ABSENT
  else
    fail "cannot get the state of $name: $(reason)"
  fi
}

create() {
  local extra=()
  ! $spot || extra+=(--spot)
  attempt "create $name" "${tpu[@]}" create "$name" "${where[@]}" --accelerator-type "$type" --version "$version" \
    ${extra[@]+"${extra[@]}"}
}

delete() { attempt "delete $name" "${tpu[@]}" delete "$name" "${where[@]}" --quiet; }

# Returns when the TPU is ready; creates, starts or recreates it if needed.
make_ready() {
  local found tries
  if $dry_run; then
    show "${tpu[@]}" describe "$name" "${where[@]}" --format 'value(state)'
    say 'if it does not exist (if it is PREEMPTED or TERMINATED: after tpu-vm delete):'
    create
    return
  fi
  for ((tries = 0; tries < 180; tries++)); do
    found=$(state)
    case "$found" in
      READY) return ;;
      ABSENT) create ;;
      PREEMPTED | TERMINATED)
        say "$name was preempted; creating it again"
        delete
        ;;
      STOPPED) attempt "start $name" "${tpu[@]}" start "$name" "${where[@]}" ;;
      CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING | DELETING | STOPPING) sleep 10 ;;
      *) fail "$name is in state $found; check it in the Google Cloud console, or delete it" ;;
    esac
  done
  fail "$name is still $found after half an hour; check it in the Google Cloud console, or delete it"
}

# Prints, for each worker, 'running', 'stopped' (by the command stop), 'none', or the exit code of its run.
runs() {
  "${tpu[@]}" ssh "$name" "${where[@]}" --worker all --command "$look" 2>"$errors" | sed -n 's/^.*run: //p'
}

start() {
  local revision tries
  git -C "$here" rev-parse --git-dir >/dev/null 2>&1 ||
    fail "$here is not a git checkout; start this script from one, since it copies the tracked files"
  # The tracked files as they are, including uncommitted changes.
  revision=$(git -C "$here" -c user.name=mrmt3 -c user.email=mrmt3 stash create) ||
    fail "git cannot read the changes in $here; check git status there"
  attempt 'pack the checkout' git -C "$here" archive --format tar.gz -o "$scratch/mrmt3.tar.gz" "${revision:-HEAD}"
  {
    echo "$run_begin"
    # The name of the flag is t5x's. JAX detects the workers of a TPU.
    echo "venv/bin/python -m mrmt3.train --multiprocess_gpu$(quoted "${train_flags[@]}") 2>&1 | tee -a train.log"
    echo "$run_end"
  } >"$scratch/run_mrmt3.sh"
  if $dry_run; then
    sed 's/^/  run_mrmt3.sh: /' "$scratch/run_mrmt3.sh"
  else
    # A new machine does not accept ssh at once.
    for ((tries = 0; tries < 12; tries++)); do
      ! "${tpu[@]}" ssh "$name" "${where[@]}" --worker all --command true >/dev/null 2>"$errors" || break
      sleep 10
    done
  fi
  attempt "copy to $name" "${tpu[@]}" scp "$scratch/mrmt3.tar.gz" "$scratch/run_mrmt3.sh" "$name:" "${where[@]}" \
    --worker all
  on_all_workers 'install mrmt3' "$install"
  [ -z "$bucket" ] || on_all_workers "mount the bucket $bucket" "$mount $bucket bucket"
  on_all_workers 'start the run' "$begin"
}

# Starts the run unless it is running already.
launch() {
  make_ready
  if ! $dry_run && [ "$(runs | sort -u)" = running ]; then
    say "the run on $name is running already; 'logs' follows it, 'stop' stops it"
    return
  fi
  start
  $dry_run || say "started; follow it with: $0 logs --name $name --zone $zone${project:+ --project $project}"
}

# Waits for the run's end and sets $outcome to 'done', 'stopped', 'lost' (to be restarted), or 'failed CODE'.
await() {
  local found all
  while true; do
    sleep 60
    found=$(state) || continue  # it has printed the reason
    all=$(runs | sort -u) || true
    if [ "$found" != READY ]; then
      outcome=lost
    elif grep -qx stopped <<<"$all"; then
      outcome=stopped
    elif [ "$all" = 0 ]; then
      outcome='done'
    elif grep -qx running <<<"$all"; then
      continue  # if a host is lost, the others end within a minute
    elif grep -qxE '1|2|130' <<<"$all"; then
      outcome="failed $(grep -xE '1|2|130' <<<"$all" | head -n 1)"
    elif [ -z "$all" ]; then
      continue  # no ssh at the moment
    else
      outcome=lost
    fi
    return
  done
}

watch() {
  local again=0 outcome
  launch
  if $dry_run; then
    say 'then, every minute, until every worker has exit code 0 (and all of it again if the TPU or a worker is lost):'
    show "${tpu[@]}" describe "$name" "${where[@]}" --format 'value(state)'
    show "${tpu[@]}" ssh "$name" "${where[@]}" --worker all --command "$look"
    return
  fi
  while true; do
    await
    case "$outcome" in
      done | stopped)
        say "the run is $outcome"
        return
        ;;
      failed*) fail "the run ended with exit code ${outcome#failed }; see: $0 logs --name $name --zone $zone" ;;
    esac
    again=$((again + 1))
    [ "$again" -le "$restarts" ] || fail "gave up after $restarts restarts; raise --restarts, or see the logs"
    say "the TPU or a worker is lost; restart $again of at most $restarts"
    launch
  done
}

require_ready() {
  $dry_run || {
    local found
    found=$(state)
    [ "$found" = READY ] || fail "$name is $found, so $command is not possible; start a run with train or watch"
  }
}

case "$command" in
  train) launch ;;
  watch) watch ;;
  status)
    if $dry_run; then
      show "${tpu[@]}" describe "$name" "${where[@]}" --format 'value(state)'
      show "${tpu[@]}" ssh "$name" "${where[@]}" --worker all --command "$look"
    else
      found=$(state)
      say "$name is $found"
      [ "$found" != READY ] || runs | sort | uniq -c | sed -E 's/^ *([0-9]+) (.*)/\1 worker(s): \2/'
    fi
    ;;
  logs)
    require_ready
    attempt 'follow the log' "${tpu[@]}" ssh "$name" "${where[@]}" --worker "$worker" \
      --command 'tail -n 100 -F train.log'
    ;;
  attach)
    require_ready
    attempt 'attach' "${tpu[@]}" ssh "$name" "${where[@]}" --worker "$worker" --ssh-flag=-t \
      --command 'tmux attach -t mrmt3'
    ;;
  stop)
    require_ready
    on_all_workers 'stop the run' "$end"
    ;;
  delete) delete ;;
esac
