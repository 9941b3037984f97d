"""Measures the training examples per second with audio effects, by processor time, compared with none.

    python benchmarks/effects_pipeline.py --data DATA_DIR [--examples 600]

Examples are those of gin/runs/wide_effects.gin, whose files are parsed: mixes of up to three pieces, stem subsets,
transpositions, and every effect at its probability there. DATA_DIR is a data set in the Slakh layout with stems. The
rate is that of two busy processors: 2 / processor seconds of an example. Each effect is also measured alone.
"""

import argparse
import importlib
import time

import numpy as np

PROCESSORS = 2
MODEL_RATE = 45.0  # examples per second at which the bundled model trains
TARGET = 4.0  # times that
BATCH_SIZE = 16


def task_dataset(data_dir: str, with_effects: bool):
  """Return the examples of runs/wide_effects.gin, an infinite tf.data.Dataset, with or without the effects."""
  from mrmt3 import train
  from mrmt3.inspection import task_reader

  bindings = [f'DATA_DIR={data_dir!r}', "MODEL_DIR='unused'"]
  if not with_effects:
    bindings.append('train/example_config.ExampleConfig.effects=None')
  found = task_reader.find(
    'train', gin_files=['runs/wide_effects.gin'], gin_bindings=bindings, split='train', main_module=train
  )
  lengths = {'inputs': found.spec.segment_frames, 'targets': 1 << 12, 'prior_targets': 1 << 12}
  options = {'split': 'train', 'shuffle': True, 'seed': 0, 'num_epochs': None, 'trim_output_features': False}
  return found, found.task.get_dataset(lengths, **options)


def measure(dataset, examples: int) -> float:
  """Return the processor seconds of an example, after a warm-up of 32."""
  iterator = iter(dataset.as_numpy_iterator())
  for _ in range(2 * BATCH_SIZE):
    next(iterator)
  started = time.process_time()
  for _ in range(examples):
    next(iterator)
  return (time.process_time() - started) / examples


def measure_effects(sample_rate: int, seconds: float, effects, repeats: int = 40) -> dict[str, float]:
  """Return the processor seconds of each effect on mono samples, without its probability."""
  from mrmt3.audio.effects.config import MIX, STEM, effect_module, effect_names

  samples = (0.1 * np.random.default_rng(0).normal(size=round(seconds * sample_rate))).astype(np.float32)
  found = {}
  for name in effect_names(STEM) + effect_names(MIX):
    apply = importlib.import_module(effect_module(name)).random_effect
    apply(samples, sample_rate, np.random.default_rng(0), effects)
    started = time.process_time()
    for seed in range(repeats):
      apply(samples, sample_rate, np.random.default_rng(seed), effects)
    found[name] = (time.process_time() - started) / repeats
  return found


def main() -> None:
  """Measure and print."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', metavar='DIR', required=True, help='data set in the Slakh layout, with stems')
  parser.add_argument('--examples', type=int, default=600, help='examples to measure (default: 600)')
  args = parser.parse_args()

  from mrmt3.audio.effects.chain import CONTEXT_SECONDS
  from mrmt3.utils.tensorflow_setup import start_tensorflow

  start_tensorflow()
  costs = {}
  for with_effects in (False, True):
    found, dataset = task_dataset(args.data, with_effects)
    costs[with_effects] = measure(dataset, args.examples)
  spec = found.spec
  seconds = float(spec.segment_frames / spec.spectrogram.frame_rate) + CONTEXT_SECONDS
  effects = found.config.effects
  print(f'{"effect":<16} {"ms":>7} {"probability":>12}')
  for name, cost in measure_effects(spec.spectrogram.sample_rate, seconds, effects).items():
    print(f'{name:<16} {1000 * cost:>7.2f} {getattr(effects, name):>12.2f}')
  for with_effects, cost in costs.items():
    rate = PROCESSORS / cost
    print(
      f'{"with" if with_effects else "without"} effects: {1000 * cost:.2f} ms of processor time per example, '
      f'{rate:.0f} examples/s on {PROCESSORS} processors, {rate / MODEL_RATE:.1f} times {MODEL_RATE:.0f}/s '
      f'(target: {TARGET:.0f})'
    )


if __name__ == '__main__':
  from mrmt3.errors import UserError

  try:
    main()
  except UserError as error:
    raise SystemExit(f'effects_pipeline: error: {error}') from None
