"""Gain: quiet recordings."""

import numpy as np

QUIETEST = -40.0  # dB


def apply_gain(samples: np.ndarray, decibels: float) -> np.ndarray:
  """Return samples, float32 `[n]`, louder by `decibels`."""
  return samples * np.float32(10 ** (decibels / 20))


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with a gain of -40 to 0 dB."""
  del sample_rate, config
  return apply_gain(samples, rng.uniform(QUIETEST, 0.0))
