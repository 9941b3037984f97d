"""Cleaning: what is merged, what is dropped, and what stays."""

import numpy as np

from mrmt3.notes.note_array import as_notes
from mrmt3.score.clean import clean


def cleaned(rows, borders=None):
  found = clean(as_notes([(*row[:3], 80, *(row[3:] or (0, False))) for row in rows]), borders)
  return [(round(on, 3), round(off, 3), pitch) for on, off, pitch, *_ in found.tolist()]


def test_stuttered_repeats_are_merged():
  assert cleaned([(1.0, 1.04, 60), (1.045, 2.0, 60)]) == [(1.0, 2.0, 60)]
  assert cleaned([(1.0, 1.9, 60), (1.04, 2.0, 60)]) == [(1.0, 2.0, 60)]


def test_real_repeats_stay():
  rows = [(1.0, 1.14, 60), (1.15, 1.29, 60), (1.3, 1.5, 60), (1.0, 1.14, 61)]
  assert cleaned(rows) == sorted(rows)
  other = [(1.0, 1.04, 60), (1.04, 2.0, 62), (1.02, 2.0, 60, 40, False)]
  assert len(cleaned(other)) == 3


def test_short_notes_are_dropped_but_not_drums():
  assert cleaned([(1.0, 1.02, 60), (2.0, 2.01, 38, 0, True), (3.0, 3.1, 60)]) == [(2.0, 2.01, 38), (3.0, 3.1, 60)]


def test_notes_cut_at_borders_are_mended():
  rows = [(1.0, 2.045, 60), (2.05, 3.0, 60), (3.0, 3.99, 62), (4.5, 5.0, 62)]
  assert cleaned(rows, np.array([0.0, 2.048, 4.096])) == [(1.0, 3.0, 60), (3.0, 3.99, 62), (4.5, 5.0, 62)]
  assert len(cleaned(rows)) == 4


def test_nothing_stays_nothing():
  assert cleaned([]) == []
