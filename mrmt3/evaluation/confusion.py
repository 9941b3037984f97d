"""Which instrument is taken for which: the confusion matrix of Slakh classes, and the scores of each class.

An extension of ours, in the manner of confusion matrices everywhere. Notes are matched as in mir_eval (onset within 50 ms, same
pitch), first within their instrument, then, of what is left over, across instruments (`leakage`); so every note of either side is
in the matrix exactly once.
"""

import numpy as np

from mrmt3 import metrics_utils
from mrmt3.evaluation.leakage import pair_own_instrument_first, slakh_tables
from mrmt3.metrics_utils import Scores, scores_from_counts
from mrmt3.notes.instruments import SLAKH_CLASSES, instrument_name

_PROGRAMS = sorted(SLAKH_CLASSES.values())
CLASSES = (*((program, False) for program in _PROGRAMS), (0, True))  # (program, is_drum) of each row and column
CLASS_NAMES = tuple(instrument_name(*instrument) for instrument in CLASSES)
NOBODY = len(CLASSES)  # row of notes that nobody plays, column of notes that were not heard
_PLACES = np.array([*_PROGRAMS, 128])  # as metrics_utils.map_programs numbers instruments


def instrument_confusion(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
  """Returns how many notes of each instrument were heard as which, int64 `[36, 36]`.

  Entry [i, j] counts notes of class i in the reference that the estimate gives to class j; the last column counts those
  that it does not have at all, the last row those that only it has. Row i sums to the notes of i in the reference,
  column j to the notes of j in the estimate. Matrices of several pieces are added up. ValueError for a table that
  cannot be scored.
  """
  reference, estimate = slakh_tables(reference, estimate)
  pairs = pair_own_instrument_first(reference, estimate).indices
  plays, heard = (
    np.searchsorted(_PLACES, metrics_utils.map_programs(notes, 'full')) for notes in (reference, estimate)
  )
  ref_left, est_left = metrics_utils.unmatched(pairs, len(reference), len(estimate))
  rows = np.concatenate([plays[pairs[:, 0]], plays[ref_left], np.full(len(est_left), NOBODY)])
  columns = np.concatenate([heard[pairs[:, 1]], np.full(len(ref_left), NOBODY), heard[est_left]])
  matrix = np.zeros((NOBODY + 1, NOBODY + 1), np.int64)
  np.add.at(matrix, (rows, columns), 1)
  return matrix


def class_scores(confusion: np.ndarray) -> dict[str, Scores]:
  """Returns {name of a class: its scores} for all that play or were heard, of a matrix of one piece or the sum of several.

  A note is right if onset, pitch and class are. Over several pieces this pools notes: a class that plays in few
  pieces would have no defined mean over pieces.
  """
  reference, estimate = confusion.sum(axis=1), confusion.sum(axis=0)
  present = np.flatnonzero((reference + estimate)[:NOBODY])
  return {
    CLASS_NAMES[i]: scores_from_counts(int(confusion[i, i]), int(reference[i]), int(estimate[i])) for i in present
  }


def macro_f1(confusion: np.ndarray) -> float:
  """Returns the mean F1, 0..1, over the classes that play in the reference, each with equal weight; 0 if none does."""
  reference = confusion.sum(axis=1)[:NOBODY]
  scores = class_scores(confusion)
  f1 = [scores[name].f1 for name, notes in zip(CLASS_NAMES, reference, strict=True) if notes]
  return float(np.mean(f1)) if f1 else 0.0


def most_confused(confusion: np.ndarray, most: int = 10) -> list[tuple[str, str, int, float]]:
  """Returns (instrument, heard as, notes, share of the instrument's notes) of the largest wrong entries, largest first."""
  wrong = confusion[:NOBODY, :NOBODY].copy()
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind='stable')[:most]
  totals = confusion.sum(axis=1)
  entries = [divmod(int(place), NOBODY) for place in order]
  return [
    (CLASS_NAMES[i], CLASS_NAMES[j], int(wrong[i, j]), float(wrong[i, j] / totals[i]))
    for i, j in entries
    if wrong[i, j]
  ]
