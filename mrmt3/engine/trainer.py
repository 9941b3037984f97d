"""The jitted training step and its metrics."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from mrmt3.engine import models, partitioning
from mrmt3.errors import UserError

EXAMPLE_LOSS = models.EXAMPLE_LOSS


class TrainState(flax.struct.PyTreeNode):
  """The state of a training: step (int32, steps done), parameters and optimizer state."""

  step: jax.Array
  params: Any
  opt_state: Any

  def state_dict(self) -> dict:
    """Return the state as a checkpoint's tree, in t5x's layout."""
    return {'target': self.params, 'state': {'step': self.step, 'param_states': self.opt_state}}

  @classmethod
  def from_state_dict(cls, tree: Mapping) -> 'TrainState':
    """Inverse of `state_dict`."""
    return cls(tree['state']['step'], tree['target'], tree['state']['param_states'])


@dataclasses.dataclass
class Trainer:
  """Runs single steps of training and evaluation.

  Attributes:
    model: the model to train.
    partitioner: places arrays on the devices.
    rng: base key; a step's key is fold_in(rng, step), so a resumed run draws the same dropout masks.
    learning_rate_fn: step -> learning rate. It is only logged if the optimizer has a learning rate of its own.
    num_microbatches: number of parts of a batch whose gradients are accumulated; None or 0 is one part.
    weight_metrics_computer: not supported, keep None.
  """

  model: models.EncoderDecoderModel
  partitioner: partitioning.PjitPartitioner
  rng: jax.Array
  learning_rate_fn: Callable[[jax.Array], jax.Array]
  num_microbatches: int | None
  weight_metrics_computer: None = None

  def __post_init__(self):
    if self.weight_metrics_computer is not None:
      raise UserError('trainer.Trainer: weight_metrics_computer is not supported; leave it out')
    self._shardings = None
    self.train_step = jax.jit(self._train_step, donate_argnums=0)
    self.eval_step = jax.jit(lambda params, batch: self.model.eval_fn(params, batch)[1])

  def check_batch_size(self, batch_size: int) -> None:
    """Raise UserError if num_microbatches does not divide the batch size."""
    if batch_size % (self.num_microbatches or 1):
      raise UserError(
        f'trainer.Trainer.num_microbatches is {self.num_microbatches}; it must divide the batch size, {batch_size}'
      )

  def initial_state(self, batch: Mapping[str, Any]) -> TrainState:
    """Return the state of step 0 with initial parameters, for batches shaped like `batch`."""
    state = self.initial_state_unplaced(batch)
    self._shardings = self.shardings(state, batch)
    return self.partitioner.place_state(state, self._shardings)

  def shardings(self, state: TrainState, batch: Mapping[str, Any]) -> TrainState:
    """Return the sharding of each array of a state, or of its shapes; `batch` is any batch of the right shapes."""
    axes = logical_axes(self.model, batch) if self.partitioner.mesh.size > 1 else {}
    return self.partitioner.shardings(state.params, axes, state)

  def initial_state_unplaced(self, batch: Mapping[str, Any]) -> TrainState:
    """Same as `initial_state`, but not placed on the devices; works under `jax.eval_shape`."""
    params = self.model.get_initial_params(jax.random.fold_in(self.rng, 0x1217), batch)
    return TrainState(jnp.zeros((), jnp.int32), params, self.model.optimizer_def.init(params))

  def _gradients(self, params, batch, rng):
    """Return (gradients, sums) of the whole batch's summed loss, accumulated over microbatches."""
    gradient_fn = jax.grad(self.model.loss_fn, has_aux=True)
    parts = self.num_microbatches or 1
    if parts == 1:
      return gradient_fn(params, batch, rng)

    def split(x):
      # Each part takes every parts-th example, so that it stays sharded over all devices.
      return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

    def part_of(index, examples):
      gradients, sums = gradient_fn(params, examples, jax.random.fold_in(rng, index))
      return (gradients, sums), sums.pop(EXAMPLE_LOSS, ())

    def add_part(total, part):
      added, example_loss = part_of(*part)
      return jax.tree.map(jnp.add, total, added), example_loss

    numbered = (jnp.arange(parts), jax.tree.map(split, batch))
    shapes, _ = jax.eval_shape(part_of, jnp.int32(0), jax.tree.map(lambda x: split(x)[0], batch))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (gradients, sums), example_loss = jax.lax.scan(add_part, zeros, numbered)
    if len(example_loss):
      sums[EXAMPLE_LOSS] = example_loss.T.reshape(-1)
    return gradients, sums

  def _train_step(self, state: TrainState, batch) -> tuple[TrainState, dict[str, jax.Array]]:
    rng = jax.random.fold_in(self.rng, state.step)
    gradients, sums = self._gradients(state.params, batch, rng)
    normalizer = self.model.loss_normalizer(sums)
    gradients = jax.tree.map(lambda gradient: gradient / normalizer, gradients)
    rate = jnp.asarray(self.learning_rate_fn(state.step), jnp.float32)
    params, opt_state = self.model.optimizer_def.update(gradients, state.opt_state, state.params, rate)
    numbers = {**sums, 'learning_rate': rate, 'gradient_norm': optax.global_norm(gradients)}
    new = TrainState(state.step + 1, params, opt_state)
    if self._shardings is not None and self.partitioner.mesh.size > 1:
      new = jax.lax.with_sharding_constraint(new, self._shardings)
    return new, numbers


def logical_axes(model, batch: Mapping[str, Any]) -> dict[tuple, tuple[str, ...]]:
  """Return {path of a parameter: names of its axes}, for models that name them with flax.linen.partitioning."""
  shapes, types = {k: x.shape for k, x in batch.items()}, {k: x.dtype for k, x in batch.items()}
  variables = jax.eval_shape(lambda key: model.get_initial_variables(key, shapes, types), jax.random.key(0))
  if 'params_axes' not in variables:
    return {}
  names = flax.linen.partitioning.get_axis_names(variables['params_axes'])
  leaves = jax.tree_util.tree_leaves_with_path(names, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))
  return {path: tuple(spec) for path, spec in leaves}


def as_floats(numbers: list[Mapping[str, jax.Array]]) -> list[dict[str, float]]:
  """Return the metrics of several steps as Python floats, without the losses of single examples."""
  rows = jax.device_get([{key: x for key, x in row.items() if key != EXAMPLE_LOSS} for row in numbers])
  return [{key: float(x) for key, x in row.items()} for row in rows]


def summarise(rows: list[Mapping[str, float]]) -> dict[str, float]:
  """Summarize the metrics of several steps.

  Returns:
    Means per token of loss, z_loss, accuracy (0 to 1) and, if the model has it, frame_loss; tokens_per_step;
    `accuracy/TYPE` for each token type (time, pitch, velocity, program, drum, tie, eos) that occurred; the last
    learning_rate and the mean gradient_norm.
  """
  sums = {key: sum(row[key] for row in rows) for key in rows[0]}
  tokens = max(sums['tokens'], 1.0)
  summary = {
    'loss': sums['loss'] / tokens,
    'z_loss': sums['z_loss'] / tokens,
    'accuracy': sums['correct'] / tokens,
    'tokens_per_step': sums['tokens'] / len(rows),
  }
  if 'frame_loss' in sums:
    summary['frame_loss'] = sums['frame_loss'] / tokens
  for key, count in sums.items():
    kind = key.removeprefix('tokens/')
    if kind != key and count:
      summary[f'accuracy/{kind}'] = sums[f'correct/{kind}'] / count
  if 'learning_rate' in rows[-1]:
    summary['learning_rate'] = rows[-1]['learning_rate']
    summary['gradient_norm'] = sums['gradient_norm'] / len(rows)
  return summary
