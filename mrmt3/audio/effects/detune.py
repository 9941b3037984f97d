"""Detuning: a piece sounds up to 0.3 semitone higher or lower than written, as recordings without a tuning fork do."""

import numpy as np

MAX_SEMITONES = 0.3


def random_semitones(rng: np.random.Generator) -> float:
  """Return a deviation, uniform in +-0.3 semitone."""
  return float(rng.uniform(-MAX_SEMITONES, MAX_SEMITONES))
