"""Scores under conditions: by how many notes sound at once, and by how many instruments play.

Extensions of ours. Counts are plain sums, so those of several pieces are added up: means over pieces would have to leave out the
pieces in which a condition does not occur.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from mrmt3.metrics_utils import ONSET_TOLERANCE, Scores, match_notes, scores_from_counts, validate_notes

POLYPHONY_LEVELS = (1, 2, 3, 4, 6, 9, 13)  # the least of each bin
INSTRUMENT_LEVELS = (0, 1, 2, 3, 5, 7, 10)


def level_names(levels: tuple[int, ...]) -> list[str]:
  """Returns how the bins are called: '1', '4-5', ..., '13+'."""
  ranges = zip(levels, [*(level - 1 for level in levels[1:]), None], strict=True)
  return [f'{low}+' if high is None else f'{low}' if low == high else f'{low}-{high}' for low, high in ranges]


def polyphony(reference: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Returns how many pitched notes of the reference sound at each time (s), int64 `[times]`, at least 1.

  A note sounds from 50 ms before its onset, so that a chord counts as one however loosely it is played, up to, not
  including, its offset.
  """
  pitched = reference[~reference['is_drum']]
  begun = np.searchsorted(np.sort(pitched['onset']), times + ONSET_TOLERANCE, side='right')
  ended = np.searchsorted(np.sort(pitched['offset']), times, side='right')
  return np.maximum(begun - ended, 1)


def polyphony_counts(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
  """Returns (matches, reference notes, estimated notes) by polyphony, int64 `[levels, 3]`; instruments ignored, no drums.

  A reference note counts where it begins. So does a matched estimated note where its partner begins, and any other one
  at the polyphony that the reference has at its own onset. ValueError for a table that cannot be scored.
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
  """Returns {bin: scores} of counts `[levels, 3]`, for the bins that have notes."""
  named = zip(level_names(levels), counts.tolist(), strict=True)
  return {name: scores_from_counts(*row) for name, row in named if row[1] or row[2]}


def means_by_level(
  pieces: Iterable[tuple[int, Mapping[str, float]]], names: Iterable[str]
) -> dict[str, dict[str, float]]:
  """Returns {bin: {score: its mean over the bin's pieces, and 'pieces': their number}} of (instruments, scores) pairs."""
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
