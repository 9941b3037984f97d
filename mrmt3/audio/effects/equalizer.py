"""Equalizer: the tone of rooms, microphones, loudspeakers and of how a recording was mixed."""

import numpy as np

from mrmt3.audio.effects.biquads import apply_sections, peaking, shelf

MAX_DECIBELS = 12.0


def random_sections(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
  """Return a low shelf, a high shelf and one to three peaking filters, float64 `[sections, 6]`."""
  sections = [
    shelf(rng.uniform(80, 400), _decibels(rng), sample_rate, high=False),
    shelf(rng.uniform(0.12, 0.4) * sample_rate, _decibels(rng), sample_rate, high=True),
  ]
  for _ in range(rng.integers(1, 4)):
    frequency = np.exp(rng.uniform(np.log(100), np.log(0.4 * sample_rate)))
    sections.append(peaking(frequency, _decibels(rng), rng.uniform(0.5, 3.0), sample_rate))
  return np.stack(sections)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, filtered."""
  del config
  return apply_sections(samples, random_sections(sample_rate, rng))


def _decibels(rng):
  return float(np.clip(rng.normal(0.0, 5.0), -MAX_DECIBELS, MAX_DECIBELS))
