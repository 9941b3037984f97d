"""Checks of a training configuration, made before anything is computed."""

import os
import sys
import time

import jax

from mrmt3.engine import utils
from mrmt3.errors import UserError


def check_defaults(**unsupported) -> None:
  """Raise UserError for the first of these unsupported arguments of `train` that is set."""
  for name, value in unsupported.items():
    utils.require(not value, f'train.{name}')


def check_numbers(**numbers) -> None:
  """Raise UserError for the first of these arguments of `train` that is not an integer of at least 0."""
  for name, value in numbers.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
      raise UserError(f'train.{name} is {value!r}; it must be an integer of at least 0')


def check_periods(**periods) -> None:
  """Raise UserError for the first of these periods of `train` (in steps) that is not an integer of at least 1."""
  check_numbers(**periods)
  for name, value in periods.items():
    if value < 1:
      raise UserError(f'train.{name} is {value}; it must be a number of steps of at least 1')


def check_lengths(model, config, name: str) -> None:
  """Raise UserError if a feature of the data set is longer than the model's spec allows.

  Args:
    model: the model; without a `spec` nothing is checked.
    config: utils.DatasetConfig, or None.
    name: name of the config, for the message.
  """
  spec = getattr(model, 'spec', None)
  if spec is None or config is None:
    return
  prior_length = spec.targets_length * spec.network.num_prior_segments
  limits = {'inputs': spec.segment_frames, 'targets': spec.targets_length, 'prior_targets': prior_length}
  for feature, length in config.task_feature_lengths.items():
    if isinstance(length, int) and feature in limits and length > limits[feature]:
      raise UserError(
        f"{name}: task_feature_lengths has {feature}: {length}, above the model's {limits[feature]}; lower it, or "
        "raise segment_frames or targets_length in the model's spec"
      )


def check_memory(batch, what: str) -> None:
  """Raise UserError if a batch (arrays by name) takes more than this machine's memory; `what` names the data set."""
  size, limit = sum(x.nbytes for x in batch.values()), os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if size > limit:
    raise UserError(
      f'{what}: a batch takes {size / 1e9:,.0f} GB, and this machine has {limit / 1e9:,.0f} GB of memory; lower '
      'batch_size, or the lengths of the features'
    )


def seed_or_clock(random_seed: int | None) -> int:
  """Return the seed; None means one from the clock, which is printed to stderr.

  Raises:
    UserError: the seed is None in a run of several hosts, which must agree on it, or is not an integer of at least 0.
  """
  if random_seed is None:
    if jax.process_count() > 1:
      raise UserError('train.random_seed is None; several hosts need the same seed, set it to a number')
    random_seed = time.time_ns() % 2**31
    print(f'random_seed is None, taken from the clock: {random_seed}', file=sys.stderr, flush=True)
  check_numbers(random_seed=random_seed)
  return random_seed
