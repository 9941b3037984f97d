"""Initial weights of a network from another one that differs only in its memory."""

import dataclasses
from pathlib import Path

from mrmt3.checkpoints import conversion
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.network import T5Config


def write(source: Path, folder: Path, memory_length: int | None, seed: int) -> Path:
  """Write a checkpoint's weights with another L_agg to `folder` and return it. An existing checkpoint there is kept.

  A new memory gets random weights, and an unused memory is dropped. Another nonzero L_agg changes no weights. Weights
  that only training uses (the frame head) are kept.

  Args:
    source: a checkpoint_<step> folder, or a folder whose latest checkpoint is read.
    folder: output folder.
    memory_length: L_agg of the new network; None keeps the checkpoint's.
    seed: seed of the random weights.

  Raises:
    UserError: there is no checkpoint, or the folder cannot be written.
  """
  if orbax_checkpoints.latest_step(folder) is not None:
    return folder
  params, step = orbax_checkpoints.restore_target(orbax_checkpoints.find_checkpoint(source))
  spec = orbax_checkpoints.read_spec(source)
  # A network without memory of tokens has no decoder either: the run reports what starts fresh.
  if memory_length is not None and isinstance(spec.network, T5Config):
    network = spec.network.replace(memory_length=memory_length)
    params = {name: part for name, part in params.items() if memory_length or name != 'memory_encoder'}
    if memory_length and 'memory_encoder' not in params:
      params['memory_encoder'] = conversion.fresh_memory(network, seed)
    spec = dataclasses.replace(spec, network=network)
  orbax_checkpoints.save_checkpoint(folder, step, {'target': params}, spec)
  return folder
