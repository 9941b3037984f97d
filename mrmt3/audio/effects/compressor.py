"""Compressor: loud passages become quieter, as in most released music."""

import numpy as np
import scipy.signal

_BLOCK_SECONDS = 0.001  # resolution of the level
_FLOOR = 1e-5


def compress(
  samples: np.ndarray, sample_rate: int, *, threshold: float, ratio: float, attack: float, release: float
) -> np.ndarray:
  """Return samples, float32 `[n]`, compressed.

  Args:
    samples: float32 `[n]`.
    sample_rate: Hz.
    threshold: level relative to the peak beyond which the gain is lowered, dB.
    ratio: change of the level, dB, for which the output changes by 1 dB.
    attack: time constant with which the gain falls, s.
    release: time in which the measured level falls by 8.7 dB (1 / e), s.
  """
  peak = float(np.abs(samples).max(initial=0.0))
  if peak < 1e-6:
    return samples
  block = max(1, round(_BLOCK_SECONDS * sample_rate))
  padded = np.pad(np.abs(samples), (0, -len(samples) % block))
  level = np.log(np.maximum(padded.reshape(-1, block).max(axis=1) / peak, _FLOOR))
  # The level follows rises at once and falls at a constant rate: the running maximum of lines with that slope.
  fall = np.arange(len(level)) * (_BLOCK_SECONDS / release)
  level = np.maximum.accumulate(level + fall) - fall
  over = np.maximum(level - threshold * np.log(10) / 20, 0.0)
  gain = over * (1 / ratio - 1)
  pole = np.exp(-_BLOCK_SECONDS / attack)
  gain, _ = scipy.signal.lfilter([1 - pole], [1, -pole], gain, zi=[pole * gain[0]])
  centres = (np.arange(len(gain)) + 0.5) * block
  curve = np.interp(np.arange(len(samples)), centres, np.exp(gain))
  return samples * curve.astype(np.float32)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, compressed and brought back to their peak."""
  del config
  pressed = compress(
    samples,
    sample_rate,
    threshold=rng.uniform(-36.0, -9.0),
    ratio=rng.uniform(1.5, 10.0),
    attack=float(np.exp(rng.uniform(np.log(0.002), np.log(0.03)))),
    release=float(np.exp(rng.uniform(np.log(0.03), np.log(0.4)))),
  )
  peak, was = np.abs(pressed).max(initial=0.0), np.abs(samples).max(initial=0.0)
  return pressed * np.float32(was / peak) if peak > 1e-6 else pressed
