"""Hum: the mains' frequency and its harmonics, from bad cables and old equipment."""

import numpy as np
import scipy.fft

from mrmt3.audio.effects.noise_level import add_noise

LEAST, MOST = 20.0, 50.0  # dB below the signal
_TABLE = 1024


def hum(size: int, sample_rate: int, frequency: float, amplitudes: np.ndarray, phase: float) -> np.ndarray:
  """Return a periodic tone, float32 `[size]`.

  Args:
    size: samples.
    sample_rate: Hz.
    frequency: fundamental, Hz.
    amplitudes: complex amplitude of each harmonic, `[harmonics]`; those beyond the Nyquist frequency are left out.
    phase: start in the period, 0..1.
  """
  amplitudes = amplitudes[: int(sample_rate / 2 / frequency)]
  spectrum = np.zeros(_TABLE // 2 + 1, np.complex128)
  spectrum[1 : 1 + len(amplitudes)] = amplitudes
  table = scipy.fft.irfft(spectrum, _TABLE)
  turns = (phase + np.arange(size) * (frequency / sample_rate)) % 1.0
  return np.interp(turns * _TABLE, np.arange(_TABLE + 1), np.append(table, table[0])).astype(np.float32)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with hum of 50 or 60 Hz."""
  del config
  harmonics = np.arange(1, 21)
  size = harmonics ** -rng.uniform(0.3, 1.5) * rng.uniform(0.1, 1.0, len(harmonics))
  amplitudes = size * np.exp(2j * np.pi * rng.random(len(harmonics)))
  frequency = rng.choice([50.0, 60.0]) * rng.uniform(0.995, 1.005)
  noise = hum(len(samples), sample_rate, frequency, amplitudes, rng.random())
  return add_noise(samples, noise, rng.uniform(LEAST, MOST))
