"""Loading of the bundled model: it is the default, and its description is printed."""

import json

import jax
import numpy as np
import pytest
import soundfile
from paths import FIXTURES

import mrmt3
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import packed
from mrmt3.cli.main import main
from mrmt3.config import ModelSpec
from mrmt3.dataset_builder.recipes import RECIPES
from mrmt3.errors import UserError
from mrmt3.hybrid import HybridConfig
from mrmt3.inference import loading
from mrmt3.spectrograms import SpectrogramConfig

WORKS = FIXTURES / 'box_works.json'  # of the data set that the bundled model was trained on
ABOUT = {'name': 'a small model', 'trained_on': 'trained on nothing', 'reaches': 'onset F1 0'}
SPEC = ModelSpec(
  HybridConfig(
    vocab_size=1536,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=1,
    memory_length=4,
    front_channels=(1, 1, 1, 1),
    num_candidates=8,
  ),
  SpectrogramConfig(hop_width=256, num_mel_bins=32),
  segment_frames=32,
  targets_length=16,
)


@pytest.fixture
def bundled(tmp_path, monkeypatch):
  """Make a model of random weights the bundled one."""
  monkeypatch.setattr(orbax_checkpoints, 'BUNDLED_FOLDER', tmp_path / 'weights' / 'framewise')
  monkeypatch.chdir(tmp_path)
  shapes = SPEC.parameter_shapes()
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
  packed.save(orbax_checkpoints.BUNDLED_FOLDER, params, SPEC, ABOUT)


@pytest.fixture
def song(tmp_path):
  """Return a second of noise."""
  soundfile.write(tmp_path / 'song.wav', np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
  return tmp_path / 'song.wav'


def test_it_is_the_default_and_its_description_is_printed(bundled, song, capfd):
  assert (
    orbax_checkpoints.find_checkpoint('framewise')
    == orbax_checkpoints.find_checkpoint('box')
    == loading.default_model()
    == orbax_checkpoints.BUNDLED_FOLDER
  )
  midi = str(song.with_suffix('.mid'))
  assert main(['transcribe', str(song), '-o', midi]) == 0
  (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith('model: ')]
  assert all(text in line for text in ABOUT.values())
  assert song.with_suffix('.mid').exists()
  assert main(['transcribe', str(song), '-o', midi, '--progress', 'json']) == 0
  lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
  assert lines[0]['model'].startswith(ABOUT['name'])
  assert main(['transcribe', str(song), '-o', midi, '--quiet']) == 0
  assert main(['transcribe', str(song), '-o', midi, '--checkpoint', 'box']) == 0
  assert ABOUT['name'] not in capfd.readouterr().err
  samples, rate = soundfile.read(song)
  assert mrmt3.load().transcribe(samples.astype(np.float32), rate).seconds == pytest.approx(1, abs=0.02)


def test_without_it_a_checkpoint_is_required(tmp_path, monkeypatch):
  monkeypatch.setattr(orbax_checkpoints, 'BUNDLED_FOLDER', tmp_path / 'nothing')
  assert loading.default_model() is None
  with pytest.raises(UserError, match='no checkpoint given'):
    loading.load()


def test_a_checkpoint_keeps_its_note_heads_when_it_is_packed(bundled, tmp_path):
  trained, _ = orbax_checkpoints.restore_target('framewise')
  assert 'note_reader' in trained
  assert main(['convert', str(orbax_checkpoints.BUNDLED_FOLDER), str(tmp_path / 'copy'), '--to', 'packed']) == 0
  assert set(orbax_checkpoints.restore_params(tmp_path / 'copy')[0]) == set(trained)


def test_the_demo_transcribes_held_out_pieces():
  works = json.loads(WORKS.read_text())
  assert set(RECIPES['held-out'].works['test']) <= set(works['test'])
  assert not set(works['test']) & {*works['train'], *works['validation']}
