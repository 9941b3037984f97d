"""Leakage, confusion, breakdowns and statistics: cases worked out by hand, invariants, and errors for invalid input."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from note_tables import note, note_tables, table

from mrmt3.evaluation import breakdowns, confusion, leakage, metric_registry, note_scores, statistics
from mrmt3.evaluation.summary import PieceResult, Summary, compare, score_piece
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
  summary = summary_of({'many': (reference, many), 'few': (reference, few)})
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


def test_interval_of_a_normal_sample_is_that_of_theory():
  values = np.random.default_rng(1).normal(0.5, 0.1, 400)
  low, high = statistics.bootstrap_interval(values)
  half = 1.96 * values.std(ddof=1) / 20
  assert low == pytest.approx(values.mean() - half, abs=0.0015) and high == pytest.approx(
    values.mean() + half, abs=0.0015
  )
  assert statistics.bootstrap_interval(values) == (low, high) != statistics.bootstrap_interval(values, seed=1)
  narrow = statistics.bootstrap_interval(values, confidence=0.5)
  assert low < narrow.low < narrow.high < high


def test_intervals_of_few_and_of_wrong_values():
  assert statistics.bootstrap_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)
  assert np.isnan(statistics.bootstrap_interval([0.3])).all()
  for values in ([], [0.1, float('nan')], [[0.1], [0.2]]):
    with pytest.raises(ValueError, match='values must be a list of finite numbers'):
      statistics.bootstrap_interval(values)
  with pytest.raises(ValueError, match='confidence is 1'):
    statistics.bootstrap_interval([1, 2], confidence=1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6))
def test_paired_test_is_exact_for_few_pieces(differences):
  second = np.array(differences, float)
  observed = abs(second.sum())
  choices = [abs(np.dot(signs, second)) >= observed - 1e-9 for signs in itertools.product((-1, 1), repeat=len(second))]
  result = statistics.paired_test(np.zeros(len(second)), second)
  assert result.p_value == pytest.approx(np.mean(choices))
  assert (result.better, result.worse) == ((second > 0).sum(), (second < 0).sum())


def test_paired_test_of_many_pieces():
  rng = np.random.default_rng(0)
  first = rng.uniform(0.3, 0.8, 150)
  same = statistics.paired_test(first, first + rng.normal(0, 0.02, 150))
  better = statistics.paired_test(first, first + rng.normal(0.01, 0.02, 150))
  assert same.p_value > 0.05 and same.low < 0 < same.high
  assert better.p_value < 0.001 and 0 < better.low < better.difference < better.high
  assert statistics.paired_test(first, first).p_value == 1
  # Chance is calibrated: without a difference, p is uniform.
  p = [statistics.paired_test(np.zeros(20), rng.normal(size=20), resamples=500).p_value for _ in range(120)]
  assert 0.4 < np.mean(p) < 0.6 and np.mean(np.array(p) < 0.1) < 0.2
  with pytest.raises(ValueError, match='first has 2 pieces, second 3'):
    statistics.paired_test([1, 2], [1, 2, 3])
  with pytest.raises(ValueError, match='resamples is 1'):
    statistics.paired_test([1, 2], [1, 2], resamples=1)


def test_p_is_never_0():
  apart = np.zeros(200), np.linspace(0.5, 1, 200)
  assert (
    statistics.paired_test(*apart).p_value == 1 / 10000
    and statistics.paired_test(*apart, resamples=50).p_value == 1 / 50
  )
  assert (
    statistics.paired_test(np.zeros(14), np.ones(14)).p_value == 2 / 2**14
  )  # all signs as they are, and all the other way
  assert statistics.paired_test([0.1, 0.2], [0.1, 0.5]).p_value == 1  # one piece differs


def test_resampling_depends_on_the_seed_alone(monkeypatch):
  first, second = np.random.default_rng(2).uniform(size=(2, 40))
  intervals = [statistics.bootstrap_interval(first) for _ in range(2)]
  tests = [statistics.paired_test(first, second) for _ in range(2)]
  monkeypatch.setattr(statistics, '_AT_ONCE', 4000)  # 100 resamples at once
  intervals.append(statistics.bootstrap_interval(first))
  tests.append(statistics.paired_test(first, second))
  assert len(set(intervals)) == len(set(tests)) == 1
  assert statistics.paired_test(first, second, seed=1).p_value != tests[0].p_value
  # For a sum of 40 values the normal approximation is close.
  differences = second - first
  z = abs(differences.sum()) / np.sqrt((differences**2).sum())
  assert tests[0].p_value == pytest.approx(math.erfc(z / np.sqrt(2)), abs=0.02)


def summary_of(pairs):
  return Summary([score_piece(name, *pair) for name, pair in pairs.items()])


def test_summary():
  notes = table(note(0, 60, 0), note(1, 62, 40), note(2, 64, 40), note(2, 38, is_drum=1))
  leaked = notes.copy()
  leaked['program'][1] = 0
  summary = summary_of({'good': (notes, notes), 'leaked': (notes, leaked), 'failed': (notes, None)})
  assert summary.failed == {'failed': 'there is no transcription of it'}
  expected = [metric_registry.evaluate_piece(notes, estimate) for estimate in (notes, leaked, empty_notes())]
  assert summary.mean == pytest.approx({name: np.mean([scores[name] for scores in expected]) for name in expected[0]})
  assert [piece.name for piece in summary.worst(most=2)] == ['failed', 'leaked']
  scalars = summary.scalars()
  assert scalars['class_f1/Violin'] == pytest.approx(2 * 3 / (6 + 3)) and scalars['failed_pieces'] == 1
  assert scalars['onset_f1_by_polyphony/1'] == pytest.approx(2 * 6 / (9 + 6))
  assert scalars['leakage_ratio_by_instruments/3-4'] == pytest.approx(2 / 3)
  assert summary.as_json()['most_confused'] == [('Violin', 'Acoustic Piano', 1, 1 / 6)]
  assert compare(summary, summary, ['onset_f1'])['onset_f1'].p_value == 1
  with pytest.raises(ValueError, match='same pieces'):
    compare(summary, Summary(summary.pieces[:2]), ['onset_f1'])
  with pytest.raises(ValueError, match='no pieces'):
    Summary([])


@settings(max_examples=20, deadline=None)
@given(note_tables(), note_tables())
def test_a_line_of_json_holds_a_result_exactly(reference, estimate):
  result = score_piece('a/b', reference, estimate)
  read = PieceResult.from_dict(json.loads(json.dumps(result.to_dict())))
  assert read.scores == result.scores and (read.name, read.problem) == ('a/b', '')
  np.testing.assert_array_equal(read.confusion, result.confusion)
  np.testing.assert_array_equal(read.polyphony, result.polyphony)


def test_says_which_piece_is_wrong():
  with pytest.raises(ValueError, match='song: estimate has a pitch outside'):
    score_piece('song', table(note(0, 60)), table(note(0, 200)))
