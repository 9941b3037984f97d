"""Beats and bars from beat activations: the best path through a hidden semi-Markov model of tempo and bar position.

A state is a beat at a frame, its place in the bar, and the interval since the beat before. The interval may change a
little from beat to beat. Bars have 2, 3 or 4 beats throughout; the three are compared.
"""

import dataclasses

import numpy as np

RATE = 50  # frames per second
BEATS_PER_BAR = (2, 3, 4)
MIN_INTERVAL, MAX_INTERVAL = 0.28, 1.7  # s between beats
_BONUS = 2.0  # log odds that a beat gets, so that missing beats cost more than weak ones
_TEMPO_CHANGE = 55.0  # weight of the relative change of the interval
_MAX_CHANGE = 0.35  # of the logarithm of the interval, from beat to beat
_FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Path:
  """Beats with their places in bars.

  Attributes:
    frames: frames of the beats at `RATE`, int64 `[beats]`.
    places: place of each beat in its bar, 0 for the downbeat, int64 `[beats]`.
    beats_per_bar: 2, 3 or 4.
    score: log likelihood ratio of the path to one without beats.
  """

  frames: np.ndarray
  places: np.ndarray
  beats_per_bar: int
  score: float


def track(
  beat: np.ndarray, downbeat: np.ndarray, *, bonus: float = _BONUS, tempo_change: float = _TEMPO_CHANGE
) -> list[Path]:
  """Find the best path for each number of beats per bar.

  Args:
    beat: probability of a beat, `[frames]` at `RATE`.
    downbeat: probability of a downbeat, `[frames]`.
    bonus: log odds added to every beat.
    tempo_change: weight of relative changes of the interval.

  Returns:
    a path for each of `BEATS_PER_BAR`; an empty list if there are too few frames for two beats.
  """
  frames = len(beat)
  intervals = np.arange(round(MIN_INTERVAL * RATE), round(MAX_INTERVAL * RATE) + 1)
  if frames <= intervals[0]:
    return []
  down = np.clip(downbeat, _FLOOR, 1 - _FLOOR)
  other = np.clip(beat - downbeat, _FLOOR, 1 - _FLOOR)
  none = np.clip(1 - np.maximum(beat, downbeat), _FLOOR, 1)
  on_bar, off_bar = np.log(down / none) + bonus, np.log(other / none) + bonus

  chain = np.repeat(np.arange(len(BEATS_PER_BAR)), BEATS_PER_BAR)
  place = np.concatenate([np.arange(count) for count in BEATS_PER_BAR])
  first = np.flatnonzero(place == 0)
  before = np.where(place > 0, np.arange(len(place)) - 1, first[chain] + np.array(BEATS_PER_BAR)[chain] - 1)
  observed = np.where(place == 0, on_bar[:, None], off_bar[:, None])  # [frames, states]

  change = np.log(intervals[:, None] / intervals[None])
  cost = np.where(np.abs(change) <= _MAX_CHANGE, -tempo_change * np.abs(change), -np.inf).astype(np.float32)
  states, lengths = len(place), len(intervals)
  # reach[frame % memory, state, next interval]: best score of a path with a beat there that goes on with that interval.
  memory = intervals[-1] + 1
  reach = np.full((memory, states, lengths), -np.inf, np.float32)
  came = np.zeros((frames, states, lengths), np.int8)  # the interval before it, -1 for the first beat
  columns = np.arange(lengths)
  best_end, ends = np.full(states, -np.inf), np.zeros((states, 2), int)
  first_beats = intervals[-1] + np.argmax(beat > 0.05)  # a path begins within an interval of the first activation
  for frame in range(frames):
    arrived = np.full((states, lengths), -np.inf, np.float32)
    count = np.searchsorted(intervals, frame, side='right')
    if count:
      origins = (frame - intervals[:count]) % memory
      arrived[:, :count] = reach[origins[None], before[:, None], columns[None, :count]]
      arrived += observed[frame][:, None]
    options = arrived[:, None] + cost[None]  # [states, next, previous]
    best = np.argmax(options, axis=2)
    score = np.take_along_axis(options, best[..., None], axis=2)[..., 0]
    if frame < first_beats:
      begins = observed[frame][:, None] > score
      score = np.where(begins, observed[frame][:, None], score)
      best = np.where(begins, -1, best)
    reach[frame % memory], came[frame] = score, best
    highest = arrived.max(axis=1)
    for state in np.flatnonzero(highest > best_end):
      best_end[state], ends[state] = highest[state], (frame, np.argmax(arrived[state]))
  return [_trace(int(index), best_end, ends, chain, place, before, came, intervals) for index in range(len(first))]


def _trace(index, best_end, ends, chain, place, before, came, intervals):
  own = np.flatnonzero(chain == index)
  state = own[np.argmax(best_end[own])]
  score = float(best_end[state])
  frame, length = ends[state]
  frames, places = [], []
  while True:
    frames.append(frame)
    places.append(place[state])
    if length < 0:
      break
    # `length` is the interval that led here; the beat before has its own.
    frame, state = frame - intervals[length], before[state]
    length = came[frame, state, length]
  return Path(np.array(frames[::-1]), np.array(places[::-1]), BEATS_PER_BAR[index], score)
