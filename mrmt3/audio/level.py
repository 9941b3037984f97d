"""The level of audio, and a gain that brings quiet recordings to the level of a model's training data.

Levels are root mean squares in dBFS, those of samples of full scale being 0. The gain is causal: it depends on the
audio up to the end of the part that it is applied to, so that live streams get the same one as files.
"""

import numpy as np

SILENT = -65.0  # dBFS; what is below is noise, if anything, and not counted
QUIETEST, LOUDEST = -24.0, -10.0  # dBFS; levels between them are left as they are
_BLOCK = 0.1  # s
_MEMORY = 60.0  # s after which what was heard counts for a third


class LevelMeter:
  """Measures the level of audio while it is read.

  Attributes:
    is_silent: whether no tenth of a second so far was louder than `SILENT`.
  """

  def __init__(self, sample_rate: int):
    """Start a piece with samples at `sample_rate` Hz."""
    self._block = max(1, round(_BLOCK * sample_rate))
    self._energy, self._blocks, self.is_silent = 0.0, 0.0, True

  def add(self, samples: np.ndarray) -> None:
    """Add the next samples, float32 `[n]`; the blocks that are measured begin with them."""
    for start in range(0, len(samples), self._block):
      block = samples[start : start + self._block].astype(np.float64)
      power = np.mean(np.square(block))
      if power <= 10 ** (SILENT / 10):
        continue
      self.is_silent = False
      kept = np.exp(-_BLOCK / _MEMORY)
      self._energy, self._blocks = self._energy * kept + power, self._blocks * kept + 1.0

  @property
  def level(self) -> float | None:
    """The level of what was not silent, later parts counting more, dBFS; None if everything was silent."""
    return float(10 * np.log10(self._energy / self._blocks)) if self._blocks else None

  @property
  def gain(self) -> float:
    """The factor that brings the level between `QUIETEST` and `LOUDEST`; 1 if everything was silent."""
    level = self.level
    if level is None:
      return 1.0
    return float(10 ** ((min(max(level, QUIETEST), LOUDEST) - level) / 20))
