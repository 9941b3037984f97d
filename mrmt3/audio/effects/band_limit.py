"""Band limits: telephones, small loudspeakers, old recordings, low sample rates."""

import numpy as np
import scipy.signal

from mrmt3.audio.effects.biquads import apply_sections

LOWEST, HIGHEST = 1500.0, 7000.0  # Hz, of the low-pass filter
HIGH_PASS = 40.0, 400.0  # Hz


def limit_band(samples: np.ndarray, sample_rate: int, low: float | None, high: float | None) -> np.ndarray:
  """Return samples, float32 `[n]`, without what is below `low` and above `high` (Hz; None: no limit)."""
  sections = []
  if low is not None:
    sections.append(scipy.signal.butter(2, low, 'highpass', fs=sample_rate, output='sos'))
  if high is not None and high < 0.49 * sample_rate:
    sections.append(scipy.signal.butter(4, high, 'lowpass', fs=sample_rate, output='sos'))
  return apply_sections(samples, np.concatenate(sections)) if sections else samples


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with a high limit, a low limit or both."""
  del config
  kind = rng.integers(3)
  low = float(np.exp(rng.uniform(*np.log(HIGH_PASS))))
  high = float(np.exp(rng.uniform(np.log(LOWEST), np.log(HIGHEST))))
  return limit_band(samples, sample_rate, low if kind != 1 else None, high if kind != 2 else None)
