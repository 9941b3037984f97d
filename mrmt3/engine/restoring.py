"""Which checkpoint a run evaluates, and its parameters, for any model."""

from pathlib import Path

import jax
import jax.numpy as jnp

from mrmt3 import checkpoints, network
from mrmt3.errors import UserError


def initial_params(model, rng, batch_shapes: dict, batch_types: dict):
  """Returns fresh parameters of a model, for batches of these shapes and dtypes; jitted, so that it takes little memory."""

  def initialise(rng):
    return model.get_initial_variables(rng, batch_shapes, batch_types)['params']

  return jax.jit(initialise)(rng)


def parameter_shapes(model, batch_shapes: dict, batch_types: dict):
  """Returns the shapes of a model's parameters; computes nothing."""

  def initialise(rng):
    return model.get_initial_variables(rng, batch_shapes, batch_types)['params']

  return jax.eval_shape(initialise, jax.random.key(0))


def checkpoint_paths(config) -> list[Path]:
  """Returns the checkpoints that a RestoreCheckpointConfig means, oldest first; UserError if there is none."""
  if config.mode != 'all':
    return [checkpoints.find_checkpoint(config.path)]
  steps = checkpoints.checkpoint_steps(config.path)
  if not steps:
    raise UserError(f"{config.path}: no checkpoint_<step> in it, which RestoreCheckpointConfig.mode = 'all' asks for")
  return [checkpoints.checkpoint_folder(config.path, step) for step in steps]


def restore(config, path: Path, shapes):
  """Returns (parameters of the checkpoint at `path`, its step); UserError if they do not fit the shapes.

  A parameter that a checkpoint lacks, or has too much of, is an error; t5x with `strict = False` would not notice.
  """
  params, step = checkpoints.restore_target(path)
  params = network.without_training_only(params, shapes)
  checkpoints.check_shapes(shapes, params, path)
  dtype = config.dtype
  return (params if dtype is None else jax.tree.map(lambda x: jnp.asarray(x, dtype), params)), step
