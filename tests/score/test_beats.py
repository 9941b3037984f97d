"""Beats, bars and key of synthetic pieces; benchmarks/score measures them on scores."""

import mir_eval
import numpy as np
import pytest

from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes, empty_notes
from mrmt3.score.analysis import analyze
from mrmt3.score.beats import find_beats, regularity
from mrmt3.score.key import find_key

CHORDS = ((45, 57, 60, 64), (50, 57, 62, 65), (52, 56, 59, 64), (45, 57, 60, 64))  # A minor: i iv V i


def waltz(bars=20, beat=0.55, rubato=0.06, start=1.0, jitter=0.008):
  """Return (notes, beats, downbeats) of bass and chords in A minor, in three, with a melody."""
  rng = np.random.default_rng(3)
  count = 3 * bars
  times = start + np.r_[0, np.cumsum(beat * (1 + rubato * np.sin(np.arange(count) / 6)))]
  rows = []
  for index in range(count):
    bass, *chord = CHORDS[index // 3 % 4]
    begin, end = times[index], times[index + 1] - 0.03
    if index % 3 == 0:
      rows.append((begin, end, bass - 12, 80, 0, False))
      rows.append((begin, times[index + 1] + 0.4, chord[index // 3 % 3] + 12, 80, 0, False))
    else:
      rows += [(begin, end, pitch, 80, 0, False) for pitch in chord]
    if index % 3 == 2:
      rows.append(((begin + times[index + 1]) / 2, end, chord[0] + 14, 80, 0, False))
  notes = as_notes(rows)
  notes['onset'] += rng.normal(0, jitter, len(notes))
  return notes[np.argsort(notes['onset'])], times[:-1], times[:-1:3]


def test_a_waltz_with_rubato():
  notes, beats, downbeats = waltz()
  found = analyze(notes)
  assert (found.beats.numerator, found.beats.denominator) == (3, 4)
  assert mir_eval.beat.f_measure(beats, found.beats.times) > 0.95
  assert mir_eval.beat.f_measure(downbeats, found.beats.downbeats) > 0.95
  assert str(found.key) == 'A minor'
  assert found.tempo.beats_per_minute == pytest.approx(60 / 0.55, rel=0.1)
  assert found.summary() == f'3/4, {found.tempo.beats_per_minute:.0f} bpm, A minor'
  record = found.record()
  assert record['time_signature'] == '3/4' and len(record['beats']) == len(found.beats.times)


def test_the_result_does_not_depend_on_where_the_music_starts():
  notes, _, _ = waltz()
  later = notes.copy()
  later['onset'] += 7.0
  later['offset'] += 7.0
  np.testing.assert_allclose(find_beats(later).times, find_beats(notes).times + 7.0, atol=1e-6)


def test_no_pulse_is_invented():
  rng = np.random.default_rng(0)
  rows = [
    (onset, onset + 0.5, 60 + pitch, 80, 0, False)
    for onset, pitch in zip(rng.uniform(0, 30, 90), rng.integers(0, 24, 90), strict=True)
  ]
  found = analyze(as_notes(sorted(rows)))
  assert found.tempo is None and not len(found.beats.times)
  assert 'no steady pulse' in found.summary()
  assert set(found.record()) <= {'confidence', 'key', 'key_confidence'}


@pytest.mark.parametrize('count', [0, 1, 7])
def test_few_notes_have_no_pulse(count):
  notes, _, _ = waltz()
  assert analyze(notes[:count]).tempo is None
  assert analyze(notes[:count], '100').beats.times.size == 0 or count


def test_a_given_tempo_is_constant():
  notes, beats, _ = waltz(rubato=0.0)
  found = analyze(notes, str(60 / 0.55))
  np.testing.assert_allclose(np.diff(found.beats.times), 0.55, atol=1e-3)
  assert mir_eval.beat.f_measure(beats, found.beats.times) > 0.95
  assert (found.beats.numerator, found.beats.denominator) == (3, 4)


@pytest.mark.parametrize('tempo', ['fast', '0', '-3', '10000', 'nan', ''])
def test_tempos_that_do_not_exist(tempo):
  with pytest.raises(UserError, match='not a tempo'):
    analyze(waltz()[0], tempo)


def test_regularity_of_onsets():
  beats = np.arange(20) * 0.5
  grid = as_notes([(time, time + 0.1, 60, 80, 0, False) for time in np.arange(0, 9, 0.125)])
  assert regularity(grid, beats) > 0.95
  rng = np.random.default_rng(0)
  free = as_notes([(time, time + 0.1, 60, 80, 0, False) for time in rng.uniform(0, 9, 72)])
  assert regularity(free, beats) < 0.4


def test_keys():
  assert find_key(empty_notes()) is None
  drums = as_notes([(0.0, 0.1, 36, 80, 0, True)])
  assert find_key(drums) is None
  for shift in range(12):
    notes, _, _ = waltz()
    notes['pitch'] += shift
    found = find_key(notes)
    assert (found.tonic, found.is_minor) == ((9 + shift) % 12, True)
