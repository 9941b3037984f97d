"""Commands that are killed at any moment and run again, or that run twice at once: the files are those of one run."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from evaluate_command import piece

from mrmt3.audio.files import write_audio
from mrmt3.checkpoints.orbax import BUNDLED_FOLDER
from mrmt3.notes.midi import write_midi

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def songs(tmp_path_factory):
  """A folder with six references and their audio, which is a different noise each."""
  folder = tmp_path_factory.mktemp('songs')
  for number in range(6):
    write_midi(piece(), folder / f'{number}.mid')
    samples = np.random.default_rng(number).normal(0, 0.1, 4 * 16000).astype(np.float32)
    write_audio(folder / f'{number}.wav', samples, 16000)
  return folder


def start(*words):
  return subprocess.Popen(
    [sys.executable, '-m', 'mrmt3', *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
  )


def test_evaluate_killed_at_any_moment(songs, tmp_path):
  words = ['evaluate', songs, '--checkpoint', BUNDLED_FOLDER, '--batch-size', 1]
  whole = start(*words, '-o', tmp_path / 'whole', '--json', tmp_path / 'whole.json')
  begin = time.monotonic()
  assert whole.wait() == 0, whole.stderr.read()
  seconds = time.monotonic() - begin
  for share in (0.4, 0.6, 0.8, 0.9):
    process = start(*words, '-o', tmp_path / 'part', '--json', tmp_path / 'part.json')
    time.sleep(share * seconds)
    process.kill()
    process.communicate()
  process = start(*words, '-o', tmp_path / 'part', '--json', tmp_path / 'part.json')
  assert process.wait() == 0, process.stderr.read()
  assert json.loads((tmp_path / 'part.json').read_text()) == json.loads((tmp_path / 'whole.json').read_text())
  assert sorted(path.name for path in (tmp_path / 'part').iterdir()) == sorted(
    path.name for path in (tmp_path / 'whole').iterdir()
  )


@pytest.mark.parametrize('resume', [False, True])
def test_two_transcriptions_to_one_output(songs, tmp_path, resume):
  words = ['transcribe', songs / '0.wav', '--json', *(['--resume'] if resume else [])]
  assert start(*words, '-o', tmp_path / 'one' / 'x.mid').wait() == 0
  both = [start(*words, '-o', tmp_path / 'two' / 'x.mid') for _ in range(2)]
  errors = [process.communicate()[1] for process in both]
  codes = sorted(process.returncode for process in both)
  assert codes == [0, 0] or (resume and codes == [0, 2] and 'another run is at work' in ''.join(errors))
  assert sorted(path.name for path in (tmp_path / 'two').iterdir()) == ['x.json', 'x.mid']
  for name in ('x.json', 'x.mid'):
    assert (tmp_path / 'two' / name).read_bytes() == (tmp_path / 'one' / name).read_bytes()
