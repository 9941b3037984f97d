"""Quantising: grids, triplets beat by beat, overlaps."""

import numpy as np
import pytest

from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes
from mrmt3.score.beats import Beats
from mrmt3.score.quantize import Grid, as_played, quantize
from mrmt3.score.tempo_map import TempoMap


def tempo(beat=0.6, drift=0.0):
  intervals = beat * (1 + drift * np.linspace(-1, 1, 31))
  times = 1.0 + np.r_[0, np.cumsum(intervals)]
  return TempoMap.from_beats(Beats(times, np.arange(32) % 4, 4, 4, 1.0))


def rows_at(positions, length=0.4, pitch=60, noise=0.0, clock=None):
  clock = clock or tempo()
  rng = np.random.default_rng(0)
  starts = clock.to_seconds(np.array(positions)) + rng.normal(0, noise, len(positions))
  ends = clock.to_seconds(np.array(positions) + length)
  return as_notes(
    [(start, end, pitch + k % 12, 80, 0, False) for k, (start, end) in enumerate(zip(starts, ends, strict=True))]
  )


def starts_of(notes, grid, clock=None):
  return (quantize(notes, clock or tempo(), grid)['start'] / 48).tolist()


def test_notes_go_to_the_grid_through_a_changing_tempo():
  clock = tempo(drift=0.1)
  positions = [0, 0.25, 0.75, 1, 1.5, 2, 3.25, 7, 9.5]
  notes = rows_at(positions, noise=0.015, clock=clock)
  assert starts_of(notes, Grid(16, False), clock) == positions
  assert starts_of(rows_at([0.2, 0.9], clock=clock), Grid(4), clock) == [0, 1]


def test_triplets_are_found_beat_by_beat():
  positions = [0, 1 / 3, 2 / 3, 1, 1.25, 1.5, 1.75, 2, 2 + 2 / 3, 3]
  notes = rows_at(positions, length=0.2, noise=0.01)
  np.testing.assert_allclose(starts_of(notes, Grid(16, True)), positions)
  assert all(start * 4 % 1 == 0 for start in starts_of(notes, Grid(16, False)))


def test_notes_keep_a_length_and_do_not_overlap():
  clock = tempo()
  rows = [(1.0, 1.01, 60, 80, 0, False), (1.61, 3.0, 62, 80, 0, False), (2.2, 3.5, 62, 80, 0, False)]
  rows += [(1.0, 1.4, 60, 90, 0, False)]  # a double
  table = quantize(as_notes(rows), clock, Grid(16, False))
  assert list(zip(table['start'].tolist(), table['end'].tolist(), table['pitch'].tolist(), strict=True)) == [
    (0, 36, 60),
    (48, 96, 62),
    (96, 204, 62),
  ]
  played = as_played(table, clock)
  np.testing.assert_allclose(played['onset'], [1.0, 1.6, 2.2])


@pytest.mark.parametrize('text', ['1/7', '16', '1/16,dots', '', '1/64'])
def test_grids_that_do_not_exist(text):
  with pytest.raises(UserError, match='not a grid'):
    Grid.parse(text)


def test_grids():
  assert Grid.parse('1/8') == Grid(8, False) and Grid.parse('1/16,triplets') == Grid(16, True)
