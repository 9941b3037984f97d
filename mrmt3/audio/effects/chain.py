"""Applies the effects of an `EffectsConfig` at random. The same seed gives the same samples."""

import importlib
import zlib
from collections.abc import Sequence

import numpy as np

from mrmt3.audio.effects.config import COMMON_SPEED, MIX, SPEED, STEM, EffectsConfig, effect_module

CONTEXT_SECONDS = 0.5  # samples before an example that its effects depend on: what still reverberates in it
_MAX_SEMITONES = 0.45  # of all effects on the speed together, so that notes stay in the label's semitone


def draw_mix_effects(config: EffectsConfig, seed: Sequence[int]) -> tuple[str, ...]:
  """Return the names of the effects that apply to the mix of an example, in order of application."""
  return tuple(name for name, _ in _drawn(config, MIX, seed))


def apply_mix_effects(samples: np.ndarray, sample_rate: int, config: EffectsConfig, seed: Sequence[int]) -> np.ndarray:
  """Return float32 `[n]`: a mix with the effects that `draw_mix_effects` names.

  Args:
    samples: float32 `[n]`.
    sample_rate: Hz.
    config: probabilities.
    seed: integers that determine all draws.
  """
  for name, rng in _drawn(config, MIX, seed):
    samples = _module(name).random_effect(samples, sample_rate, rng, config)
  return samples


def draw_semitones(config: EffectsConfig, seed: Sequence[int], count: int) -> list[float]:
  """Return the deviation from the written pitch for each of `count` pieces of an example, semitones below 0.5."""
  common = sum(_module(name).random_semitones(rng) for name, rng in _drawn(config, COMMON_SPEED, seed))
  deviations = []
  for number in range(count):
    own = sum(_module(name).random_semitones(rng) for name, rng in _drawn(config, SPEED, (*seed, number)))
    deviations.append(float(np.clip(common + own, -_MAX_SEMITONES, _MAX_SEMITONES)))
  return deviations


def draw_stem_effect(config: EffectsConfig, seed: Sequence[int], programs: np.ndarray) -> tuple[str | None, np.ndarray]:
  """Return (name of the stem effect or None, bool `[stems]`: the stems that it applies to).

  Args:
    config: probabilities.
    seed: integers that determine all draws.
    programs: Slakh class program of each stem, int `[stems]`; -1 for drums, several programs or none.
  """
  for name, rng in _drawn(config, STEM, seed):
    chosen = np.isin(programs, _module(name).PROGRAMS)
    chosen[chosen] = rng.random(int(chosen.sum())) < 0.75
    if chosen.any():
      return name, chosen
  return None, np.zeros(len(programs), bool)


def result_program(name: str) -> int:
  """Return the Slakh class program of stems after a stem effect."""
  return _module(name).RESULT


def apply_stem_effect(
  name: str, samples: np.ndarray, sample_rate: int, config: EffectsConfig, seed: Sequence[int]
) -> np.ndarray:
  """Return the samples of stems, float32 `[n]`, with a stem effect."""
  rng = np.random.default_rng((*seed, zlib.crc32(name.encode()), 1))
  return _module(name).random_effect(samples, sample_rate, rng, config)


def _drawn(config, stage, seed):
  """Return (name, generator) of the effects that apply. Each has its own stream, whatever the others are."""
  drawn = []
  for name in config.active(stage):
    rng = np.random.default_rng((*seed, zlib.crc32(name.encode())))
    if rng.random() < getattr(config, name):
      drawn.append((name, rng))
  return drawn


def _module(name):
  return importlib.import_module(effect_module(name))
