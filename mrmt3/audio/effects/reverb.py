"""Reverb: convolution with the impulse responses of rooms."""

import numpy as np

from mrmt3.audio.effects.impulse_responses import convolve, load_folder, room, room_numbers

_SILENT = 1e-9


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
  """Return samples, float32 `[n]`, convolved with an impulse response, float32 `[m]`, at their former RMS."""
  wet = convolve(samples, response)
  energy, was = float(np.vdot(wet, wet)), float(np.vdot(samples, samples))
  return wet * np.float32(np.sqrt(was / energy)) if energy > _SILENT and was > _SILENT else samples


def random_response(sample_rate: int, rng: np.random.Generator, config, held_out: bool = False) -> np.ndarray:
  """Return an impulse response, float32 `[m]`: of training's rooms, or of those held out."""
  if config.rooms_dir is not None and rng.random() < 0.5:
    responses = load_folder(config.rooms_dir, sample_rate, held_out)
    return responses[rng.integers(len(responses))]
  return room(int(rng.choice(room_numbers(held_out))), sample_rate)


def random_effect(samples: np.ndarray, sample_rate: int, rng: np.random.Generator, config) -> np.ndarray:
  """Return samples, float32 `[n]`, in a room."""
  return reverberate(samples, random_response(sample_rate, rng, config))
