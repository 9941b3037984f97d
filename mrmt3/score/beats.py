"""Beats, downbeats and metre of notes: the beat network's activations, tracked and moved onto the notes."""

import dataclasses

import numpy as np

from mrmt3.score import bars, beat_network, beat_tracking
from mrmt3.score.features import FRAME_RATE
from mrmt3.score.metres import beat_quarters

MIN_CONFIDENCE = 0.25  # below it, there is no pulse
# A logistic model of whether there is a pulse, fitted to tuning pieces and to the same notes at random times.
_STRENGTH, _REGULARITY, _PROBABILITY, _PATH, _BIAS = 3.1, 6.0, 3.9, 1.1, -8.2
_HIGHEST_SCORE = 3.0  # of a path per second; higher ones tell no more
_ON_BEAT = 0.06  # of a beat; onsets closer to a beat are on it
_MIN_PHASES = 6
_SNAP = 0.05  # s; a beat moves to the notes that begin this close to it
_MIN_NOTES, _MIN_BEATS = 8, 4
_LEAD = 0.5  # s of silence before the first note


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
    return beat_quarters(self.denominator)


NO_BEATS = Beats(np.zeros(0), np.zeros(0, np.int64))


def find_beats(notes: np.ndarray) -> Beats:
  """Find the beats of a note table; `NO_BEATS` (with its confidence) if there is no steady pulse."""
  if len(notes) < _MIN_NOTES:
    return NO_BEATS
  activation, begin = _activation(notes)
  candidates = _candidates(notes, activation, begin)
  if not candidates:
    return NO_BEATS
  frames = begin + np.arange(len(activation)) / beat_tracking.RATE

  def strength(beats):
    return float(np.interp(beats, frames, activation).mean())

  found = bars.find_bars(notes, candidates, strength=strength)
  logit = (
    _STRENGTH * strength(found.beats)
    + _REGULARITY * regularity(notes, found.beats)
    + _PROBABILITY * found.probability
    + _PATH * min(max(candidate.score for candidate in candidates), _HIGHEST_SCORE)
    + _BIAS
  )
  confidence = float(1 / (1 + np.exp(-logit)))
  if confidence < MIN_CONFIDENCE:
    return dataclasses.replace(NO_BEATS, confidence=confidence)
  return Beats(found.beats, found.places, *found.metre, confidence)


def find_candidates(notes: np.ndarray) -> list[bars.Candidate]:
  """Return the beats tracked in each range of tempo, before the bars decide between them."""
  return _candidates(notes, *_activation(notes))


def _candidates(notes, activation, begin):
  rate = beat_tracking.RATE
  return [
    bars.Candidate(snapped(path.frames / rate + begin, notes), path.score / len(activation) * rate)
    for path in beat_tracking.track(activation)
    if len(path.frames) >= _MIN_BEATS
  ]


def _activation(notes):
  """Return (probability of a beat `[frames]` at `beat_tracking.RATE`, time of the first frame, s)."""
  begin = float(notes['onset'].min()) - _LEAD  # the network need not see long silence
  shifted = notes.copy()
  shifted['onset'] -= begin
  shifted['offset'] -= begin
  beat = beat_network.beat_activation(shifted)
  fine = np.arange(0, len(beat) - 1, FRAME_RATE / beat_tracking.RATE)
  return np.interp(fine, np.arange(len(beat)), beat), begin


def beats_at(notes: np.ndarray, beats_per_minute: float) -> Beats:
  """Find the phase and the bars of beats at a constant tempo; the confidence is that of the beats found."""
  if not len(notes):
    return NO_BEATS
  activation, first = _activation(notes)
  begin, end = float(notes['onset'].min()), float(notes['offset'].max())
  interval = 60.0 / beats_per_minute
  count = max(2, int((end - begin) / interval) + 2)
  phases = np.arange(0, interval, 0.01)
  places = (begin - first + phases[:, None] + interval * np.arange(count)) * beat_tracking.RATE
  strength = np.interp(places, np.arange(len(activation)), activation, right=0.0).mean(axis=1)
  times = begin + phases[np.argmax(strength)] + interval * np.arange(count)
  if times[0] - interval >= max(begin - 0.1, 0.0):
    times = np.r_[times[0] - interval, times]
  found = bars.find_bars(notes, [bars.Candidate(times, 0.0)], change_level=False)
  return Beats(found.beats, found.places, *found.metre, float(strength.max()))


def regularity(notes: np.ndarray, beats: np.ndarray) -> float:
  """Return 0..1, how well the onsets between beats agree on a division of the beat in 2, 3, 4 or 6.

  It is the length of the mean vector of the onsets' phases, less what random onsets would reach; 0.5 with too few of
  them to know. Onsets on the beats do not count, because beats are moved onto onsets.
  """
  place = np.interp(notes['onset'], beats, np.arange(len(beats)), left=np.nan, right=np.nan)
  phase = np.unique(np.round(place[~np.isnan(place)], 2)) % 1
  phase = phase[np.minimum(phase, 1 - phase) > _ON_BEAT]
  if len(phase) < _MIN_PHASES:
    return 0.5
  power = max(np.abs(np.exp(2j * np.pi * parts * phase).mean()) ** 2 for parts in (2, 3, 4, 6))
  chance = 1.5 / len(phase)
  return float(np.sqrt(max(0.0, (power - chance) / (1 - chance))))


def snapped(times, notes):
  """Return beats moved to the mean onset of the notes next to them, in order."""
  onsets = np.sort(notes['onset'])
  out = times.copy()
  for index, time in enumerate(times):
    near = onsets[np.searchsorted(onsets, time - _SNAP) : np.searchsorted(onsets, time + _SNAP, side='right')]
    if len(near):
      out[index] = np.median(near)
  return np.maximum.accumulate(out + 1e-6 * np.arange(len(out)))
