"""The bundled model: it matches its gin file, is small, describes itself, and detects notes."""

import numpy as np
import pytest

import mrmt3
from mrmt3.audio import sonify
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints import packed
from mrmt3.evaluation import note_scores
from mrmt3.inference import loading
from mrmt3.inspection import task_reader
from mrmt3.notes.note_array import as_notes

MEGABYTES = 10


def test_it_matches_the_gin_file():
  assert orbax_checkpoints.read_spec('framewise') == task_reader._from_gin('', ['models/framewise.gin'], [], '').spec


def test_it_is_small_and_describes_itself():
  folder = orbax_checkpoints.BUNDLED_FOLDER
  assert sum(file.stat().st_size for file in folder.iterdir()) < MEGABYTES * 1e6
  assert {'name', 'trained_on', 'reaches'} <= packed.read_about(folder).keys()
  assert len(loading.introduce(folder)) < 300


def test_it_detects_a_tune_and_its_bass():
  """Two instruments, played by pretty_midi's soundfont, with which it was trained."""
  tune = [
    (0.5 * k, 0.5 * k + 0.45, pitch, 100, 0, False)
    for k, pitch in enumerate([60, 62, 64, 65, 67, 69, 71, 72, 71, 67, 64, 60])
  ]
  bass = [(1.0 * k, 1.0 * k + 0.9, pitch, 100, 33, False) for k, pitch in enumerate([36, 41, 43, 36, 43, 36])]
  reference = as_notes(tune + bass)
  found = mrmt3.load().transcribe(sonify.play_notes(reference, 6.5), 16000).notes
  assert note_scores.onset_scores(reference, found).f1 > 0.75
  assert note_scores.program_scores(reference, found).f1 > 0.5


@pytest.mark.parametrize('sound', ['silence', 'noise'])
def test_it_detects_almost_nothing_without_music(sound):
  level = {'silence': 0.0, 'noise': 1e-3}[sound]
  samples = np.random.default_rng(0).normal(0, level, 64000).astype(np.float32)
  assert len(mrmt3.load().transcribe(samples, 16000).notes) <= 4
