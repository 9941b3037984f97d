"""Wow and flutter: the speed of tapes and records changes, slowly and fast."""

import numpy as np

MAX_SHIFT = 0.001  # s by which a moment is early or late
MAX_SPEED = 2 ** (0.25 / 12) - 1  # relative change of the speed: a quarter of a semitone


def warp(samples: np.ndarray, shift: np.ndarray) -> np.ndarray:
  """Return float32 `[n]`: at each moment the sample that was `shift` `[n]` samples later; cubic interpolation."""
  if len(samples) < 2:
    return samples
  place = np.clip(np.arange(len(samples)) + shift, 0, len(samples) - 1)
  whole = np.minimum(place.astype(np.int64), len(samples) - 2)
  part = (place - whole).astype(np.float32)
  padded = np.concatenate([samples[:1], samples, samples[-1:]])
  before, here, after, beyond = (padded[whole + offset] for offset in range(4))
  # Catmull-Rom spline.
  slope, cubic = after - before, 3 * (here - after) + beyond - before
  square = 2 * before - 5 * here + 4 * after - beyond
  return here + 0.5 * part * (slope + part * (square + part * cubic))


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with one slow and one fast change of the speed."""
  del config
  time = np.arange(len(samples)) / sample_rate
  shift = np.zeros(len(samples))
  for low, high in ((0.4, 2.0), (4.0, 12.0)):
    frequency = rng.uniform(low, high)
    # Half of each limit, for two changes.
    most = min(MAX_SHIFT, MAX_SPEED / (2 * np.pi * frequency)) / 2
    shift += rng.uniform(0.2, 1.0) * most * np.sin(2 * np.pi * (frequency * time + rng.random()))
  return warp(samples, shift * sample_rate)
