"""Measures how many training examples a second the audio effects can be applied to.

  python benchmarks/effects.py

Effects on the mix, at the probabilities of gin/ablations/effects.gin, on 2.5 s of noise and tones each: an example of
2 s and what reverberates into it. Processor time, so that other work on the machine does not count.
"""

import argparse
import time

import numpy as np

from mrmt3.audio.effects import EffectsConfig, chain
from mrmt3.audio.effects.config import MIX, effect_names

RATE = 16000
PROBABILITIES = {
  'stereo_downmix': 0.1,
  'equalizer': 0.5,
  'compressor': 0.25,
  'reverb': 0.5,
  'wow': 0.1,
  'pink_noise': 0.3,
  'hum': 0.1,
  'crowd': 0.1,
  'band_limit': 0.15,
  'clipping': 0.1,
  'codec': 0.1,
  'gain': 0.5,
}


def measure(config: EffectsConfig, examples: int) -> float:
  """Return the processor time of an example, s."""
  time_axis = np.arange(int(2.5 * RATE)) / RATE
  samples = (0.1 * np.sin(2 * np.pi * 440 * time_axis)).astype(np.float32)
  samples += np.random.default_rng(0).normal(0, 0.01, len(samples)).astype(np.float32)
  chain.apply_mix_effects(samples, RATE, config, (0,))  # what is loaded or computed once
  begin = time.process_time()
  for number in range(examples):
    chain.apply_mix_effects(samples, RATE, config, (1, number))
  return (time.process_time() - begin) / examples


def main() -> None:
  """Print the time of each effect and of all at their probabilities."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--examples', type=int, default=500)
  args = parser.parse_args()
  for name in effect_names(MIX):
    took = measure(EffectsConfig(**{name: 1.0}), max(20, args.examples // 10))
    print(
      f'{name:<16} {1000 * took:6.2f} ms, at {PROBABILITIES[name]:.2f}: {1000 * took * PROBABILITIES[name]:5.2f} ms'
    )
  took = measure(EffectsConfig(**PROBABILITIES), args.examples)
  print(f'all: {1000 * took:.2f} ms an example, {1 / took:.0f} examples a second of one core')


if __name__ == '__main__':
  main()
