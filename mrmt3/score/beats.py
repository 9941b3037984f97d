"""Beats, downbeats and metre of notes: the beat network's activations, tracked and moved onto the notes."""

import dataclasses

import numpy as np

from mrmt3.score import bar_tracking, bars, beat_network
from mrmt3.score.features import FRAME_RATE

MIN_CONFIDENCE = 0.35  # below it, there is no pulse
METRE_WEIGHT = 1.0  # of the network's log probability of the metre against the path's score per beat
_SNAP = 0.05  # s; a beat moves to the notes that begin this close to it
_MIN_NOTES = 8


@dataclasses.dataclass(frozen=True)
class Beats:
  """The beats of a piece in one metre.

  Attributes:
    times: times of the beats, s, float64 `[beats]`, increasing; empty if there is no pulse.
    places: place of each beat in its bar, 0 for a downbeat, int64 `[beats]`.
    numerator: of the time signature; 4 without pulse.
    denominator: of the time signature; 4 or 8.
    confidence: 0..1, how sure it is that there is such a pulse.
  """

  times: np.ndarray
  places: np.ndarray
  numerator: int = 4
  denominator: int = 4
  confidence: float = 0.0

  @property
  def downbeats(self) -> np.ndarray:
    """Times of the downbeats, s."""
    return self.times[self.places == 0]

  @property
  def beat_quarters(self) -> float:
    """Length of a beat in quarters: 1, or 1.5 in compound metres."""
    return 1.5 if self.denominator == 8 else 1.0


NO_BEATS = Beats(np.zeros(0), np.zeros(0, np.int64))


def find_beats(notes: np.ndarray) -> Beats:
  """Find the beats of a note table; `NO_BEATS` (with its confidence) if there is no steady pulse."""
  if len(notes) < _MIN_NOTES:
    return NO_BEATS
  begin = notes['onset'].min()
  shifted = notes.copy()
  shifted['onset'] -= begin - 0.5  # the network need not see long silence
  shifted['offset'] -= begin - 0.5
  found = beats_from_activations(*beat_network.activations(shifted))
  if not len(found.times):
    return found
  times, places, metre, _ = bars.find_bars(notes, _snapped(found.times + begin - 0.5, notes))
  return Beats(times, places, *metre, found.confidence)


def beats_at(notes: np.ndarray, beats_per_minute: float) -> Beats:
  """Find the phase and the bars of beats at a constant tempo; the confidence is that of the beats found."""
  if not len(notes):
    return NO_BEATS
  begin, end = float(notes['onset'].min()), float(notes['offset'].max())
  shifted = notes.copy()
  shifted['onset'] -= begin - 0.5
  shifted['offset'] -= begin - 0.5
  beat, _, _ = beat_network.activations(shifted)
  interval = 60.0 / beats_per_minute
  count = max(2, int((end - begin) / interval) + 2)
  phases = np.arange(0, interval, 0.01)
  places = (phases[:, None] + interval * np.arange(count) + 0.5) * FRAME_RATE
  strength = np.interp(places, np.arange(len(beat)), beat, right=0.0).mean(axis=1)
  times = begin + phases[np.argmax(strength)] + interval * np.arange(count)
  if times[0] - interval > -1e-6 and times[0] - interval >= begin - 0.1:
    times = np.r_[times[0] - interval, times]
  times, places, metre, _ = bars.find_bars(notes, times, change_level=False)
  return Beats(times, places, *metre, float(strength.max()))


def beats_from_activations(
  beat: np.ndarray, downbeat: np.ndarray, metres: np.ndarray, metre_weight: float = METRE_WEIGHT, **tracking
) -> Beats:
  """Track beats through activations (see `beat_network.activations`).

  Args:
    beat: probability of a beat, `[frames]` at `FRAME_RATE`.
    downbeat: probability of a downbeat.
    metres: log probability of each of `beat_network.METRES`.
    metre_weight: see `METRE_WEIGHT`.
    **tracking: options of `bar_tracking.track`.
  """
  size = len(beat)
  fine = np.arange(0, size - 1, FRAME_RATE / bar_tracking.RATE)
  upsampled = [np.interp(fine, np.arange(size), one) for one in (beat, downbeat)]
  paths = bar_tracking.track(*upsampled, **tracking)
  if not paths:
    return NO_BEATS
  best, beats_found = None, max(len(path.frames) for path in paths)
  for (numerator, denominator), log_probability in zip(beat_network.METRES, metres, strict=True):
    count = numerator if denominator == 4 else numerator // 3
    path = paths[bar_tracking.BEATS_PER_BAR.index(count)]
    score = path.score / beats_found + metre_weight * log_probability
    if best is None or score > best[0]:
      best = score, path, numerator, denominator
  _, path, numerator, denominator = best
  strength = np.array([upsampled[0][max(0, frame - 2) : frame + 3].max() for frame in path.frames])
  confidence = float(strength.mean())
  if confidence < MIN_CONFIDENCE or len(path.frames) < 4:
    return dataclasses.replace(NO_BEATS, confidence=confidence)
  return Beats(path.frames / bar_tracking.RATE, path.places, numerator, denominator, confidence)


def _snapped(times, notes):
  """Move beats to the mean onset of the notes next to them, and keep them in order."""
  onsets = np.sort(notes['onset'])
  out = times.copy()
  for index, time in enumerate(times):
    near = onsets[np.searchsorted(onsets, time - _SNAP) : np.searchsorted(onsets, time + _SNAP, side='right')]
    if len(near):
      out[index] = np.median(near)
  return np.maximum.accumulate(out + 1e-6 * np.arange(len(out)))
