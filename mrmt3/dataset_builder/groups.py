"""Groups pieces so that a split by group has no leakage: a work or a tune occurs in one split only.

Two scores share a tune if enough of their melodies' interval patterns agree. Names and bass lines do not suffice: many
chorales set one melody in another key and harmony. Two scores are near-duplicates if most interval patterns of all
their parts agree.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.dataset_builder.score import Score

PATTERN_LENGTH = 7  # intervals
SHARED_PATTERNS = 0.35  # of the shorter melody's patterns
SHARED_IN_ALL = 0.5  # of all parts' patterns; finds copies with other top parts or another order of parts
_COMMON = 40  # pieces; a pattern in more of them is a scale or a drone, compared between neighbours only
_MIN_PATTERNS = 8  # shorter melodies are not compared


def melody_patterns(part: np.ndarray) -> set[tuple[int, ...]]:
  """Return all runs of `PATTERN_LENGTH` successive intervals (semitones) in a part's top line.

  Repeated pitches count as one note, so that a tune with other lyrics is the same.
  """
  order = np.lexsort((-part['pitch'], part['start']))
  pitch, start = part['pitch'][order], part['start'][order]
  pitch = pitch[np.r_[True, np.diff(start) > 1e-6]] if len(pitch) else pitch
  intervals = np.diff(pitch)
  intervals = intervals[intervals != 0]
  if len(intervals) < PATTERN_LENGTH:
    return set()
  return set(map(tuple, np.lib.stride_tricks.sliding_window_view(intervals, PATTERN_LENGTH).tolist()))


def group_scores(scores: Sequence[Score], works: Sequence[str]) -> list[int]:
  """Return a group number for each score; scores of one work or with one tune share it.

  Args:
    scores: the pieces; the melody is the part with the highest mean pitch.
    works: the work of each score (see sources.work_of).
  """
  parents = list(range(len(scores)))

  def root(index):
    while parents[index] != index:
      parents[index] = parents[parents[index]]
      index = parents[index]
    return index

  first_of_work = {}
  for index, work in enumerate(works):
    parents[root(index)] = root(first_of_work.setdefault(work, index))
  melodies = [melody_patterns(max(score.parts, key=lambda part: part['pitch'].mean())) for score in scores]
  all_parts = [set().union(*map(melody_patterns, score.parts)) for score in scores]
  for patterns, min_shared in ((melodies, SHARED_PATTERNS), (all_parts, SHARED_IN_ALL)):
    for one, other in _pairs_with_shared_tunes(patterns, min_shared):
      parents[root(one)] = root(other)
  numbers = {}
  return [numbers.setdefault(root(index), len(numbers)) for index in range(len(scores))]


def _pairs_with_shared_tunes(patterns, min_shared):
  holders = defaultdict(list)
  for index, found in enumerate(patterns):
    for pattern in found:
      holders[pattern].append(index)
  shared = defaultdict(int)
  for indices in holders.values():
    for position, one in enumerate(indices):
      for other in indices[position + 1 : None if len(indices) <= _COMMON else position + 2]:
        shared[one, other] += 1
  for (one, other), count in shared.items():
    smaller = min(len(patterns[one]), len(patterns[other]))
    if smaller >= _MIN_PATTERNS and count >= min_shared * smaller:
      yield one, other


def split_groups(groups: Sequence[int], shares: Mapping[str, float], rng: np.random.Generator) -> list[str]:
  """Assign whole groups to splits, each to the split that is furthest below its share.

  Args:
    groups: a group number for each piece.
    shares: target share of the pieces for each split, e.g. {'train': 0.8, 'test': 0.2}.
    rng: decides the order of groups of one size.

  Returns:
    the split of each piece.
  """
  members = defaultdict(list)
  for index, group in enumerate(groups):
    members[group].append(index)
  order = [list(members)[index] for index in rng.permutation(len(members))]
  # The largest first: a large group placed last would overfill a small split.
  order.sort(key=lambda group: -len(members[group]))
  total = sum(shares.values())
  missing = {split: share / total * len(groups) for split, share in shares.items()}
  splits = [''] * len(groups)
  for group in order:
    split = max(missing, key=missing.get)
    missing[split] -= len(members[group])
    for index in members[group]:
      splits[index] = split
  return splits
