"""Crowd: the voices of an audience, computed. Many voices at once have no words and no clear pitch."""

import functools

import numpy as np
import scipy.signal

from mrmt3.audio.effects.biquads import peaking
from mrmt3.audio.effects.noise_level import add_noise

LEAST, MOST = 10.0, 40.0  # dB below the signal
_SECONDS, _VOICES = 20.0, 24
_SYLLABLES = 4.0  # per second


@functools.lru_cache(maxsize=4)
def babble(sample_rate: int) -> np.ndarray:
  """Return 20 s of 24 voices, float32 `[n]`, always the same ones; parts of it serve as noise.

  A voice is a train of glottal pulses with some breath, whose pitch wanders between 80 and 300 Hz. Each has formants of
  its own and starts and stops like syllables.
  """
  rng = np.random.default_rng(0xC0)
  size = round(_SECONDS * sample_rate)
  time = np.arange(size)
  mixed = np.zeros(size)
  for _ in range(_VOICES):
    steps = round(_SECONDS * _SYLLABLES)
    places = np.linspace(0, size, steps)
    middle = np.exp(rng.uniform(np.log(90), np.log(260)))
    pitch = np.interp(time, places, middle * np.exp(rng.normal(0, 0.12, steps)))
    turns = np.cumsum(pitch / sample_rate) % 1.0
    source = np.exp(-6 * turns) - 0.16 + 0.15 * rng.standard_normal(size)
    loud = np.interp(time, np.sort(rng.uniform(0, size, steps)), rng.random(steps) ** 2)
    formants = [rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3200)]
    sections = [peaking(formant, 20.0, 6.0, sample_rate) for formant in formants]
    mixed += rng.uniform(0.2, 1.0) * loud * scipy.signal.sosfilt(np.stack(sections), source)
  falling = scipy.signal.butter(1, [120, 0.2 * sample_rate], 'bandpass', fs=sample_rate, output='sos')
  mixed = scipy.signal.sosfilt(falling, mixed)
  return (mixed / np.sqrt(np.mean(np.square(mixed)))).astype(np.float32)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, with voices."""
  del config
  noise = babble(sample_rate)
  start = int(rng.integers(len(noise)))
  noise = np.take(noise, np.arange(start, start + len(samples)), mode='wrap')
  return add_noise(samples, noise, rng.uniform(LEAST, MOST))
