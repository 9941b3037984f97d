"""Weights of one network as start for another that differs in its memory alone."""

import dataclasses
from pathlib import Path

from mrmt3.checkpoints import conversion
from mrmt3.checkpoints import orbax as orbax_checkpoints


def write(source: Path, folder: Path, memory_length: int | None, seed: int) -> Path:
  """Writes a checkpoint's weights with another L_agg into `folder`, and returns it; what is there is kept.

  A memory that is not in the checkpoint gets fresh weights, one that is not wanted is left out; L_agg from 32 to 64, say,
  changes no weights. What only training has (the frame head) is kept.

  Args:
    source: a checkpoint_<step> folder, or one of which the newest is taken.
    folder: to be written to.
    memory_length: L_agg of the network that starts from it; None: the checkpoint's own.
    seed: of fresh weights.

  Raises:
    UserError: there is no checkpoint, or the folder cannot be written.
  """
  if orbax_checkpoints.latest_step(folder) is not None:
    return folder
  params, step = orbax_checkpoints.restore_target(orbax_checkpoints.find_checkpoint(source))
  spec = orbax_checkpoints.read_spec(source)
  # A network without memory of tokens has no decoder either: the run tells what starts fresh.
  if memory_length is not None and hasattr(spec.network, 'memory_length'):
    network = spec.network.replace(memory_length=memory_length)
    params = {name: part for name, part in params.items() if memory_length or name != 'memory_encoder'}
    if memory_length and 'memory_encoder' not in params:
      params['memory_encoder'] = conversion.fresh_memory(network, seed)
    spec = dataclasses.replace(spec, network=network)
  orbax_checkpoints.save_checkpoint(folder, step, {'target': params}, spec)
  return folder
