"""Stereo to mono: what is left of stereo effects when both channels are added."""

import numpy as np

MAX_DELAY = 0.02  # s


def widen(samples: np.ndarray, delay: int, amount: float) -> np.ndarray:
  """Return a stereo recording, float32 `[n, 2]`: the mono samples, and on the other channel a delayed copy.

  Args:
    samples: float32 `[n]`.
    delay: samples, at least 1.
    amount: level of the copy, -1..1; negative with opposite polarity.
  """
  stereo = np.zeros((len(samples), 2), np.float32)
  stereo[:, 0] = samples
  stereo[delay:, 1] = samples[: max(len(samples) - delay, 0)] * np.float32(amount)
  return stereo


def downmix(stereo: np.ndarray) -> np.ndarray:
  """Return the mean of the channels, float32 `[n]`, of float32 `[n, channels]`."""
  return stereo.mean(axis=1, dtype=np.float32)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`: a wide stereo recording mixed to mono, with notches where the channels cancel."""
  del config
  delay = max(1, round(float(np.exp(rng.uniform(np.log(1e-4), np.log(MAX_DELAY)))) * sample_rate))
  return downmix(widen(samples, delay, rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 0.9)))
