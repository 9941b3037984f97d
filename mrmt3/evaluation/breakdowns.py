"""Scores by polyphony and by number of instruments.

Both are extensions of ours. Counts by polyphony are summed over pieces, since a mean over pieces would have to exclude
the pieces without a polyphony level.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from mrmt3.metrics_utils import ONSET_TOLERANCE, Scores, match_notes, scores_from_counts, validate_notes

POLYPHONY_LEVELS = (1, 2, 3, 4, 6, 9, 13)  # lower end of each bin
INSTRUMENT_LEVELS = (0, 1, 2, 3, 5, 7, 10)


def level_names(levels: tuple[int, ...]) -> list[str]:
  """Return the names of the bins: '1', '4-5', ..., '13+'."""
  ranges = zip(levels, [*(level - 1 for level in levels[1:]), None], strict=True)
  return [f'{low}+' if high is None else f'{low}' if low == high else f'{low}-{high}' for low, high in ranges]


def polyphony(reference: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Return the number of pitched reference notes that sound at each time, int64 `[times]`, at least 1.

  A note sounds from 50 ms before its onset, so that the notes of an arpeggiated chord count together, until its offset
  (exclusive).

  Args:
    reference: note table.
    times: float `[times]`, s.
  """
  pitched = reference[~reference['is_drum']]
  begun = np.searchsorted(np.sort(pitched['onset']), times + ONSET_TOLERANCE, side='right')
  ended = np.searchsorted(np.sort(pitched['offset']), times, side='right')
  return np.maximum(begun - ended, 1)


def polyphony_counts(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
  """Return (matches, reference notes, estimated notes) by polyphony, int64 `[levels, 3]`.

  Notes are matched by onset and pitch; instruments and drums are ignored. A reference note counts at the polyphony of
  its onset, a matched estimated note at that of its reference note, and an unmatched one at the polyphony of the
  reference at its own onset.

  Raises:
    ValueError: a note table is invalid.
  """
  validate_notes(reference, 'reference')
  validate_notes(estimate, 'estimate')
  reference, estimate = (notes[~notes['is_drum']] for notes in (reference, estimate))
  pairs = match_notes(reference, estimate)
  ref_level, est_level = (_level(polyphony(reference, n['onset']), POLYPHONY_LEVELS) for n in (reference, estimate))
  est_level[pairs[:, 1]] = ref_level[pairs[:, 0]]
  levels = ref_level[pairs[:, 0]], ref_level, est_level
  return np.stack([np.bincount(level, minlength=len(POLYPHONY_LEVELS)) for level in levels], axis=1)


def level_scores(counts: np.ndarray, levels: tuple[int, ...] = POLYPHONY_LEVELS) -> dict[str, Scores]:
  """Return {bin: scores} of counts, int `[levels, 3]`, for the bins that have notes."""
  named = zip(level_names(levels), counts.tolist(), strict=True)
  return {name: scores_from_counts(*row) for name, row in named if row[1] or row[2]}


def means_by_level(
  pieces: Iterable[tuple[int, Mapping[str, float]]], names: Iterable[str]
) -> dict[str, dict[str, float]]:
  """Return mean scores by number of instruments.

  Args:
    pieces: (number of instruments, scores) of each piece.
    names: the scores to average.

  Returns:
    {bin: {score: mean over the bin's pieces, 'pieces': number of pieces}}.
  """
  groups = {}
  for count, scores in pieces:
    level = int(_level(np.array([count]), INSTRUMENT_LEVELS)[0])
    groups.setdefault(level, []).append(scores)
  names, titles = list(names), level_names(INSTRUMENT_LEVELS)
  return {
    titles[level]: {
      'pieces': len(group),
      **{name: float(np.mean([scores[name] for scores in group])) for name in names},
    }
    for level, group in sorted(groups.items())
  }


def _level(counts: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
  return np.searchsorted(np.array(levels), counts, side='right') - 1
