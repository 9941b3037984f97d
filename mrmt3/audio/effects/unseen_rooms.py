"""The conditions of the `rooms` test: unseen impulse responses, noise and a low level."""

import numpy as np

from mrmt3.audio.effects.config import EffectsConfig
from mrmt3.audio.effects.gain import apply_gain
from mrmt3.audio.effects.pink_noise import add_pink_noise
from mrmt3.audio.effects.reverb import random_response, reverberate

SIGNAL_TO_NOISE = 20.0  # dB
QUIETEST, LOUDEST = -36.0, -20.0  # dB, gain


def place_in_room(
  samples: np.ndarray, sample_rate: int, rng: np.random.Generator, rooms_dir: str | None = None
) -> np.ndarray:
  """Return a recording, float32 `[n]`, in a room that training never uses, with noise 20 dB below it, and quiet.

  Args:
    samples: float32 `[n]`.
    sample_rate: Hz.
    rng: chooses room, noise and level.
    rooms_dir: as `EffectsConfig.rooms_dir`; of its files, only those held out are used.
  """
  response = random_response(sample_rate, rng, EffectsConfig(rooms_dir=rooms_dir), held_out=True)
  noisy = add_pink_noise(reverberate(samples, response), SIGNAL_TO_NOISE, rng)
  return apply_gain(noisy, rng.uniform(QUIETEST, LOUDEST))
