"""Finds recordings that two sound sources share, whatever their names.

A recording is described by the intervals between its zero crossings, in two kinds of runs:

- Short runs, relative to their sum, which do not change with gain, sign, trimming or sampling rate. Runs that nearly
  repeat themselves are left out: steady tones of one timbre agree in them by chance. What is left are attacks, noise
  and the irregularities of real recordings.
- Long runs of intervals in samples, which find trimmed and amplified copies of regular sounds too.

Two recordings are copies if many runs agree at places that follow each other in both.
"""

import collections
from collections.abc import Sequence

import numpy as np

RUN, LONG_RUN = 16, 64  # intervals
_MAX_RUNS = 1000  # of one recording and kind
_TOLERANCE = 0.001  # of a short run's length: Euclidean distance between matching runs
_LONG_TOLERANCE = 0.08  # samples, Euclidean
_PERIODS = range(1, 9)  # intervals after which a run may repeat itself
_MIN_IRREGULARITY = 12 * _TOLERANCE  # Euclidean distance between a run and itself one period later
_MIN_MATCHES = 10  # runs that agree, at places that follow each other
_LOOKED_UP, _FIRST = 64, 256  # of the first runs of a recording so many are looked up, evenly spaced
_MIN_SAMPLES = 256


def crossing_intervals(audio: np.ndarray) -> np.ndarray:
  """Return the intervals between the zero crossings of mono audio (float `[n]`) in samples, float64."""
  audio = np.asarray(audio, np.float64)
  if len(audio) < _MIN_SAMPLES:
    return np.zeros(0)
  audio = audio - audio.mean()
  # Little steps around zero in quiet parts cross it at random.
  loud = np.flatnonzero(np.abs(audio) > 0.05 * np.abs(audio).max())
  audio = audio[loud[0] : loud[-1] + 1] if len(loud) else audio
  at = np.flatnonzero((audio[:-1] < 0) != (audio[1:] < 0))
  return np.diff(at + audio[at] / (audio[at] - audio[at + 1]))


def short_runs(intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (float32 `[runs, RUN]`, int `[runs]`): irregular runs relative to their sum, and where they begin."""
  if len(intervals) < RUN:
    return np.zeros((0, RUN), np.float32), np.zeros(0, np.int64)
  runs = np.lib.stride_tricks.sliding_window_view(intervals, RUN)
  runs = runs / runs.sum(axis=1, keepdims=True)
  irregular = np.min([_distance_to_later(runs, period) for period in _PERIODS], axis=0)
  places = np.flatnonzero(irregular > _MIN_IRREGULARITY)[:_MAX_RUNS]
  return runs[places].astype(np.float32), places


def long_runs(intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (float32 `[runs, LONG_RUN]`, int `[runs]`): runs in samples, and where they begin."""
  if len(intervals) < LONG_RUN:
    return np.zeros((0, LONG_RUN), np.float32), np.zeros(0, np.int64)
  runs = np.lib.stride_tricks.sliding_window_view(intervals, LONG_RUN)[:_MAX_RUNS]
  return runs.astype(np.float32), np.arange(len(runs))


def _distance_to_later(runs, period):
  steps = runs[:, period:] - runs[:, :-period]
  return np.sqrt(np.square(steps).sum(axis=1) * RUN / (RUN - period))


class SampleIndex:
  """Recordings that others are compared with."""

  def __init__(self, recordings: Sequence[np.ndarray]):
    """Index mono recordings (float `[n]`, any sample rates)."""
    intervals = [crossing_intervals(audio) for audio in recordings]
    self._indices = [
      (short_runs, _RunIndex([short_runs(one) for one in intervals], _TOLERANCE)),
      (long_runs, _RunIndex([long_runs(one) for one in intervals], _LONG_TOLERANCE)),
    ]

  def find(self, audio: np.ndarray) -> int | None:
    """Return the index of an indexed recording of which `audio` is a copy, or None."""
    intervals = crossing_intervals(audio)
    for runs_of, index in self._indices:
      owner = index.find(*runs_of(intervals))
      if owner is not None:
        return owner
    return None


class _RunIndex:
  """The runs of all recordings, of one kind."""

  def __init__(self, described, tolerance):
    from scipy.spatial import cKDTree

    self._tolerance = tolerance
    self._owners = np.repeat(np.arange(len(described)), [len(places) for _, places in described])
    self._places = np.concatenate([places for _, places in described]) if described else np.zeros(0, int)
    self._tree = cKDTree(np.concatenate([runs for runs, _ in described])) if len(self._owners) else None

  def find(self, runs, places):
    if self._tree is None or len(runs) < _MIN_MATCHES:
      return None
    votes = collections.Counter()
    step = max(1, min(len(runs), _FIRST) // _LOOKED_UP)
    runs, places = runs[:_FIRST:step], places[:_FIRST:step]
    for place, near in zip(places, self._tree.query_ball_point(runs, self._tolerance), strict=True):
      votes.update({(int(self._owners[at]), int(self._places[at] - place)) for at in near})
    if not votes:
      return None
    (owner, _), count = votes.most_common(1)[0]
    return owner if count >= _MIN_MATCHES else None
