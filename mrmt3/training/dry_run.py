"""Output of `--dry_run`: configuration, mesh, memory and the first batch as readable events. Nothing is compiled."""

import jax
import numpy as np

from mrmt3.special_tokens import EOS_ID, SPECIAL_TOKENS

MAX_EVENTS = 40


def show(model, batch, params_shapes, partitioner, params_bytes: int, optimizer_bytes: int = 0) -> None:
  """Print the operative config, the mesh, a memory estimate and a batch.

  Args:
    model: the model that would run.
    batch: this host's model features, numpy arrays `[batch, ...]`.
    params_shapes: tree of the parameters' shapes.
    partitioner: the run's partitioner.
    params_bytes: bytes of parameters per device.
    optimizer_bytes: bytes of optimizer state and gradients per device.
  """
  import gin

  print(gin.operative_config_str())
  print(
    f'mesh: {dict(partitioner.mesh.shape)}, {partitioner.mesh.size} device(s) of kind {jax.devices()[0].device_kind}'
  )
  count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params_shapes))
  copies = partitioner.mesh.shape['data'] // jax.process_count()  # replicas of the model on this host
  inputs = sum(np.asarray(x).nbytes for x in batch.values()) // copies
  total = params_bytes + optimizer_bytes + inputs
  print(
    f'memory: {count:,} parameters; per device: parameters {params_bytes / 1e6:.1f} MB, optimizer and gradients '
    f'{optimizer_bytes / 1e6:.1f} MB, batch {inputs / 1e6:.1f} MB, sum {total / 1e6:.1f} MB without activations'
  )
  for name, value in batch.items():
    print(f'{name}: {np.asarray(value).dtype} {list(np.shape(value))}')
  for name in ('prior_tokens', 'decoder_target_tokens'):
    if name in batch:
      print(f'first example, {name}: {readable(model, np.asarray(batch[name])[0])}')


def show_training(trainer, dataset, example_batch) -> float:
  """Show what a training would do; return NaN in place of a loss.

  Args:
    trainer: trainer.Trainer.
    dataset: tf.data.Dataset of batches.
    example_batch: any batch of the same shapes.
  """
  from mrmt3.training import data_iterator

  batches = data_iterator.DataIterator(dataset)
  try:
    batch, _ = data_iterator.split_ids(next(batches))
  finally:
    batches.close()
  params, moments, shapes = training_bytes(trainer, example_batch)
  show(
    trainer.model, batch, shapes, trainer.partitioner, params, moments + params
  )  # gradients are placed as parameters
  return float('nan')


def training_bytes(trainer, example_batch):
  """Return (bytes of parameters per device, bytes of optimizer state per device, the parameters' shapes)."""
  state = jax.eval_shape(trainer.initial_state_unplaced, example_batch)
  shardings = trainer.shardings(state, example_batch)
  return tree_bytes(state.params, shardings.params), tree_bytes(state.opt_state, shardings.opt_state), state.params


def tree_bytes(tree, shardings=None) -> int:
  """Return the bytes of a tree of arrays (or ShapeDtypeStructs): per device with shardings, in total without."""
  leaves = jax.tree.leaves(tree)
  places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
  shapes = [x.shape if place is None else place.shard_shape(x.shape) for x, place in zip(leaves, places, strict=True)]
  return sum(int(np.prod(shape)) * np.dtype(x.dtype).itemsize for x, shape in zip(leaves, shapes, strict=True))


def readable(model, tokens: np.ndarray) -> str:
  """Return tokens, int `[..., length]`, as event names if the model has a vocabulary, else as numbers."""
  ids = [int(token) for token in tokens.reshape(-1) if token][: MAX_EVENTS + 1]
  spec = getattr(model, 'spec', None)
  if spec is None:
    words = [str(i) for i in ids]
  else:
    from mrmt3 import vocabularies

    codec = vocabularies.build_codec(spec.vocabulary)
    words = [_name(codec, i) for i in ids]
  return ' '.join(words[:MAX_EVENTS]) + (' ...' if len(words) > MAX_EVENTS else '')


def _name(codec, model_id: int) -> str:
  if model_id < SPECIAL_TOKENS:
    return {EOS_ID: 'EOS'}.get(model_id, 'unknown')
  if model_id - SPECIAL_TOKENS >= codec.num_classes:
    return 'unused'
  event = codec.decode_event_index(model_id - SPECIAL_TOKENS)
  return f'{event.type}:{event.value}'


def show_prediction(model, dataset_cfg, partitioner, paths) -> dict:
  """Show what an evaluation or inference would do; return an empty result."""
  from mrmt3.engine import utils
  from mrmt3.training import restore

  task_ds = utils.task_examples(utils.resolve_task(dataset_cfg), dataset_cfg, 0, 1)
  model_ds = model.FEATURE_CONVERTER_CLS(pack=False)(task_ds, dict(dataset_cfg.task_feature_lengths))
  batch = next(utils.iterate(model_ds.padded_batch(dataset_cfg.batch_size).take(1)))
  shapes, types = {k: x.shape for k, x in batch.items()}, {k: x.dtype for k, x in batch.items()}
  params = restore.parameter_shapes(model, shapes, types)
  show(model, batch, params, partitioner, tree_bytes(params))  # every device has all parameters
  print('checkpoints: ' + ', '.join(str(path) for path in paths))
  return {}
