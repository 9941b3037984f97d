"""Second-order filter sections with a given gain at a frequency.

Formulas: R. Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter coefficients".
"""

import numpy as np
import scipy.signal


def peaking(frequency: float, decibels: float, quality: float, sample_rate: int) -> np.ndarray:
  """Return a section, float64 `[6]`, that raises a band around `frequency` (Hz) by `decibels`."""
  amplitude, cosine, alpha = _parameters(frequency, decibels, quality, sample_rate)
  b = 1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude
  a = 1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude
  return np.array([*b, *a]) / a[0]


def shelf(frequency: float, decibels: float, sample_rate: int, *, high: bool) -> np.ndarray:
  """Return a section, float64 `[6]`, that raises all above (`high`) or below `frequency` (Hz) by `decibels`."""
  amplitude, cosine, alpha = _parameters(frequency, decibels, np.sqrt(0.5), sample_rate)
  sign = -1.0 if high else 1.0
  slope, plus, minus = 2 * np.sqrt(amplitude) * alpha, amplitude + 1, sign * (amplitude - 1) * cosine
  b = (
    amplitude * (plus - minus + slope),
    2 * amplitude * (sign * (amplitude - 1) - plus * cosine),
    amplitude * (plus - minus - slope),
  )
  a = plus + minus + slope, -2 * (sign * (amplitude - 1) + plus * cosine), plus + minus - slope
  return np.array([*b, *a]) / a[0]


def apply_sections(samples: np.ndarray, sections: np.ndarray) -> np.ndarray:
  """Return samples, float32 `[n]`, filtered by second-order sections, float64 `[sections, 6]`."""
  if not len(samples):
    return samples
  return scipy.signal.sosfilt(sections, samples).astype(np.float32)


def _parameters(frequency, decibels, quality, sample_rate):
  angle = 2 * np.pi * min(frequency, 0.49 * sample_rate) / sample_rate
  return 10 ** (decibels / 40), np.cos(angle), np.sin(angle) / (2 * quality)
