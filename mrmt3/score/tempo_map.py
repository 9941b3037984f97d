"""The map between seconds and quarter notes, and the bars."""

import dataclasses

import numpy as np

from mrmt3.score import metres
from mrmt3.score.beats import Beats


@dataclasses.dataclass(frozen=True)
class Bar:
  """A bar: its start in quarters from the first downbeat, its length, and its time signature."""

  start: float
  length: float
  numerator: int
  denominator: int


@dataclasses.dataclass(frozen=True)
class TempoMap:
  """A tempo curve: the time of each beat, with a constant tempo in between and beyond the ends.

  Attributes:
    quarters: positions, quarters from the first downbeat, float64 `[beats]`, increasing.
    seconds: their times, s, float64 `[beats]`, increasing.
    downbeats: the positions of the downbeats, quarters.
    numerator: of the usual time signature.
    denominator: of the usual time signature.
  """

  quarters: np.ndarray
  seconds: np.ndarray
  downbeats: np.ndarray
  numerator: int
  denominator: int

  @classmethod
  def from_beats(cls, beats: Beats) -> 'TempoMap':
    """Return the map through at least two beats with a downbeat; ValueError if there are fewer."""
    if len(beats.times) < 2 or not (beats.places == 0).any():
      raise ValueError(f'a tempo map needs two beats and a downbeat, got {len(beats.times)} beats')
    first = int(np.argmax(beats.places == 0))
    quarters = (np.arange(len(beats.times)) - first) * beats.beat_quarters
    return cls(quarters, beats.times, quarters[beats.places == 0], beats.numerator, beats.denominator)

  @property
  def bar_quarters(self) -> float:
    """Length of a usual bar, quarters."""
    return 4.0 * self.numerator / self.denominator

  @property
  def beat_quarters(self) -> float:
    """Length of a beat, quarters."""
    return metres.beat_quarters(self.denominator)

  @property
  def beats_per_minute(self) -> float:
    """Median tempo in beats (dotted in compound metres) per minute."""
    return float(60.0 / self.beat_quarters / np.median(np.diff(self.seconds) / np.diff(self.quarters)))

  def to_quarters(self, seconds) -> np.ndarray:
    """Return the positions of times."""
    return _interpolated(seconds, self.seconds, self.quarters)

  def to_seconds(self, quarters) -> np.ndarray:
    """Return the times of positions."""
    return _interpolated(quarters, self.quarters, self.seconds)

  def bars(self, begin: float, end: float) -> list[Bar]:
    """Return bars that cover the positions from `begin` to `end`, quarters.

    The first one is a pick-up, shorter than the others, if `begin` is less than a bar before the first downbeat. A bar
    between downbeats at an unusual distance has a time signature of its own.
    """
    whole = self.bar_quarters
    starts = self.downbeats.tolist()
    while starts[-1] + whole < end - 1e-6:
      starts.append(starts[-1] + whole)
    while starts[0] - whole >= begin - 1e-6:
      starts.insert(0, starts[0] - whole)
    bars = []
    if begin < starts[0] - 1e-6:
      bars.append(Bar(begin, starts[0] - begin, *self._signature(starts[0] - begin)))
    for start, following in zip(starts, [*starts[1:], starts[-1] + whole], strict=True):
      if start < end - 1e-6 or not bars:
        bars.append(Bar(start, following - start, *self._signature(following - start)))
    return bars

  def _signature(self, length):
    return time_signature(length, self.numerator, self.denominator)


def time_signature(length: float, numerator: int, denominator: int) -> tuple[int, int]:
  """Return the time signature of a bar of `length` quarters; the given one if it has that length."""
  if abs(length - 4.0 * numerator / denominator) < 1e-6:
    return numerator, denominator
  while denominator < 64 and abs(length * denominator / 4 - round(length * denominator / 4)) > 1e-6:
    denominator *= 2
  return max(1, round(length * denominator / 4)), denominator


def _interpolated(values, known, wanted):
  values = np.asarray(values, np.float64)
  inside = np.interp(values, known, wanted)
  first = (wanted[1] - wanted[0]) / (known[1] - known[0])
  last = (wanted[-1] - wanted[-2]) / (known[-1] - known[-2])
  before = wanted[0] + (values - known[0]) * first
  after = wanted[-1] + (values - known[-1]) * last
  return np.where(values < known[0], before, np.where(values > known[-1], after, inside))
