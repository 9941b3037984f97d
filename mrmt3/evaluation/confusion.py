"""Confusion matrix of instruments (Slakh classes), and the scores of each class.

This is an extension of ours. Notes are matched as in mir_eval (same pitch, onset within 50 ms), first within their
instrument; the notes left over are then matched across instruments (`leakage.pair_own_instrument_first`). Each note of
the reference and of the estimate is in the matrix exactly once.
"""

import numpy as np

from mrmt3 import metrics_utils
from mrmt3.evaluation.leakage import pair_own_instrument_first, slakh_tables
from mrmt3.metrics_utils import Scores, scores_from_counts
from mrmt3.notes.instruments import SLAKH_CLASSES, instrument_name

_PROGRAMS = sorted(SLAKH_CLASSES.values())
CLASSES = (*((program, False) for program in _PROGRAMS), (0, True))  # (program, is_drum) of each row and column
CLASS_NAMES = tuple(instrument_name(*instrument) for instrument in CLASSES)
NOBODY = len(CLASSES)  # row of false positives, column of missed notes
_PLACES = np.array([*_PROGRAMS, 128])  # the classes in the numbering of metrics_utils.map_programs


def instrument_confusion(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
  """Return the number of notes by reference class and estimated class, int64 `[36, 36]`.

  Entry [i, j] counts reference notes of class i that the estimate assigns to class j. The last column counts missed
  notes, the last row false positives. Row i sums to the reference notes of class i, column j to the estimated notes of
  class j. Matrices of several pieces can be summed.

  Raises:
    ValueError: a note table is invalid.
  """
  reference, estimate = slakh_tables(reference, estimate)
  pairs = pair_own_instrument_first(reference, estimate).indices
  ref_class, est_class = (
    np.searchsorted(_PLACES, metrics_utils.map_programs(notes, 'full')) for notes in (reference, estimate)
  )
  ref_left, est_left = metrics_utils.unmatched(pairs, len(reference), len(estimate))
  rows = np.concatenate([ref_class[pairs[:, 0]], ref_class[ref_left], np.full(len(est_left), NOBODY)])
  columns = np.concatenate([est_class[pairs[:, 1]], np.full(len(ref_left), NOBODY), est_class[est_left]])
  matrix = np.zeros((NOBODY + 1, NOBODY + 1), np.int64)
  np.add.at(matrix, (rows, columns), 1)
  return matrix


def class_scores(confusion: np.ndarray) -> dict[str, Scores]:
  """Return {class name: scores} for the classes with reference or estimated notes.

  A note is correct if its onset, pitch and class are. The matrix may be the sum over several pieces. Notes are then
  pooled, since most classes do not occur in every piece, so that a mean over pieces is not defined.
  """
  reference, estimate = confusion.sum(axis=1), confusion.sum(axis=0)
  present = np.flatnonzero((reference + estimate)[:NOBODY])
  return {
    CLASS_NAMES[i]: scores_from_counts(int(confusion[i, i]), int(reference[i]), int(estimate[i])) for i in present
  }


def macro_f1(confusion: np.ndarray) -> float:
  """Return the unweighted mean F1 (0 to 1) over the classes with reference notes; 0 if there are none."""
  reference = confusion.sum(axis=1)[:NOBODY]
  scores = class_scores(confusion)
  f1 = [scores[name].f1 for name, notes in zip(CLASS_NAMES, reference, strict=True) if notes]
  return float(np.mean(f1)) if f1 else 0.0


def most_confused(confusion: np.ndarray, most: int = 10) -> list[tuple[str, str, int, float]]:
  """Return the largest off-diagonal entries, largest first.

  Args:
    confusion: see `instrument_confusion`.
    most: maximum number of entries.

  Returns:
    (reference class, estimated class, notes, share of the reference class's notes) of each entry.
  """
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
