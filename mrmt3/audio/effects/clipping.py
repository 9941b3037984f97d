"""Clipping: recordings with a level beyond full scale."""

import numpy as np

MAX_DRIVE = 12.0  # dB


def clip(samples: np.ndarray, drive: float, soft: bool = False) -> np.ndarray:
  """Return samples, float32 `[n]`, with a peak of `drive` dB beyond full scale, limited to -1..1; silence stays.

  Args:
    samples: float32 `[n]`.
    drive: dB.
    soft: whether the limit is approached smoothly (tanh), as in analogue equipment.
  """
  peak = float(np.abs(samples).max(initial=0.0))
  if peak < 1e-6:
    return samples
  driven = samples * np.float32(10 ** (drive / 20) / peak)
  return np.tanh(driven) if soft else np.clip(driven, -1.0, 1.0)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, clipped by 0 to 12 dB, softly in one of three cases."""
  del sample_rate, config
  return clip(samples, rng.uniform(0.0, MAX_DRIVE), soft=bool(rng.random() < 1 / 3))
