"""The model that comes with the package."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mrmt3
from mrmt3 import checkpoints, loading, packed_checkpoints
from mrmt3.cli.main import main
from mrmt3.dataset_builder.recipes import RECIPES

WORKS = Path(__file__).parent.parent / 'docs' / 'model-card' / 'works.json'


@pytest.fixture
def song(tmp_path):
  """Returns a second of a note that decays."""
  time = np.arange(16000) / 16000
  wave = sum(np.sin(2 * np.pi * 440 * k * time) / k for k in range(1, 6)) * np.exp(-3 * time)
  soundfile.write(tmp_path / 'song.wav', 0.2 * wave, 16000)
  return tmp_path / 'song.wav'


def test_it_is_small_and_has_a_memory():
  assert sum(file.stat().st_size for file in checkpoints.BOX_FOLDER.iterdir()) <= 10e6
  assert checkpoints.find_checkpoint('box') == loading.default_model() == checkpoints.BOX_FOLDER
  assert checkpoints.read_spec('box').network.memory_length == 64


def test_it_is_taken_where_no_checkpoint_is_named_and_says_what_it_is(song, capsys):
  about = packed_checkpoints.read_about(checkpoints.BOX_FOLDER)
  assert main(['transcribe', str(song), '-o', str(song.with_suffix('.mid'))]) == 0
  (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('model: ')]
  assert all(about[part] in line for part in ('name', 'trained_on', 'reaches'))
  assert song.with_suffix('.mid').exists()
  assert main(['transcribe', str(song), '-o', str(song.with_suffix('.mid')), '--progress', 'json']) == 0
  first, *_ = capsys.readouterr().err.splitlines()
  assert json.loads(first)['model'].startswith(about['name'])
  assert main(['transcribe', str(song), '-o', str(song.with_suffix('.mid')), '--quiet']) == 0
  assert 'model' not in capsys.readouterr().err


def test_the_api_loads_it_too(song):
  samples, rate = soundfile.read(song)
  notes = mrmt3.load().transcribe(samples.astype(np.float32), rate).notes
  assert all(0 <= note['onset'] < 1.1 for note in notes)


def test_what_the_demo_transcribes_was_not_trained_on():
  works = json.loads(WORKS.read_text())
  assert set(RECIPES['held-out'].works['test']) <= set(works['test'])
  assert not set(works['test']) & {*works['train'], *works['validation']}
