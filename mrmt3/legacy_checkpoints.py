"""Reads checkpoints of t5x before Orbax, the published MT3 ones among them.

    checkpoint_<step>/checkpoint                 flax msgpack {version, optimizer: {target, state: {step, param_states}}}
    checkpoint_<step>/target.<name>.<name>/      the arrays, in zarr format

A leaf of the first is an array, or a tensorstore specification whose last path part names a folder beside it; where that
folder was when it was written does not matter.
"""

from pathlib import Path

import numpy as np

from mrmt3.errors import UserError

FILE = 'checkpoint'


def is_legacy(folder: Path) -> bool:
  """Returns whether a checkpoint folder is of this format."""
  return (folder / FILE).is_file()


def read_params(folder: Path) -> tuple[dict, int]:
  """Returns (parameter tree of float32 numpy arrays, step).

  Raises:
    UserError: if the checkpoint is broken or an array is missing.
  """
  from flax import serialization

  try:
    tree = serialization.msgpack_restore((folder / FILE).read_bytes())
    optimizer = tree['optimizer']
    target, step = optimizer['target'], int(np.asarray(optimizer['state']['step']))
  except Exception as error:
    reason = (str(error).splitlines() or [''])[0][:200] or type(error).__name__
    raise UserError(f'{folder / FILE}: not a checkpoint of t5x ({reason})') from error
  return _read(target, folder), step


def _read(node, folder: Path):
  if not isinstance(node, dict):
    return np.asarray(node, np.float32)
  if isinstance(node.get('driver'), str):
    return _read_array(node, folder)
  return {name: _read(value, folder) for name, value in node.items()}


def _read_array(spec: dict, folder: Path) -> np.ndarray:
  import tensorstore

  spec = spec.get('base', spec)  # of driver 'cast'
  store = spec.get('kvstore') or {}
  path = store.get('path') or spec.get('path') or ''
  place = folder / Path(path.rstrip('/')).name
  if not path or not place.is_dir():
    raise UserError(f'{folder}: the array {path or spec} is missing; was the checkpoint copied as a whole?')
  try:
    local = {'driver': spec['driver'], 'kvstore': {'driver': 'file', 'path': f'{place.absolute()}/'}}
    return np.asarray(tensorstore.open(local).result().read().result(), np.float32)
  except (ValueError, KeyError) as error:
    raise UserError(f'{place}: cannot read the array ({str(error).splitlines()[0][:200]})') from error
