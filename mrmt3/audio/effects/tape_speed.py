"""Tape speed: all of a recording plays up to 1 % faster or slower, and higher or lower in proportion."""

import numpy as np

MAX_SEMITONES = 12 * np.log2(1.01)


def random_semitones(rng: np.random.Generator) -> float:
  """Return the deviation of the pitch, semitones."""
  return float(rng.uniform(-MAX_SEMITONES, MAX_SEMITONES))
