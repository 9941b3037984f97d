"""Ctrl-C at any moment of a command: exit code 130, one line, and no process or temporary file left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mrmt3.notes import midi, note_array

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
# seconds; the first ones are within the start
TIMES = {
  'transcribe': (0.4, 2.0, 4.0),
  'evaluate': (0.4, 1.5, 3.0),
  'train': (0.4, 2.0, 4.8, 10.0),
  'dataset build': (0.4, 2.0, 6.0),
}


@pytest.fixture(scope='module')
def songs(tmp_path_factory):
  """A folder with enough MIDI files to score for a while, and a minute of noise."""
  import numpy as np
  import soundfile

  folder = tmp_path_factory.mktemp('songs')
  notes = note_array.as_notes([(i / 4, i / 4 + 0.2, 40 + i % 50, 90, 0, 0) for i in range(800)])
  midi.write_midi(notes, folder / '0.mid')
  for number in range(1, 200):
    os.link(folder / '0.mid', folder / f'{number}.mid')
  soundfile.write(folder / 'noise.wav', np.random.default_rng(0).normal(0, 0.1, 60 * 16000), 16000)
  return folder


def words_of(name, songs, data, out):
  return {
    'transcribe': ['transcribe', songs / 'noise.wav', '-o', out / 'noise.mid', '--plot'],
    'evaluate': ['evaluate', songs, songs, '--report', out / 'report'],
    'train': ['train', '--gin_file=runs/demo.gin', f'--gin.MODEL_DIR={out}/model', f'--gin.DATA_DIR={data}'],
    'dataset build': ['dataset', 'build', out / 'data', '--recipe', 'corpus', '--hours', '3', '--workers', '2'],
  }[name]


def processes_of(session):
  """Return the command lines of a session's processes that have not ended."""
  found = []
  for folder in Path('/proc').glob('[0-9]*'):
    try:
      state, *fields = (folder / 'stat').read_text().rpartition(')')[2].split()
      if int(fields[2]) == session and state not in 'ZX':
        found.append((folder / 'cmdline').read_text())
    except OSError:  # it has ended
      continue
  return found


def wait_for_the_end(session):
  """Wait for processes of a session that notice only after its leader's end that they are alone."""
  deadline = time.monotonic() + 5
  while found := processes_of(session):
    assert time.monotonic() < deadline, found
    time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize('to_group', [True, False], ids=['terminal', 'kill'])
@pytest.mark.parametrize(('name', 'seconds'), [(name, seconds) for name in TIMES for seconds in TIMES[name]])
def test_interrupt(songs, small_data, tmp_path, name, seconds, to_group):
  words = words_of(name, songs, small_data, tmp_path)
  (tmp_path / 'tmp').mkdir()
  process = subprocess.Popen(
    [sys.executable, '-m', 'mrmt3', *map(str, words)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    env={**os.environ, 'TMPDIR': str(tmp_path / 'tmp')},
  )
  time.sleep(seconds)
  (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
  begin = time.monotonic()
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130, errors
  assert time.monotonic() - begin < 15  # an import or a compilation under load
  assert 'Traceback' not in errors and 'Error' not in errors
  assert errors.splitlines()[-1].startswith('mrmt3: interrupted')
  wait_for_the_end(process.pid)
  assert not [path.name for path in (tmp_path / 'tmp').iterdir()]
  assert not [path.name for path in tmp_path.rglob('.*') if not path.name.endswith('.begun')]


SWALLOWED = """
import sys, time
from mrmt3.utils import interrupts
interrupts.install(grace_seconds=0.5)
with interrupts.working():
  for number in range(100):
    try:
      if not number:
        print('ready', flush=True)
      time.sleep(1)
    except KeyboardInterrupt:
      print('swallowed', flush=True)
"""


def started(script, tmp_path):
  process = subprocess.Popen(
    [sys.executable, '-c', script],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=tmp_path,
    start_new_session=True,
  )
  assert process.stdout.readline() == 'ready\n'
  return process


def test_a_swallowed_interrupt_ends_the_process_nevertheless(tmp_path):
  process = started(SWALLOWED, tmp_path)
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=30) == ('swallowed\n', 'mrmt3: interrupted\n')
  assert process.returncode == 130


def test_an_interrupt_during_an_import_ends_the_process_at_once(tmp_path):
  (tmp_path / 'swallower.py').write_text(
    'import time\nprint("ready", flush=True)\ntry:\n  time.sleep(60)\nexcept BaseException:\n  time.sleep(60)\n'
  )
  script = """
import sys
sys.path.insert(0, '')
from mrmt3.utils import files, interrupts
interrupts.install()
with interrupts.working(), files.atomic_path('song.mid') as temporary:
  temporary.write_text('half')
  import swallower
"""
  process = started(script, tmp_path)
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=4)[1] == 'mrmt3: interrupted\n'
  assert process.returncode == 130 and {path.name for path in tmp_path.iterdir()} <= {'swallower.py', '__pycache__'}


def test_a_second_interrupt_does_not_wait(tmp_path):
  process = started(SWALLOWED.replace('0.5', '60'), tmp_path)
  process.send_signal(signal.SIGINT)
  assert process.stdout.readline() == 'swallowed\n'
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=30)[1] == 'mrmt3: interrupted\n'
  assert process.returncode == 130


def test_many_interrupts_at_once(tmp_path):
  process = started(SWALLOWED.replace('0.5', '60'), tmp_path)
  deadline = time.monotonic() + 30
  while process.poll() is None:
    process.send_signal(signal.SIGINT)
    assert time.monotonic() < deadline
    time.sleep(0.002)
  assert process.communicate()[1] == 'mrmt3: interrupted\n' and process.returncode == 130


def test_an_interrupt_that_python_ignores_is_raised_again(tmp_path):
  script = """
import gc, time
from mrmt3.utils import interrupts
interrupts.install(grace_seconds=60)

def wait(phase, info):
  if phase == 'start':
    print('ready', flush=True)
    time.sleep(60)

gc.callbacks.append(wait)
try:
  with interrupts.working():
    gc.collect()
    time.sleep(60)
except KeyboardInterrupt:
  gc.callbacks.clear()
  print('cleaned up')
"""
  process = started(script, tmp_path)
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=30) == ('cleaned up\n', '')


def test_an_ignored_interrupt_stays_ignored(tmp_path):
  script = 'import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n' + SWALLOWED.replace('100', '2')
  process = started(script, tmp_path)
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=30) == ('', '') and process.returncode == 0


WORKERS = """
import sys
sys.path.insert(0, '')
from waits import wait
from mrmt3.utils import parallel
for _ in parallel.parallel(wait, [0, 60, 60, 60], 2):
  print('ready', flush=True)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
  (tmp_path / 'waits.py').write_text('import time\n\n\ndef wait(seconds):\n  time.sleep(seconds)\n')
  process = started(WORKERS, tmp_path)
  assert len(processes_of(process.pid)) >= 3
  process.kill()
  process.communicate()
  wait_for_the_end(process.pid)
