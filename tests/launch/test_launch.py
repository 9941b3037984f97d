"""launch_tpu.sh and launch_slurm.sh with fake gcloud and SLURM programs, which work on local folders."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest
from paths import ROOT

FLAGS = ['--gin_file=x.gin', '--gin.NAMES=["it\'s", "b c"]', '--gin.MODEL_DIR=bucket/$RUN']
COMMANDS = ['train', 'watch', 'status', 'logs', 'attach', 'stop', 'delete']

# A Google Cloud with one TPU of two workers, whose home folders are in $FAKE. $FAKE/events has its future events.
GCLOUD = """
import json, os, pathlib, subprocess, sys
fake, words = pathlib.Path(os.environ['FAKE']), sys.argv[1:]
with (fake / 'calls').open('a') as file:
  file.write(json.dumps(words) + '\\n')
verb, name, state = words[3], words[4], fake / 'state'
broken = fake / f'broken_{verb}'
if broken.exists():
  sys.exit(broken.read_text())
if verb == 'create':
  state.write_text('READY')
  for worker in '01':
    (fake / worker).mkdir()
elif not state.exists():
  missing = f"Resource 'projects/p/locations/z/nodes/{name}' was not found"
  sys.exit(f"ERROR: (gcloud.compute.tpus.tpu-vm.{verb}) NOT_FOUND: {missing}")
elif verb == 'describe':
  print(state.read_text())
elif verb == 'delete':
  state.unlink()
  subprocess.run(['rm', '-r', str(fake / '0'), str(fake / '1')], check=True)
elif state.read_text() != 'READY':
  sys.exit(f'ERROR: (gcloud.compute.tpus.tpu-vm.{verb}) the TPU is not ready')
else:
  which = words[words.index('--worker') + 1]
  for worker in ('01' if which == 'all' else which):
    home = fake / worker
    if verb == 'scp':
      subprocess.run(['cp', *words[4 : words.index(next(w for w in words if w.endswith(':')))], str(home)], check=True)
    else:
      command = words[words.index('--command') + 1]
      done = subprocess.run(['bash', '-c', command], cwd=home, env={**os.environ, 'HOME': str(home)})
      if done.returncode:
        sys.exit(f'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [ssh] exited with return code [{done.returncode}].')
"""
PROGRAMS = {
  'sudo': 'exit 0',
  # pip does nothing; uv makes an interpreter that writes its arguments and exits with the code in the folder.
  'python3': """
case "$*" in
  *'uv venv'*)
    mkdir -p venv/bin
    cp "$FAKE/python" venv/bin/python ;;
  *'uv pip install'*) test -e mrmt3/setup.py || { echo 'no mrmt3 there' >&2; exit 1; } ;;
esac""",
  'python': 'printf "%s\\n" "$@" > arguments; echo output; '
  'while [ -e "$FAKE/hold" ]; do /bin/sleep 0.02; done; exit "$(cat "$FAKE/code" 2>/dev/null || echo 0)"',
  'tmux': """
case "$1" in
  has-session) kill -0 "$(cat session 2>/dev/null)" 2>/dev/null ;;
  kill-session) kill "$(cat session 2>/dev/null)" 2>/dev/null; rm -f session ;;
  new-session) shift 4; "$@" >/dev/null 2>&1 & echo $! > session ;;
esac""",
  'pkill': 'rm -f "$FAKE/hold"',
  # A minute passes, and something happens.
  'sleep': """
/bin/sleep 0.1
event=$(head -n 1 "$FAKE/events" 2>/dev/null)
[ -z "$event" ] || { sed -i 1d "$FAKE/events"; cd "$FAKE" && eval "$event"; }""",
}


@pytest.fixture
def fake(tmp_path):
  folder = tmp_path / 'fake'
  programs = tmp_path / 'bin'
  folder.mkdir()
  programs.mkdir()
  (programs / 'gcloud.py').write_text(GCLOUD)
  scripts = {**PROGRAMS, 'gcloud': f'exec {sys.executable} {programs / "gcloud.py"} "$@"'}
  for name, body in scripts.items():
    path = folder / name if name == 'python' else programs / name
    path.write_text(f'#!/bin/bash\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return folder


def launch(fake, command, *options, flags=FLAGS, path=None):
  words = [
    str(ROOT / 'launch_tpu.sh'),
    command,
    '--name',
    'tpu',
    '--zone',
    'z',
    *options,
    *(['--', *flags] if flags else []),
  ]
  environment = {**os.environ, 'FAKE': str(fake), 'PATH': path or f'{fake.parent / "bin"}:{os.environ["PATH"]}'}
  return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=100)


def calls(fake, verb=None):
  path = fake / 'calls'
  lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
  return [line for line in lines if verb is None or line[3] == verb]


def error_of(result):
  """Return the only line on stderr of a failed run."""
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert line.startswith('launch_tpu.sh: error: ')
  return line.removeprefix('launch_tpu.sh: error: ')


def wait_until(happened):
  end = time.monotonic() + 20
  while not happened():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_creates_copies_and_starts_on_every_worker(fake):
  result = launch(fake, 'train', '--type', 'v5litepod-16', '--spot', '--project', 'mine')
  assert result.returncode == 0, result.stderr
  (made,) = calls(fake, 'create')
  assert made[4:] == [
    'tpu',
    '--zone',
    'z',
    '--project',
    'mine',
    '--accelerator-type',
    'v5litepod-16',
    '--version',
    'v2-alpha-tpuv5-lite',
    '--spot',
  ]
  assert all('--project' in call for call in calls(fake))
  tracked = subprocess.run(
    ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True
  ).stdout.splitlines()
  for worker in '01':
    wait_until((fake / worker / 'train.exit').exists)
    assert (fake / worker / 'arguments').read_text().splitlines() == ['-m', 'mrmt3.train', '--multiprocess_gpu', *FLAGS]
    assert (fake / worker / 'train.exit').read_text() == '0\n'
    assert (fake / worker / 'train.log').read_text() == 'output\n'
    found = {
      str(p.relative_to(fake / worker / 'mrmt3')) for p in (fake / worker / 'mrmt3').rglob('*') if not p.is_dir()
    }
    assert {'setup.py', 'mrmt3/train.py', 'gin/runs/train.gin'} <= found
    assert found <= set(tracked) | {'mrmt3/gin', 'mrmt3/tasks'}
  assert 'logs --name tpu' in result.stdout


def test_no_project_unless_given(fake):
  launch(fake, 'train')
  assert calls(fake) and not any('--project' in call for call in calls(fake))


def test_reuses_and_does_not_disturb(fake):
  (fake / 'hold').touch()
  assert launch(fake, 'train').returncode == 0
  again = launch(fake, 'train')
  assert again.returncode == 0 and 'running already' in again.stdout
  assert '2 worker(s): running' in launch(fake, 'status', flags=()).stdout
  assert launch(fake, 'stop', flags=()).returncode == 0
  wait_until(lambda: '2 worker(s): stopped' in launch(fake, 'status', flags=()).stdout)
  assert len(calls(fake, 'create')) == 1 and len(calls(fake, 'scp')) == 1
  assert launch(fake, 'delete', flags=()).returncode == 0
  assert 'ABSENT' in launch(fake, 'status', flags=()).stdout


def test_watch_starts_again_after_preemption_and_after_a_lost_host(fake):
  (fake / 'hold').touch()
  (fake / 'events').write_text(
    '\n'.join(
      [
        'echo PREEMPTED > state; echo 134 > code; rm hold',  # and when it is there again, a host is lost
        'echo 0 > code; touch hold',
        'rm hold',
      ]
    )
  )
  result = launch(fake, 'watch', '--spot')
  assert result.returncode == 0, result.stderr
  assert 'was preempted' in result.stdout and 'restart 2 of at most 20' in result.stdout
  assert result.stdout.rstrip().endswith('the run is done')
  assert len(calls(fake, 'delete')) == 1
  assert [call[-1] for call in calls(fake, 'create')] == ['--spot'] * 2 and len(calls(fake, 'scp')) == 3


def test_watch_ends_with_the_run(fake):
  (fake / 'code').write_text('2')
  error = error_of(launch(fake, 'watch'))
  assert 'exit code 2' in error and 'logs' in error
  (fake / 'hold').touch()
  (fake / 'events').write_text(': \ntouch 0/train.stop 1/train.stop; echo 143 > code; rm hold\n')
  stopped = launch(fake, 'watch')
  assert stopped.returncode == 0 and 'the run is stopped' in stopped.stdout
  (fake / 'code').write_text('137')
  assert 'gave up after 1 restarts' in error_of(launch(fake, 'watch', '--restarts', '1'))


CAPACITY = """ERROR: (gcloud.compute.tpus.tpu-vm.create) {
  "code": 8,
  "message": "There is no more capacity in the zone \\"z\\""
}
"""


@pytest.mark.parametrize(
  'command, broken, message, parts',
  [
    (
      'train',
      'describe',
      "ERROR: (x) PERMISSION_DENIED: no permission on 'locations/z'",
      ['cannot get the state of', 'PERMISSION'],
    ),
    ('train', 'create', CAPACITY, ['cannot create tpu', 'no more capacity']),
    ('train', 'scp', 'Using ssh batch size of 1\nscp: no space left', ['cannot copy', 'no space left']),
    (
      'train',
      'ssh',
      'pip: no such package\nERROR: (x) [ssh] exited with return code [1].',
      ['install mrmt3', 'no such package'],
    ),
    ('logs', 'ssh', '', ['cannot follow']),
    ('delete', 'delete', 'ERROR: (x) busy', ['cannot delete tpu', 'busy']),
  ],
)
def test_gcloud_errors_are_one_line(fake, command, broken, message, parts):
  if command != 'train':
    assert launch(fake, 'train').returncode == 0
  (fake / f'broken_{broken}').write_text(message)
  error = error_of(launch(fake, command, flags=FLAGS if command == 'train' else ()))
  assert [part for part in parts if part not in error] == []


def test_a_mistake_on_a_worker_is_one_line(fake):
  (fake.parent / 'bin' / 'python3').write_text('#!/bin/bash\necho "no module named pip" >&2\nexit 1\n')
  error = error_of(launch(fake, 'train'))
  assert 'install mrmt3' in error and 'no module named pip' in error


@pytest.mark.parametrize(
  'words, message',
  [
    ([], 'no command'),
    (['fly'], 'fly'),
    (['train', '--zone', 'z'], '--name'),
    (['train', '--name', 'a'], '--zone'),
    (['train', '--name'], '--name needs a value'),
    (['train', '--name', '--zone', 'z'], '--name needs a value'),
    (['train', '--name', 'A b', '--zone', 'z'], 'lower-case'),
    (['train', '--name', 'a', '--zone', 'z'], 'gin files'),
    (['logs', '--name', 'a', '--zone', 'z', '--worker', 'x'], '--worker x'),
    (['stop', '--name', 'a', '--zone', 'z', '--', 'x'], 'everything after --'),
    (['stop', '--name', 'a', '--zone', 'z', '--sopt'], '--sopt'),
  ],
)
def test_mistakes_are_one_line(words, message):
  result = subprocess.run([ROOT / 'launch_tpu.sh', *words], capture_output=True, text=True, check=False)
  assert message in error_of(result)


def test_without_gcloud(fake):
  programs = fake.parent / 'few'
  programs.mkdir()
  for name in ('bash', 'env', 'dirname'):
    (programs / name).symlink_to(shutil.which(name))
  assert 'gcloud is not installed' in error_of(launch(fake, 'train', path=str(programs)))


@pytest.mark.parametrize('command', COMMANDS)
def test_dry_run_only_prints(fake, command):
  result = launch(
    fake,
    command,
    '--dry_run',
    '--bucket',
    'b',
    '--project',
    'mine',
    flags=FLAGS if command in ('train', 'watch') else (),
  )
  assert result.returncode == 0 and not calls(fake)
  printed = [line for line in result.stdout.splitlines() if line.startswith('+ gcloud ')]
  assert printed and all('--project mine' in line for line in printed)
  if command in ('train', 'watch'):
    for verb in ('describe', 'create', 'scp', 'ssh'):
      assert any(f' {verb} ' in line for line in printed)
    assert 'gcsfuse' in result.stdout and "'--gin.MODEL_DIR=bucket/$RUN'" in result.stdout


@pytest.mark.parametrize('script', ['launch_tpu.sh', 'docs/launch_slurm.sh'])
def test_shellcheck_has_nothing_to_say(script):
  if shutil.which('shellcheck') is None:
    pytest.skip('shellcheck is not installed')
  result = subprocess.run(['shellcheck', ROOT / script], capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stdout


SLURM = {
  'srun': """
while [ "${1#--}" != "$1" ]; do shift; done
for SLURM_PROCID in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
  SLURM_NTASKS=$SLURM_JOB_NUM_NODES SLURM_PROCID=$SLURM_PROCID "$@" || code=$?
done
exit ${code:-0}""",
  'scontrol': 'case "$1" in show) printf "n%s\\n" 1 2 ;; *) echo "$@" > requeued ;; esac',
  'python': 'echo "$@" >> started; exit "$(cat code 2>/dev/null || echo 0)"',
}


@pytest.mark.parametrize(
  'nodes, code, message', [(1, 0, 'done'), (2, 0, 'done'), (2, 2, 'exit code 2'), (2, 143, 'queue')]
)
def test_slurm(tmp_path, nodes, code, message):
  for name, body in SLURM.items():
    (tmp_path / name).write_text(f'#!/bin/bash\n{body}\n')
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'code').write_text(str(code))
  environment = {
    **os.environ,
    'PATH': f'{tmp_path}:{os.environ["PATH"]}',
    'SLURM_JOB_ID': '7',
    'SLURM_JOB_NUM_NODES': str(nodes),
    'SLURM_JOB_NODELIST': 'n[1-2]',
  }
  script = ROOT / 'docs' / 'launch_slurm.sh'
  result = subprocess.run(
    [script, '--gin.A=b c'], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert result.returncode == (2 if code == 2 else 0)
  assert message in result.stdout + result.stderr
  more = '' if nodes == 1 else ' --multiprocess_gpu --coordinator_address=n1:20007 --process_count=2 --process_index={}'
  started = [f'-m mrmt3.train --gin.A=b c{more.format(number)}' for number in range(nodes)]
  assert (tmp_path / 'started').read_text().splitlines() == started
  assert (tmp_path / 'requeued').exists() == (code == 143)


def test_slurm_outside_of_slurm():
  environment = {name: value for name, value in os.environ.items() if not name.startswith('SLURM')}
  result = subprocess.run(
    [ROOT / 'docs' / 'launch_slurm.sh'], env=environment, capture_output=True, text=True, check=False
  )
  assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and 'sbatch' in result.stderr
