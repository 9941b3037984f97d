"""Finds recordings that two sound sources share, whatever their names.

A recording is described by the intervals between its zero crossings, in runs of 16. Relative to their sum they do not
change with gain, sign, trimming or the sampling rate. Two recordings are copies if many runs agree at places that
follow each other in both. Runs that nearly repeat themselves are left out: steady tones of one timbre agree in them by
chance. What is left are attacks, noise and the irregularities of real recordings.
"""

from collections.abc import Sequence

import numpy as np

RUN = 16  # zero crossings
_MAX_RUNS = 250  # of one recording
_TOLERANCE = 0.001  # of the run's length: Euclidean distance between matching runs
_PERIODS = range(1, 9)  # intervals after which a run may repeat itself
_MIN_IRREGULARITY = 12 * _TOLERANCE  # Euclidean distance between a run and itself one period later
_MIN_MATCHES = 12  # runs that agree, at places that follow each other
_MIN_SAMPLES = 256


def crossing_runs(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (float32 `[runs, RUN]`, int `[runs]`): the relative intervals of each run, and its first crossing's index."""
  audio = np.asarray(audio, np.float64)
  nothing = np.zeros((0, RUN), np.float32), np.zeros(0, np.int64)
  if len(audio) < _MIN_SAMPLES:
    return nothing
  audio = audio - audio.mean()
  # Little steps around zero in quiet parts cross it at random.
  loud = np.flatnonzero(np.abs(audio) > 0.05 * np.abs(audio).max())
  audio = audio[loud[0] : loud[-1] + 1] if len(loud) else audio
  at = np.flatnonzero((audio[:-1] < 0) != (audio[1:] < 0))
  if len(at) <= RUN + 1:
    return nothing
  times = at + audio[at] / (audio[at] - audio[at + 1])
  intervals = np.diff(times)
  runs = np.lib.stride_tricks.sliding_window_view(intervals, RUN)
  runs = runs / runs.sum(axis=1, keepdims=True)
  irregular = np.min([_distance_to_later(runs, period) for period in _PERIODS], axis=0)
  places = np.flatnonzero(irregular > _MIN_IRREGULARITY)
  places = places[:_MAX_RUNS]
  return runs[places].astype(np.float32), places


def _distance_to_later(runs, period):
  steps = runs[:, period:] - runs[:, :-period]
  return np.sqrt(np.square(steps).sum(axis=1) * RUN / (RUN - period))


class SampleIndex:
  """Recordings that others are compared with."""

  def __init__(self, recordings: Sequence[np.ndarray]):
    """Index mono recordings (float `[n]`, any sample rates)."""
    from scipy.spatial import cKDTree

    runs, owners, places = [], [], []
    for index, audio in enumerate(recordings):
      own, at = crossing_runs(audio)
      runs.append(own)
      places.append(at)
      owners.append(np.full(len(at), index))
    self._owners = np.concatenate(owners) if owners else np.zeros(0, int)
    self._places = np.concatenate(places) if places else np.zeros(0, int)
    self._tree = cKDTree(np.concatenate(runs)) if len(self._owners) else None

  def find(self, audio: np.ndarray) -> int | None:
    """Return the index of an indexed recording of which `audio` is a copy, or None."""
    runs, places = crossing_runs(audio)
    if self._tree is None or len(runs) < _MIN_MATCHES:
      return None
    votes = {}
    for place, near in zip(places, self._tree.query_ball_point(runs, _TOLERANCE), strict=True):
      for owner, shift in {(int(self._owners[at]), int(self._places[at] - place)) for at in near}:
        votes[owner, shift] = votes.get((owner, shift), 0) + 1
    if not votes:
      return None
    (owner, _), count = max(votes.items(), key=lambda vote: vote[1])
    return owner if count >= _MIN_MATCHES else None
