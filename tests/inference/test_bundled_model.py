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
  assert len(mrmt3.load().transcribe(samples, 16000).notes) <= 8  # of 4 s; quiet noise is amplified first


@pytest.fixture(scope='module')
def song():
  """Return notes that begin with the song, and at and across 1.5 s and 2 s, where segments end, and their sound."""
  notes = as_notes(
    [
      (0.0, 1.2, 60, 100, 0, False),
      (0.0, 1.2, 65, 100, 0, False),
      (1.3, 2.4, 70, 100, 0, False),
      (1.5, 2.8, 75, 100, 0, False),
      (2.0, 3.4, 58, 100, 0, False),
      (2.9, 3.9, 63, 100, 0, False),
    ]
  )
  return notes, np.asarray(sonify.play_notes(notes, 5.0), np.float32)


@pytest.mark.parametrize('silence', [0.4, 0.7])
def test_it_detects_what_begins_or_ends_at_borders(song, silence):
  """Notes are the same where the segments' borders lie elsewhere."""
  reference, samples = song
  found = mrmt3.load().transcribe(samples, 16000)
  later = np.concatenate([np.zeros(int(16000 * silence), np.float32), samples])
  moved = mrmt3.load().transcribe(later, 16000).notes
  assert note_scores.onset_scores(reference, found.notes).f1 == 1.0
  assert not found.is_silent and found.seconds == 5.0
  assert moved['pitch'].tolist() == found.notes['pitch'].tolist()
  for time in ('onset', 'offset'):
    np.testing.assert_allclose(moved[time] - silence, found.notes[time], atol=0.05)


def test_quiet_recordings_are_transcribed_too(song):
  reference, samples = song
  quiet = mrmt3.load().transcribe(samples * np.float32(10 ** (-36 / 20)), 16000)
  assert note_scores.onset_scores(reference, quiet.notes).recall == 1.0
  assert mrmt3.load().transcribe(samples * np.float32(1e-4), 16000).is_silent


def test_notes_go_to_the_given_instruments(song):
  reference, samples = song
  model = mrmt3.load()
  everything, flute = model.transcribe(samples, 16000), model.transcribe(samples, 16000, instruments='flute')
  assert set(flute.notes['program'].tolist()) == {73}
  scores = [note_scores.onset_scores(reference, found.notes).f1 for found in (everything, flute)]
  assert scores[1] >= scores[0] > 0.9
  drums = model.transcribe(samples, 16000, instruments='drums')
  assert drums.notes['is_drum'].all() and drums.left_out >= len(reference)


@pytest.mark.parametrize('missing', [1, 700, 9000])
def test_no_note_begins_after_the_audio_breaks_off(missing):
  model = mrmt3.load()
  held = as_notes([(0.25, 4.0, pitch, 120, 19, False) for pitch in (60, 64, 67)])  # an organ that breaks off
  samples = sonify.play_notes(held, 4.0)[: 32000 - missing]
  found = model.transcribe(samples, 16000).notes
  assert len(found) and found['onset'].max() < len(samples) / 16000
  streamed = list(model.stream(np.array_split(samples, 7), 16000))
  assert sorted(note.onset for note in streamed) == sorted(found['onset'])
