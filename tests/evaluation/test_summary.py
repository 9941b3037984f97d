"""Summaries of pieces' scores: means, the pieces that failed, and results as JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from note_tables import note, note_tables, table

from mrmt3.evaluation import metric_registry
from mrmt3.evaluation.summary import PieceResult, Summary, compare, score_piece
from mrmt3.notes.note_array import empty_notes


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
