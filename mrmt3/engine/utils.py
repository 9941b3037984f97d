"""Configuration dataclasses, data sets and learning-rate schedules, with t5x's names."""

import atexit
import contextlib
import dataclasses
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mrmt3.errors import UserError


def _require_defaults(config, **unsupported) -> None:
  """Raise UserError if a field of t5x that is not supported differs from its default."""
  for field, default in unsupported.items():
    if getattr(config, field) != default:
      raise UserError(f'utils.{type(config).__name__}.{field} is not supported; leave it at {default!r}')


@dataclasses.dataclass
class DatasetConfig:
  """A seqio data set: task or mixture, split, lengths and batch size.

  Attributes:
    mixture_or_task_name: a registered name, or a seqio Task or Mixture.
    task_feature_lengths: maximum length of each task feature.
    split: 'train', 'validation', ...
    batch_size: examples per step, over all devices.
    shuffle: whether the order is random.
    seed: seed of the order and of random preprocessing; None is the run's random_seed.
    use_cached: read the task's cache instead of its source.
    pack: not supported (a segment fills its example), keep False.
    use_custom_packing_ops: not supported, keep False.
    use_memory_cache: accepted and ignored in training; our tasks cache the audio.
    trim_output_features: whether seqio trims features to their lengths.
    module: module to import before the name is looked up.
  """

  mixture_or_task_name: Any
  task_feature_lengths: Mapping[str, int | None]
  split: str
  batch_size: int
  shuffle: bool
  seed: int | None
  use_cached: bool = False
  pack: bool = False
  use_custom_packing_ops: bool = False
  use_memory_cache: bool = True
  trim_output_features: bool = True
  module: str | None = None

  def __post_init__(self):
    _require_defaults(self, pack=False, use_custom_packing_ops=False)


@dataclasses.dataclass
class SaveCheckpointConfig:
  """When to save checkpoints, and how many to keep.

  Attributes:
    dtype: dtype of the saved parameters; only 'float32' is supported.
    period: steps between checkpoints; one more is saved at the end. None saves only at the end.
    checkpoint_steps: further steps to save at.
    keep: number of latest checkpoints to keep; None keeps all.
    keep_dataset_checkpoints: not supported, keep None.
    save_dataset: not supported, keep False (the data position is saved with every checkpoint).
    state_transformation_fns: not supported, keep empty.
  """

  dtype: str = 'float32'
  period: int | None = None
  checkpoint_steps: Sequence[int] | None = None
  keep: int | None = None
  keep_dataset_checkpoints: int | None = None
  save_dataset: bool = False
  state_transformation_fns: Sequence = dataclasses.field(default_factory=list)

  def __post_init__(self):
    _require_defaults(
      self, dtype='float32', keep_dataset_checkpoints=None, save_dataset=False, state_transformation_fns=[]
    )
    if self.period is not None and self.period < 1:
      raise UserError(f'utils.SaveCheckpointConfig.period is {self.period}; it must be a number of steps of at least 1')

  def is_due(self, step: int, total_steps: int) -> bool:
    """Return whether to save a checkpoint after `step` steps."""
    periodic = self.period is not None and step % self.period == 0
    return periodic or step == total_steps or step in (self.checkpoint_steps or ())


@dataclasses.dataclass
class RestoreCheckpointConfig:
  """The checkpoint to start from when model_dir has none.

  Attributes:
    path: a checkpoint folder, or a model_dir, of which the latest checkpoint is used.
    mode: 'latest' or 'specific', which both follow from the path; 'all' (evaluation only) is every checkpoint in it.
    dtype: dtype that parameters are converted to for evaluation; None keeps them.
    strict: accepted and ignored; no parameter may be missing.
    assignment_map: not supported, keep None.
    fallback_to_scratch: start from initial parameters if there is nothing at `path`.
    restore_dataset: not supported, keep False.
  """

  path: str
  mode: str = 'latest'
  dtype: str | None = None
  strict: bool = True
  assignment_map: Sequence | None = None
  fallback_to_scratch: bool = False
  restore_dataset: bool = False

  def __post_init__(self):
    _require_defaults(self, assignment_map=None, restore_dataset=False)
    if self.mode not in ('latest', 'specific', 'all'):
      raise UserError(f"utils.RestoreCheckpointConfig.mode is {self.mode!r}; set it to 'latest', 'specific' or 'all'")


@dataclasses.dataclass
class CheckpointConfig:
  """What to save and what to restore; None disables either."""

  save: SaveCheckpointConfig | None = None
  restore: RestoreCheckpointConfig | None = None


def require(supported: bool, what: str) -> None:
  """Raise UserError that `what` is not supported, unless `supported` is true."""
  if not supported:
    raise UserError(f'{what} is not supported; leave it at its default')


def resolve_task(config: DatasetConfig):
  """Return the seqio task or mixture that a config names, after importing its module; UserError if there is none."""
  import importlib

  import seqio

  if config.module:
    try:
      importlib.import_module(config.module)
    except ImportError as error:
      raise UserError(f'utils.DatasetConfig.module: cannot import {config.module} ({error})') from error
  if not isinstance(config.mixture_or_task_name, str):
    return config.mixture_or_task_name
  try:
    task = seqio.get_mixture_or_task(config.mixture_or_task_name)
  except ValueError as error:
    raise UserError(f'there is no task or mixture {config.mixture_or_task_name!r}') from error
  if isinstance(task, seqio.Task) and config.split not in task.splits:
    raise UserError(
      f'{task.name} has no split {config.split!r}; it has {", ".join(task.splits)}: set split of its DatasetConfig'
    )
  return task


def piece_names(config: DatasetConfig) -> Sequence[str]:
  """Return the names of the pieces that a task's examples are cut from, by number; empty if the source has none."""
  names = getattr(getattr(resolve_task(config), 'source', None), 'piece_names', None)
  return names(config.split) if names else ()


def lengths_or_none(config: DatasetConfig) -> dict | None:
  """Return task_feature_lengths as a dict, or None if all lengths are None (whole pieces)."""
  lengths = dict(config.task_feature_lengths or {})
  return lengths if any(length is not None for length in lengths.values()) else None


def batch_shapes(feature_shapes: Mapping[str, Sequence], batch_size: int) -> tuple[dict, dict]:
  """Return (shapes, dtypes) of a batch of features of these shapes; unknown lengths become 1."""
  shapes = {k: (batch_size, *(1 if n is None else n for n in shape)) for k, shape in feature_shapes.items()}
  return shapes, {k: jnp.float32 if k.startswith('encoder_input') else jnp.int32 for k in shapes}


def task_examples(task, config: DatasetConfig, shard_id: int, num_shards: int):
  """Return one epoch of a seqio task as a tf.data.Dataset: every num_shards-th example, in order."""
  dataset = task.get_dataset(
    lengths_or_none(config),
    split=config.split,
    use_cached=config.use_cached,
    shuffle=False,
    seed=config.seed,
    num_epochs=1,
    trim_output_features=config.trim_output_features,
  )
  return dataset.shard(num_shards, shard_id)


def get_dataset(
  config: DatasetConfig,
  feature_converter_cls,
  *,
  seed: int,
  num_epochs: int | None = None,
  start: tuple[int, int] = (0, 0),
):
  """Return this host's part of a tf.data.Dataset of model features, batched `[batch / hosts, ...]`.

  Args:
    config: the data set.
    feature_converter_cls: the model's seqio.FeatureConverter class.
    seed: used if config.seed is None.
    num_epochs: number of epochs; None repeats indefinitely.
    start: (serial number of the first record, examples to skip from there on); only (0, 0) unless `counts_records`.

  Raises:
    UserError: the name is not registered, or the number of hosts does not divide the batch size.
  """
  import seqio

  task = resolve_task(config)
  hosts = jax.process_count()
  if config.batch_size < 1 or config.batch_size % hosts:
    raise UserError(f'utils.DatasetConfig.batch_size is {config.batch_size}; it must be a multiple of {hosts} host(s)')
  lengths = dict(config.task_feature_lengths)
  serial, left_out = start
  with task.source.starting_at(serial) if serial else contextlib.nullcontext():
    dataset = task.get_dataset(
      lengths,
      split=config.split,
      use_cached=config.use_cached,
      shuffle=config.shuffle,
      num_epochs=num_epochs,
      shard_info=seqio.ShardInfo(jax.process_index(), hosts),
      seed=seed if config.seed is None else config.seed,
      trim_output_features=config.trim_output_features,
      try_in_mem_cache=False,  # the position in a memory cache cannot be saved
    )
  dataset = feature_converter_cls(pack=False)(
    dataset.skip(left_out) if left_out else dataset, task_feature_lengths=lengths
  )
  # Training repeats the data, so it can drop an incomplete batch; evaluation needs every example.
  return dataset.batch(config.batch_size // hosts, drop_remainder=num_epochs is None)


def counts_records(config: DatasetConfig) -> bool:
  """Return whether the data can be opened at any record: true for our tasks, false for mixtures and other tasks."""
  return hasattr(getattr(resolve_task(config), 'source', None), 'starting_at') and not config.use_cached


def dataset_from(config: DatasetConfig, feature_converter_cls, seed: int) -> Callable | None:
  """Return a function of the two numbers of `start` to the training data set from there on, or None if impossible."""
  if not counts_records(config):
    return None
  return lambda *start: get_dataset(config, feature_converter_cls, seed=seed, start=start)


class user_errors:
  """Context manager that re-raises a preprocessor's UserError, which TensorFlow wraps into an error of its own."""

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace) -> None:
    if not isinstance(error, Exception):
      return  # includes GeneratorExit at interpreter exit, when imports fail
    import tensorflow as tf

    if not isinstance(error, tf.errors.OpError):
      return
    # TensorFlow keeps only the text and traceback of an exception in a Python function.
    message = re.search(r'\bUserError: (.+)', error.message)
    if message is not None:
      raise UserError(message[1]) from error


_open_iterators = weakref.WeakSet()


def close_at_exit(iterator) -> None:
  """Register an iterator, whose `close` is called when the process ends if it still exists.

  Otherwise the exit could hang: a thread of tf.data that calls a Python function waits for the interpreter's lock, and
  the interpreter waits for the thread.
  """
  _open_iterators.add(iterator)


@atexit.register
def _close_iterators() -> None:
  for iterator in list(_open_iterators):
    iterator.close()


class NumpyIterator(Iterator):
  """The elements of a tf.data.Dataset as numpy trees. It may be left open when the process ends.

  Raises:
    UserError: a preprocessor raised it.
  """

  def __init__(self, dataset):
    with user_errors():
      self._iterator = dataset.as_numpy_iterator()
    close_at_exit(self)

  def __next__(self):
    with user_errors():
      return next(self._iterator)

  def close(self) -> None:
    """Stop the pipeline's threads; no elements are left."""
    self._iterator = iter(())


def iterate(dataset) -> NumpyIterator:
  """Return an iterator over a tf.data.Dataset's elements as numpy trees; re-raises a preprocessor's UserError."""
  return NumpyIterator(dataset)


_FACTORS = (
  'constant',
  'linear_warmup',
  'linear_decay',
  'rsqrt_decay',
  'rsqrt_normalized_decay',
  'decay_every',
  'cosine_decay',
)


def create_learning_rate_scheduler(
  factors: str = 'constant * linear_warmup * rsqrt_decay',
  base_learning_rate: float = 0.5,
  warmup_steps: int = 1000,
  decay_factor: float = 0.5,
  steps_per_decay: int = 20000,
  steps_per_cycle: int = 100000,
  step_offset: int = 0,
  min_learning_rate: float = 1e-8,
) -> Callable[[Any], jax.Array]:
  """Return step -> learning rate as a product of named factors, with t5x's names and defaults.

  - constant: base_learning_rate.
  - linear_warmup: min(1, step / warmup_steps).
  - linear_decay: falls by decay_factor per step after the warm-up, to 0.
  - rsqrt_decay: 1 / sqrt(max(step, warmup_steps)).
  - rsqrt_normalized_decay: rsqrt_decay times sqrt(warmup_steps).
  - decay_every: decay_factor to the power of step // steps_per_decay.
  - cosine_decay: half a cosine from 1 to 0 over steps_per_cycle after the warm-up, repeated.

  Steps are counted from step_offset. The rate is never below min_learning_rate.

  Raises:
    UserError: a factor is unknown.
  """
  names = [name.strip() for name in factors.split('*')]
  for name in names:
    if name not in _FACTORS:
      raise UserError(f'create_learning_rate_scheduler.factors: no factor {name!r}; choose from {", ".join(_FACTORS)}')

  def schedule(step):
    step = jnp.maximum(0.0, jnp.asarray(step, jnp.float32) - step_offset)
    after_warmup = jnp.maximum(0.0, step - warmup_steps)
    values = {
      'constant': lambda: base_learning_rate,
      'linear_warmup': lambda: jnp.minimum(1.0, step / warmup_steps),
      'linear_decay': lambda: jnp.maximum(0.0, 1.0 - decay_factor * after_warmup),
      'rsqrt_decay': lambda: 1.0 / jnp.sqrt(jnp.maximum(step, warmup_steps)),
      'rsqrt_normalized_decay': lambda: jnp.sqrt(warmup_steps / jnp.maximum(step, warmup_steps)),
      'decay_every': lambda: decay_factor ** jnp.floor(step / steps_per_decay),
      'cosine_decay': lambda: 0.5 * (1.0 + jnp.cos(jnp.pi * ((after_warmup / steps_per_cycle) % 1.0))),
    }
    rate = 1.0
    for name in names:
      rate *= values[name]()
    return jnp.maximum(jnp.asarray(rate, jnp.float32), min_learning_rate)

  return schedule
