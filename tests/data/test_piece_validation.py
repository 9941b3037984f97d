"""Tests of mrmt3.data.piece_validation: every kind of bad data is reported and counted, and nothing else is changed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.data.piece_source import PieceContent
from mrmt3.data.piece_validation import DROPPED, KEPT, LEFT_OUT, check_piece
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes

RATE = 1000
GOOD = as_notes([(0, 1, 60, 100, 0, 0), (1, 2, 60, 90, 0, 0), (0.5, 3, 60, 80, 40, 0), (0, 4.9, 36, 70, 0, 1)])
SOUND = (0.5 * np.sin(np.arange(5 * RATE))).astype(np.float32)


def check(samples=SOUND, notes=GOOD, **fields):
  return check_piece(PieceContent(samples, notes, **fields), RATE)


def names(checked):
  return {problem.name: (problem.count, problem.action) for problem in checked.problems}


def test_good_piece_passes_untouched():
  content = PieceContent(SOUND, GOOD)
  checked = check_piece(content, RATE)
  assert checked.content is content and not checked.problems


@pytest.mark.parametrize(
  ('samples', 'name', 'count'),
  [
    (np.zeros(0, np.float32), 'no-samples', 1),
    (np.where(np.arange(5000) % 1000 == 7, np.nan, SOUND), 'not-finite', 5),
    (np.where(np.arange(5000) == 7, -np.inf, SOUND), 'not-finite', 1),
    (np.full(5000, 9e-5, np.float32), 'silence', 1),
  ],
)
def test_a_piece_with_unusable_audio_is_left_out(samples, name, count):
  checked = check(samples)
  assert checked.content is None and names(checked) == {name: (count, LEFT_OUT)}


def test_piece_without_notes_is_left_out():
  assert names(check(notes=empty_notes())) == {'no-notes': (1, LEFT_OUT)}
  checked = check(notes=as_notes([(7, 8, 60, 100, 0, 0), (0, 0, 60, 100, 0, 0)]))
  assert checked.content is None
  assert names(checked) == {
    'begins-after-end': (1, DROPPED),
    'zero-length': (1, DROPPED),
    'no-notes': (1, LEFT_OUT),
  }


@pytest.mark.parametrize(
  ('row', 'name'),
  [
    ((np.nan, 1, 60, 100, 0, 0), 'bad-time'),
    ((0, np.inf, 60, 100, 0, 0), 'bad-time'),
    ((0, 1e9, 50, 100, 0, 0), 'bad-time'),
    ((-0.1, 1, 60, 100, 0, 0), 'bad-time'),
    ((0, 1, 128, 100, 0, 0), 'bad-pitch'),
    ((0, 1, -1, 100, 0, 0), 'bad-pitch'),
    ((0, 1, 50, 100, 128, 0), 'bad-program'),
    ((0, 1, 50, 100, -1, 0), 'bad-program'),
    ((0, 1, 50, 0, 0, 0), 'bad-velocity'),
    ((0, 1, 50, 128, 0, 0), 'bad-velocity'),
    ((1, 1, 50, 100, 0, 0), 'zero-length'),
    ((2, 1, 50, 100, 0, 0), 'zero-length'),
    ((5, 6, 50, 100, 0, 0), 'begins-after-end'),
  ],
)
def test_an_unusable_note_is_dropped_and_the_others_are_kept(row, name):
  notes = np.concatenate([GOOD[:2], as_notes([row, row]), GOOD[2:]])
  note_stem = np.array([0, 0, 1, 1, 0, 1], np.int32)
  stems = np.stack([SOUND, SOUND])
  checked = check(2 * SOUND, notes, stems=stems, note_stem=note_stem)
  assert names(checked) == {name: (2, DROPPED)}
  np.testing.assert_array_equal(as_rows(checked.content.notes), as_rows(GOOD))
  np.testing.assert_array_equal(checked.content.note_stem, [0, 0, 0, 1])


def test_notes_lost_by_the_source_are_counted():
  assert names(check(lost_notes=3)) == {'lost-in-midi': (3, DROPPED)}


@pytest.mark.parametrize(
  ('rows', 'name'),
  [
    ([(4, 5.02, 50, 100, 0, 0)], 'ends-after-end'),
    ([(0.9, 1.5, 60, 100, 0, 0)], 'overlap'),
    ([(4, 16, 50, 100, 0, 0)], 'length'),
  ],
)
def test_unusual_notes_are_kept(rows, name):
  notes = np.concatenate([GOOD, as_notes(rows)])
  checked = check(notes=notes)
  assert names(checked)[name][1] == KEPT
  assert all(problem.action == KEPT for problem in checked.problems)
  np.testing.assert_array_equal(as_rows(checked.content.notes), as_rows(notes))


def test_differences_within_the_tolerances_are_not_reported():
  assert names(check(np.resize(SOUND, 16 * RATE))) == {'length': (1, KEPT)}
  assert not check(np.resize(SOUND, 14 * RATE)).problems
  assert not check(notes=np.concatenate([GOOD, as_notes([(4, 5.009, 50, 100, 0, 0)])])).problems


def test_silent_stem_with_notes_is_named():
  stems = np.stack([SOUND, np.zeros_like(SOUND), np.zeros_like(SOUND)])
  checked = check(SOUND, stems=stems, note_stem=np.array([0, 0, 1, 0], np.int32))
  assert names(checked) == {'silent-stem': (1, KEPT)} and 'stems 1 ' in checked.problems[0].text


_NOTES = st.lists(
  st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(60, 62), st.integers(0, 2), st.booleans()), max_size=25
)


@settings(max_examples=200, deadline=None)
@given(_NOTES)
def test_overlaps_equal_a_note_by_note_search(drawn):
  """A note overlaps if an earlier note of its pitch and instrument ends after its onset."""
  notes = as_notes([(o / 10, (o + d) / 10, p, 100, g, i) for o, d, p, g, i in drawn])
  expected, sounding = 0, {}
  for note in notes[np.argsort(notes['onset'], kind='stable')]:
    voice = (note['pitch'], note['program'], note['is_drum'])
    expected += sounding.get(voice, 0) > note['onset'] + 1e-9
    sounding[voice] = max(sounding.get(voice, 0), note['offset'])
  assert names(check(notes=notes)).get('overlap', (0, KEPT)) == (expected, KEPT)


def test_problems_are_plain_lines():
  checked = check(notes=np.concatenate([GOOD, as_notes([(9, 10, 60, 100, 0, 0)])]))
  problem = dataclasses.asdict(checked.problems[0])
  assert (
    problem['text'] == '1 of 5 notes begin after the end of the audio at 5.000 s; they are dropped (first at 9.000 s)'
  )
