"""Restoring parameters for training, evaluation and inference, for any model."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.nn.network_config import NetworkConfig
from mrmt3.nn.parameters import is_part, without_training_only


def parameter_shapes(model, batch_shapes: dict, batch_types: dict):
  """Return the shapes of a model's parameters, without computing them.

  Args:
    model: an engine.models.EncoderDecoderModel.
    batch_shapes: shape of each model feature.
    batch_types: dtype of each model feature.
  """

  def initialise(rng):
    return model.get_initial_variables(rng, batch_shapes, batch_types)['params']

  return jax.eval_shape(initialise, jax.random.key(0))


def checkpoint_paths(config) -> list[Path]:
  """Return the checkpoints that a RestoreCheckpointConfig selects, oldest first; UserError if there is none."""
  if config.mode != 'all':
    return [orbax_checkpoints.find_checkpoint(config.path)]
  steps = orbax_checkpoints.checkpoint_steps(config.path)
  if not steps:
    raise UserError(
      f"{config.path}: no folder checkpoint_<step>, which RestoreCheckpointConfig.mode = 'all' needs; "
      'set RestoreCheckpointConfig.path to the folder of a run'
    )
  return [orbax_checkpoints.checkpoint_folder(config.path, step) for step in steps]


def restore(config, path: Path, shapes, optional: tuple[str, ...] = ()):
  """Return (parameters, step, missing optional parts) of a checkpoint.

  A missing or an unexpected parameter is an error, unlike in t5x with `strict = False`.

  Args:
    config: utils.RestoreCheckpointConfig.
    path: the checkpoint.
    shapes: tree of the model's parameter shapes.
    optional: prefixes of parameter paths, such as 'a/b', that the checkpoint may lack.

  Raises:
    UserError: there is no checkpoint, or it does not fit the shapes.
  """
  params, step = orbax_checkpoints.restore_target(path)
  params = without_training_only(params, shapes, NetworkConfig.training_only)
  wanted, there = flatten_dict(shapes), flatten_dict(params)
  missing = {keys: _part_of(keys, optional) for keys in wanted if keys not in there}
  lacking = [name for name in optional if name in missing.values()]
  orbax_checkpoints.check_shapes(
    unflatten_dict({keys: x for keys, x in wanted.items() if missing.get(keys) is None}), params, path
  )
  dtype = config.dtype
  return (params if dtype is None else jax.tree.map(lambda x: jnp.asarray(x, dtype), params)), step, lacking


def _part_of(keys: tuple[str, ...], names: tuple[str, ...]) -> str | None:
  """Return the first of the prefixes, such as 'a/b', that the parameter at these keys lies under, or None."""
  return next((name for name in names if is_part('/'.join(keys), name)), None)


def _may_lack(model) -> tuple[str, ...]:
  """Return prefixes of parameters that a checkpoint may lack: parameters used only in training, and `model.fresh`."""
  spec = getattr(model, 'spec', None)
  if spec is None:
    return ()
  used = spec.parameter_shapes()
  return (*(name for name in spec.network.training_only if name not in used), *getattr(model, 'fresh', ()))


def start_state(trainer, restore_cfg, model_dir: str, example_batch):
  """Return (state, description of its origin).

  The state comes from the latest checkpoint in model_dir, else from restore_cfg.path, else it is initialized.

  Args:
    trainer: trainer.Trainer.
    restore_cfg: utils.RestoreCheckpointConfig, or None.
    model_dir: the run's folder.
    example_batch: any batch of the right shapes.
  """
  from mrmt3.engine.trainer import TrainState

  fresh, place = trainer.initial_state(example_batch), trainer.partitioner.place_state
  shardings = jax.tree.map(lambda x: x.sharding, fresh)
  step = orbax_checkpoints.latest_step(model_dir)
  if step is not None:
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), fresh.state_dict())
    tree = orbax_checkpoints.restore_state(orbax_checkpoints.checkpoint_folder(model_dir, step), like)
    return place(TrainState.from_state_dict(tree), shardings), f'resuming from checkpoint_{step}'
  if restore_cfg is not None:
    try:
      path = orbax_checkpoints.find_checkpoint(restore_cfg.path)
    except UserError:
      if not restore_cfg.fallback_to_scratch:
        raise
    else:
      params, step, lacking = restore(restore_cfg, path, fresh.params, _may_lack(trainer.model))
      every, there = flatten_dict(shardings.params), flatten_dict(params)
      placed = flatten_dict(place(params, unflatten_dict({keys: every[keys] for keys in there})))
      origin = f'weights of {restore_cfg.path} (step {step})' + ''.join(f', {name} fresh' for name in lacking)
      return fresh.replace(params=unflatten_dict({**flatten_dict(fresh.params), **placed})), origin
  return fresh, 'fresh weights'
