"""Beats from beat activations: the best path through a hidden semi-Markov model of beats and tempo.

A state is a beat at a frame and the interval since the beat before, which may change a little from beat to beat. The
best path is found for each of several overlapping ranges of tempo, because the level of the beats (half or twice as
fast) is decided later, by what the notes do in a bar.
"""

import dataclasses

import numpy as np

RATE = 50  # frames per second
RANGES = ((0.27, 0.46), (0.36, 0.62), (0.5, 0.85), (0.68, 1.16), (0.95, 1.8))  # s between beats
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


def track(beat: np.ndarray, *, bonus: float = _BONUS, tempo_change: float = _TEMPO_CHANGE, ranges=RANGES) -> list[Path]:
  """Find the best path in each range of tempo.

  Args:
    beat: probability of a beat, `[frames]` at `RATE`.
    bonus: log odds added to every beat.
    tempo_change: weight of relative changes of the interval.
    ranges: (shortest, longest) interval, s.

  Returns:
    a path for each range in which there is one with at least two beats.
  """
  frames = len(beat)
  shortest, longest = round(min(ranges)[0] * RATE), round(max(high for _, high in ranges) * RATE)
  intervals = np.arange(shortest, longest + 1)
  probability = np.clip(beat, _FLOOR, 1 - _FLOOR)
  observed = np.log(probability / (1 - probability)) + bonus
  allowed = np.array([(intervals >= low * RATE - 0.5) & (intervals <= high * RATE + 0.5) for low, high in ranges])
  change = np.abs(np.log(intervals[:, None] / intervals[None]))
  cost = np.where(change <= _MAX_CHANGE, -tempo_change * change, -np.inf).astype(np.float32)
  # [ranges, next interval, previous interval]
  cost = np.where(allowed[:, :, None] & allowed[:, None, :], cost[None], -np.inf)
  begin_cost = np.where(allowed, 0.0, -np.inf).astype(np.float32)

  kinds, lengths, memory = len(ranges), len(intervals), longest + 1
  # reach[frame % memory, range, next interval]: best score of a path with a beat there that goes on with it.
  reach = np.full((memory, kinds, lengths), -np.inf, np.float32)
  came = np.full((frames, kinds, lengths), -1, np.int8)  # index of the interval before, -1 for the first beat
  best_end, ends = np.full(kinds, -np.inf), np.zeros((kinds, 2), int)
  first_beats = longest + int(np.argmax(beat > 0.05))  # a path begins within an interval of the first activation
  arrived = np.full((kinds, lengths), -np.inf, np.float32)
  rows = np.arange(kinds)
  for frame in range(frames):
    count = min(max(0, frame - shortest + 1), lengths)
    if count:
      origins = (frame - intervals[:count]) % memory
      arrived[:, :count] = reach[origins, :, np.arange(count)].T + observed[frame]
    options = arrived[:, None] + cost
    best = np.argmax(options, axis=2)
    score = np.take_along_axis(options, best[..., None], axis=2)[..., 0]
    if frame < first_beats:
      fresh = observed[frame] + begin_cost
      begins = fresh > score
      score, best = np.where(begins, fresh, score), np.where(begins, -1, best)
    reach[frame % memory], came[frame] = score, best
    highest = np.argmax(arrived, axis=1)
    better = arrived[rows, highest] > best_end
    if better.any():
      best_end = np.where(better, arrived[rows, highest], best_end)
      ends[better, 0], ends[better, 1] = frame, highest[better]
  paths = []
  for kind in range(kinds):
    if np.isfinite(best_end[kind]):
      frame, length = ends[kind]
      found = [frame]
      while length >= 0:  # `length` is the interval that led here
        frame = frame - intervals[length]
        found.append(frame)
        length = came[frame, kind, length]
      paths.append(Path(np.array(found[::-1]), float(best_end[kind])))
  return paths
