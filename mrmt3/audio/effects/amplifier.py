"""Guitar amplifier: a distorting stage and the loudspeaker's cabinet."""

import numpy as np
import scipy.signal

from mrmt3.audio.effects.biquads import apply_sections, peaking
from mrmt3.audio.effects.impulse_responses import convolve, load_folder
from mrmt3.notes.instruments import SLAKH_CLASSES

PROGRAMS = (SLAKH_CLASSES['Clean Electric Guitar'], SLAKH_CLASSES['Distorted Electric Guitar'])
RESULT = SLAKH_CLASSES['Distorted Electric Guitar']
_OVERSAMPLING = 4  # against aliasing


def distort(samples: np.ndarray, drive: float, bias: float) -> np.ndarray:
  """Return samples, float32 `[n]`, through an asymmetric soft clipping curve, without constant offset.

  Args:
    samples: float32 `[n]`.
    drive: gain before the curve, relative to the samples' peak, dB.
    bias: asymmetry, 0 for odd harmonics only.
  """
  import soxr

  peak = float(np.abs(samples).max(initial=0.0))
  if peak < 1e-6:
    return samples
  fine = soxr.resample(samples, 1, _OVERSAMPLING, quality='MQ')
  curve = np.tanh(fine * np.float32(10 ** (drive / 20) / peak) + np.float32(bias)) - np.float32(np.tanh(bias))
  coarse = soxr.resample(curve, _OVERSAMPLING, 1, quality='MQ')[: len(samples)]
  return np.pad(coarse, (0, len(samples) - len(coarse)))


def cabinet_sections(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
  """Return filters like those of a loudspeaker's cabinet, float64 `[sections, 6]`."""
  low = scipy.signal.butter(2, rng.uniform(70, 120), 'highpass', fs=sample_rate, output='sos')
  high = scipy.signal.butter(4, rng.uniform(3500, 5500), 'lowpass', fs=sample_rate, output='sos')
  peaks = [
    peaking(rng.uniform(90, 200), rng.uniform(0, 6), 1.0, sample_rate),
    peaking(rng.uniform(350, 800), rng.uniform(-8, 0), 0.8, sample_rate),
    peaking(rng.uniform(1800, 3500), rng.uniform(0, 9), 1.2, sample_rate),
  ]
  return np.concatenate([low, high, np.stack(peaks)])


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return a guitar, float32 `[n]`, distorted, at its former RMS."""
  tight = scipy.signal.butter(1, rng.uniform(80, 700), 'highpass', fs=sample_rate, output='sos')
  driven = distort(apply_sections(samples, tight), rng.uniform(10, 40), rng.uniform(0.0, 0.5))
  if config.cabinets_dir is not None and rng.random() < 0.5:
    responses = load_folder(config.cabinets_dir, sample_rate, False)
    played = convolve(driven, responses[rng.integers(len(responses))])
  else:
    played = apply_sections(driven, cabinet_sections(sample_rate, rng))
  energy, was = float(np.vdot(played, played)), float(np.vdot(samples, samples))
  return played * np.float32(np.sqrt(was / energy)) if energy > 1e-9 and was > 1e-9 else samples
