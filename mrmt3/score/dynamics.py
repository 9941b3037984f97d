"""Dynamics from velocities."""

import numpy as np

from mrmt3.score.quantize import UNITS
from mrmt3.score.tempo_map import Bar

LEVELS = ((24, 'ppp'), (40, 'pp'), (56, 'p'), (72, 'mp'), (88, 'mf'), (104, 'f'), (120, 'ff'), (128, 'fff'))
_SPREAD = 3.0  # velocities that vary less than this are a constant rather than a performance
_BARS = 2  # at least between marks
_MARGIN = 4.0  # velocity beyond a level's limits that a change needs


def marks(table: np.ndarray, bars: list[Bar]) -> dict[int, str]:
  """Return {index of the bar: dynamic mark} where the mean velocity of a part changes its level.

  Nothing for velocities that hardly differ: they were not measured.
  """
  if not len(table) or np.std(table['velocity']) < _SPREAD:
    return {}
  found, level, last = {}, None, -_BARS
  for index, bar in enumerate(bars):
    begin = round(bar.start * UNITS)
    own = table['velocity'][(table['start'] >= begin) & (table['start'] < begin + round(bar.length * UNITS))]
    if not len(own) or index - last < _BARS:
      continue
    mean = float(own.mean())
    reached = next(name for limit, name in LEVELS if mean < limit)
    if level is None or (reached != level and not _is_near(mean, level)):
      found[index], level, last = reached, reached, index
  return found


def _is_near(velocity, level):
  index = next(index for index, (_, name) in enumerate(LEVELS) if name == level)
  low = LEVELS[index - 1][0] if index else 0
  return low - _MARGIN <= velocity < LEVELS[index][0] + _MARGIN
