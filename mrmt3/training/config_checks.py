"""What can be said of a training's configuration before anything is computed."""

import sys
import time

import jax

from mrmt3.engine import utils
from mrmt3.errors import UserError


def check_defaults(**unsupported) -> None:
  """Raises UserError naming the first argument of `train` that is not supported and has been given."""
  for name, value in unsupported.items():
    utils.require(not value, f'train.{name}')


def check_numbers(**numbers) -> None:
  """Raises UserError naming the first argument of `train` that is not a whole number of at least 0."""
  for name, value in numbers.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
      raise UserError(f'train.{name} is {value!r}; it must be a whole number')


def check_periods(**periods) -> None:
  """Raises UserError naming the first argument of `train` that counts steps and is not at least 1."""
  check_numbers(**periods)
  for name, value in periods.items():
    if value < 1:
      raise UserError(f'train.{name} is {value}; it counts steps, from 1')


def check_lengths(model, config, name: str) -> None:
  """Raises UserError if a config's features are longer than what the model is made for, where it says so."""
  spec = getattr(model, 'spec', None)
  if spec is None or config is None:
    return
  prior_length = spec.targets_length * spec.network.num_prior_segments
  most = {'inputs': spec.segment_frames, 'targets': spec.targets_length, 'prior_targets': prior_length}
  for feature, length in config.task_feature_lengths.items():
    if isinstance(length, int) and feature in most and length > most[feature]:
      raise UserError(
        f"{name}: task_feature_lengths has {feature}: {length}, above the model's {most[feature]}; the model's spec says "
        'segment_frames and targets_length'
      )


def seed_or_clock(random_seed: int | None) -> int:
  """Returns the seed, for None one from the clock, with a line on stderr. UserError for what all hosts have to agree on."""
  if random_seed is None:
    if jax.process_count() > 1:
      raise UserError('train.random_seed is None; several hosts need one number for all, give it')
    random_seed = time.time_ns() % 2**31
    print(f'random_seed is None, taken from the clock: {random_seed}', file=sys.stderr, flush=True)
  check_numbers(random_seed=random_seed)
  return random_seed
