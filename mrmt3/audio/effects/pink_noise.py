"""Pink noise: microphones, tapes, traffic."""

import numpy as np
import scipy.fft

from mrmt3.audio.effects.noise_level import add_noise

LEAST, MOST = 10.0, 50.0  # dB of signal-to-noise ratio


def add_pink_noise(samples: np.ndarray, decibels: float, rng: np.random.Generator, slope: float = 1.0) -> np.ndarray:
  """Return float32 `[n]`: samples plus noise `decibels` below them.

  Args:
    samples: float32 `[n]`.
    decibels: signal-to-noise ratio.
    rng: draws the noise.
    slope: exponent of 1 / frequency in the power spectrum: 1 is pink, 0 white, 2 brown.
  """
  size = scipy.fft.next_fast_len(max(len(samples), 2), real=True)
  bins = size // 2 + 1
  spectrum = (rng.standard_normal(2 * bins, np.float32)).view(np.complex64)
  spectrum *= np.maximum(np.arange(bins, dtype=np.float32), 1) ** np.float32(-slope / 2)
  spectrum[0] = 0
  return add_noise(samples, scipy.fft.irfft(spectrum, size)[: len(samples)], decibels)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with noise between white and brown, pink on average."""
  del sample_rate, config
  decibels, slope = rng.uniform(LEAST, MOST), rng.uniform(0.0, 2.0)
  return add_pink_noise(samples, decibels, rng, slope)
