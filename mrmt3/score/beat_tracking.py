"""Beats from beat activations: the best path through a hidden semi-Markov model of beats and tempo.

A state is a beat at a frame and the interval since the beat before, which may change a little from beat to beat. The
best path is found for each of several overlapping ranges of tempo, because the level of the beats (half or twice as
fast) is decided later, by what the notes do in a bar.
"""

import dataclasses

import numpy as np

RATE = 50  # frames per second
RANGES = ((0.28, 0.46), (0.36, 0.62), (0.5, 0.85), (0.68, 1.16), (0.95, 1.8))  # s between beats
_BONUS = 2.0  # log odds that a beat gets, so that missing beats cost more than weak ones
_TEMPO_CHANGE = 55.0  # weight of the relative change of the interval
_MAX_CHANGE = 0.35  # of the logarithm of the interval, from beat to beat
_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Path:
  """Beats at a plausible tempo.

  Attributes:
    frames: frames of the beats at `RATE`, int64 `[beats]`.
    score: log likelihood ratio of the path to one without beats.
  """

  frames: np.ndarray
  score: float


def track(beat: np.ndarray) -> list[Path]:
  """Find the best path in each of `RANGES`.

  Args:
    beat: probability of a beat, `[frames]` at `RATE`.

  Returns:
    a path for each range in which there is one with at least two beats.
  """
  probability = np.clip(beat, _FLOOR, 1 - _FLOOR)
  observed = (np.log(probability / (1 - probability)) + _BONUS).astype(np.float32)
  longest = round(RANGES[-1][1] * RATE)
  start = longest + int(np.argmax(beat > 0.05))  # a path begins within an interval of the first activation
  found = (_best_path(observed, _intervals(*limits), start) for limits in RANGES)
  return [path for path in found if path is not None]


def _intervals(low, high):
  """Return the intervals of a range, frames."""
  return np.arange(int(np.ceil(low * RATE - 0.5)), int(np.floor(high * RATE + 0.5)) + 1)


def _best_path(observed, intervals, start):
  """Return the best path of beats `intervals` frames apart that begins before frame `start`; None if there is none."""
  frames, count, shortest, longest = len(observed), len(intervals), intervals[0], intervals[-1]
  change = np.abs(np.log(intervals[:, None] / intervals[None]))  # [next interval, previous interval]
  cost = np.where(change <= _MAX_CHANGE, -_TEMPO_CHANGE * change, -np.inf).astype(np.float32)
  # Row `longest + frame`: best score of a path with a beat at the frame that goes on with each interval.
  reach = np.full((longest + frames, count), -np.inf, np.float32)
  came = np.full((frames, count), -1, np.int8)  # index of the interval before, -1 for the first beat
  best_end, end = -np.inf, None
  for first in range(0, frames, shortest):  # frames that are closer than the shortest interval do not depend on another
    block = np.arange(first, min(first + shortest, frames))
    arrived = reach[longest + block[:, None] - intervals, np.arange(count)] + observed[block, None]
    options = arrived[:, None] + cost
    best = np.argmax(options, axis=2)
    score = np.take_along_axis(options, best[..., None], axis=2)[..., 0]
    begins = (block[:, None] < start) & (observed[block, None] > score)
    reach[longest + block] = np.where(begins, observed[block, None], score)
    came[block] = np.where(begins, -1, best)
    highest = int(np.argmax(arrived))
    if arrived.flat[highest] > best_end:
      best_end, end = float(arrived.flat[highest]), (first + highest // count, highest % count)
  if end is None:
    return None
  frame, interval = end
  path = [frame]
  while interval >= 0:  # the index of the interval that led here
    frame = frame - intervals[interval]
    path.append(frame)
    interval = came[frame, interval]
  return Path(np.array(path[::-1]), best_end)
