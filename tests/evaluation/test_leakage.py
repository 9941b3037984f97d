"""Leakage, confusion and breakdowns: cases worked out by hand, invariants, and errors for invalid input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from note_tables import note, note_tables, table

from mrmt3.evaluation import breakdowns, confusion, leakage, metric_registry, note_scores
from mrmt3.evaluation.summary import Summary, score_piece
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.note_array import empty_notes


def cells(matrix):
  """Return {(reference class, estimated class): notes} of a confusion matrix."""
  names = (*confusion.CLASS_NAMES, 'none')
  return {(names[i], names[j]): int(matrix[i, j]) for i, j in np.argwhere(matrix)}


def test_log_ratio_by_hand():
  one, two, four = (
    table(*(note(i, 60, program) for i, program in enumerate(p))) for p in ([0], [0, 40], [0, 40, 56, 73])
  )
  assert leakage.log_leakage_ratio(two, four) == leakage.log_leakage_ratio(two, one) == pytest.approx(math.log(2))
  assert leakage.log_leakage_ratio(two, two) == 0
  # None counts as half: worse than one of four, and finite.
  assert (
    leakage.log_leakage_ratio(four, empty_notes())
    == leakage.log_leakage_ratio(empty_notes(), four)
    == pytest.approx(math.log(8))
  )
  assert leakage.log_leakage_ratio(empty_notes(), empty_notes()) == 0
  with pytest.raises(ValueError, match='counting must be one of'):
    leakage.log_leakage_ratio(one, two, counting='all')


def test_log_ratio_sees_errors_that_cancel_out_in_the_mean():
  reference = table(note(0, 60, 0), note(1, 60, 40))
  many, few = table(note(0, 60, 0), note(1, 60, 40), note(2, 60, 56)), table(note(0, 60, 0))
  summary = Summary([score_piece('many', reference, many), score_piece('few', reference, few)])
  assert summary.mean['leakage_ratio'] == 1
  assert summary.mean['log_leakage_ratio'] == pytest.approx((math.log(1.5) + math.log(2)) / 2)


def test_published_counting_merges_piano_and_drums():
  reference, estimate = table(note(0, 60, 0), note(0, 38, is_drum=1)), table(note(0, 60, 0))
  assert leakage.log_leakage_ratio(reference, estimate, counting='published') == 0
  assert leakage.log_leakage_ratio(reference, estimate) == pytest.approx(math.log(2))


def test_published_scores_are_counted_in_the_published_reference():
  raw, mapped, estimate = (
    table(note(0, 60, 30), note(1, 60, 29)),
    table(note(0, 60, 29), note(1, 60, 29)),
    table(note(0, 60, 29)),
  )
  scores = metric_registry.evaluate_piece(mapped, estimate, published_reference=raw)
  assert (scores['leakage_ratio'], scores['published_leakage_ratio']) == (1, 0.5) and scores[
    'onset_program_f1_full'
  ] == 2 / 3
  assert metric_registry.evaluate_piece(mapped, estimate)['published_leakage_ratio'] == 1


def test_a_doubled_note_is_no_note_to_be_moved():
  reference, estimate = table(note(0, 60, 40)), table(note(0, 60, 40), note(0, 60, 41))
  assert leakage.leaked_note_ratio(reference, estimate) == 0 and leakage.leakage_ratio(reference, estimate) == 2


def test_confusion_by_hand():
  reference = table(note(0, 60, 0), note(0, 60, 41), note(1, 62, 41), note(2, 64, 48), note(3, 36, is_drum=1))
  # The unison and the drum are correct; a viola note is confused with piano; strings are missed; a flute is added.
  estimate = table(note(0, 60, 41), note(0, 60, 0), note(1, 62, 1), note(5, 64, 73), note(3, 36, is_drum=1))
  assert cells(confusion.instrument_confusion(reference, estimate)) == {
    ('Acoustic Piano', 'Acoustic Piano'): 1,
    ('Viola', 'Viola'): 1,
    ('Viola', 'Acoustic Piano'): 1,
    ('String Ensemble', 'none'): 1,
    ('none', 'Pipe'): 1,
    ('Drums', 'Drums'): 1,
  }
  matrix = confusion.instrument_confusion(reference, estimate)
  scores = confusion.class_scores(matrix)
  assert list(scores) == ['Acoustic Piano', 'Viola', 'String Ensemble', 'Pipe', 'Drums']
  assert scores['Acoustic Piano'] == pytest.approx((1 / 2, 1, 2 / 3)) and scores['Viola'] == pytest.approx(
    (1, 1 / 2, 2 / 3)
  )
  assert scores['String Ensemble'] == scores['Pipe'] == (0, 0, 0) and scores['Drums'] == (1, 1, 1)
  assert confusion.macro_f1(matrix) == pytest.approx((2 / 3 + 2 / 3 + 0 + 1) / 4)  # of the four that play
  assert confusion.most_confused(matrix) == [('Viola', 'Acoustic Piano', 1, 0.5)]


@settings(max_examples=40, deadline=None)
@given(note_tables(), note_tables())
def test_confusion_has_every_note_once_and_agrees_with_the_other_scores(reference, estimate):
  matrix = confusion.instrument_confusion(reference, estimate)
  for notes, axis in ((reference, 1), (estimate, 0)):
    sums = dict(zip(confusion.CLASSES, matrix.sum(axis=axis), strict=False))
    mapped = map_to_slakh_classes(notes)
    for instrument in confusion.CLASSES:
      own = (mapped['program'] == instrument[0]) & (mapped['is_drum'] == instrument[1])
      assert sums[instrument] == own.sum()
  both = matrix[:-1, :-1]
  mapped = map_to_slakh_classes(reference), map_to_slakh_classes(estimate)
  if len(reference) and len(estimate):
    full = note_scores.program_scores(*mapped, 'full')
    assert np.trace(both) == pytest.approx(full.recall * len(reference))
    assert (both.sum() - np.trace(both)) / len(estimate) == pytest.approx(
      note_scores.leaked_note_ratio(reference, estimate)
    )
  assert matrix[-1, -1] == 0


def test_polyphony_by_hand():
  # A long note under a chord of two that is played loosely, then a note alone; drums do not count.
  reference = table(
    note(0, 40, offset=4),
    note(1, 60, offset=2),
    note(1.03, 64, offset=2),
    note(6, 62, offset=7),
    note(6, 38, is_drum=1),
  )
  np.testing.assert_array_equal(breakdowns.polyphony(reference, np.array([0, 1, 1.03, 6, 9])), [1, 3, 3, 1, 1])
  estimate = table(
    note(0, 40, offset=4), note(1, 60, offset=2), note(1.5, 65, offset=2), note(6.2, 70), note(1, 38, is_drum=1)
  )
  counts = breakdowns.polyphony_counts(reference, estimate)
  assert counts.tolist()[:4] == [[1, 2, 2], [0, 0, 0], [1, 2, 2], [0, 0, 0]] and counts[4:].sum() == 0
  assert breakdowns.level_scores(counts) == {'1': (0.5, 0.5, 0.5), '3': (0.5, 0.5, 0.5)}
  assert breakdowns.level_names(breakdowns.POLYPHONY_LEVELS) == ['1', '2', '3', '4-5', '6-8', '9-12', '13+']


@settings(max_examples=40, deadline=None)
@given(note_tables(), note_tables())
def test_polyphony_counts_add_up_to_the_onset_scores(reference, estimate):
  matches, in_reference, in_estimate = breakdowns.polyphony_counts(reference, estimate).sum(axis=0)
  scores = note_scores.onset_scores(reference, estimate, drums=False)
  assert in_reference == (~reference['is_drum']).sum() and in_estimate == (~estimate['is_drum']).sum()
  assert matches == pytest.approx(scores.recall * in_reference)


def test_means_by_number_of_instruments():
  pieces = [(1, {'f': 1.0}), (4, {'f': 0.2}), (3, {'f': 0.6}), (30, {'f': 0.5})]
  assert breakdowns.means_by_level(pieces, ['f']) == {
    '1': {'pieces': 1, 'f': 1.0},
    '3-4': {'pieces': 2, 'f': pytest.approx(0.4)},
    '10+': {'pieces': 1, 'f': 0.5},
  }
