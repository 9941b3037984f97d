"""Adds a noise at a signal-to-noise ratio."""

import numpy as np

_QUIETEST = 10 ** (-40 / 20)  # RMS of the signal for silent examples, so that these have noise as well


def add_noise(samples: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
  """Return float32 `[n]`: samples plus a noise `[n]` whose RMS is `decibels` below theirs (at least -40 dBFS)."""
  if not len(samples):
    return samples
  level = max(float(np.sqrt(np.mean(np.square(samples)))), _QUIETEST)
  own = max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9)
  return samples + noise.astype(np.float32, copy=False) * np.float32(level / own * 10 ** (-decibels / 20))
