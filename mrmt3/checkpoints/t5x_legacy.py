"""Checkpoints of t5x before Orbax, such as the published MT3 checkpoints.

    checkpoint_<step>/checkpoint               Flax msgpack {version, optimizer: {target, state: {step, param_states}}}
    checkpoint_<step>/target.<name>.<name>/    the arrays, in zarr format

A leaf of the msgpack is an array, or a tensorstore spec whose last path component names a folder of the checkpoint. The
rest of its path, the location when it was written, is ignored.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.checkpoints import limits, zarr_checks
from mrmt3.errors import UserError, first_line
from mrmt3.utils import bounded_files
from mrmt3.utils.files import atomic_folder

FILE = 'checkpoint'

_VERSION = 3
_MAX_FILE_BYTES = 1 << 28  # places of the arrays and the small ones; the large ones lie in folders
_FACTORED = 128  # smallest dimension that Adafactor factors, as in MT3's configuration


def is_legacy(folder: Path) -> bool:
  """Return whether a checkpoint folder has this format."""
  return os.path.isfile(folder / FILE)


def read_params(folder: Path) -> tuple[dict, int]:
  """Read (parameter tree of float32 numpy arrays, step).

  Raises:
    UserError: the checkpoint is broken, or an array is missing.
  """
  from flax import serialization

  try:
    limits.folder_bytes(folder)
    tree = serialization.msgpack_restore(bounded_files.read_bytes(folder / FILE, _MAX_FILE_BYTES))
    optimizer = tree['optimizer']
    target, step = optimizer['target'], int(np.asarray(optimizer['state']['step']))
    if step < 0:
      raise ValueError(f'its step is {step}')
    _check_tree(target)
  except Exception as error:
    raise UserError(
      f'{folder / FILE}: not a checkpoint of t5x ({first_line(error)}); copy or download it again'
    ) from error
  return _read(target, folder), step


def _check_tree(target) -> None:
  """Raise ValueError unless the parameters are a tree of plain names, not deep, and arrays of numbers."""
  if not isinstance(target, dict) or not target or _is_spec(target):
    raise ValueError('it has no parameters')
  pending = [((), target)]
  while pending:
    path, node = pending.pop()
    if path:
      limits.check_path(path)
    if isinstance(node, dict) and not _is_spec(node):
      pending += [((*path, name), value) for name, value in node.items()]
    elif not isinstance(node, dict) and np.asarray(node).dtype.kind not in 'biufV':  # V: bfloat16
      raise ValueError(f'{"/".join(path)} is not an array')


def _is_spec(node: dict) -> bool:
  return isinstance(node.get('driver'), str)


def _read(node, folder: Path):
  if not isinstance(node, dict):
    return np.asarray(node, np.float32)
  if _is_spec(node):
    return _read_array(node, folder)
  return {name: _read(value, folder) for name, value in node.items()}


def _read_array(spec: dict, folder: Path) -> np.ndarray:
  import tensorstore

  spec = spec.get('base', spec)  # wrapped by the 'cast' driver
  store = spec.get('kvstore') or {} if isinstance(spec, dict) else {}
  path = store.get('path') or spec.get('path') if isinstance(store, dict) else None
  name = Path(path.rstrip('/')).name if isinstance(path, str) else ''
  array_folder = folder / name
  if name in ('', '..') or not array_folder.is_dir():
    raise UserError(f'{folder}: the array {name!r:.80} is missing; copy the complete checkpoint')
  try:
    if spec['driver'] != 'zarr':
      raise ValueError(f'it is of an unknown format, {spec["driver"]!r:.80}')
    zarr_checks.check_array(array_folder)
    local = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': f'{array_folder.absolute()}/'}}
    return np.asarray(tensorstore.open(local).result().read().result(), np.float32)
  except (ValueError, KeyError, TypeError, OSError, MemoryError) as error:
    raise UserError(
      f'{array_folder}: cannot read the array ({first_line(error)}); copy the checkpoint again'
    ) from error


def write_params(folder: Path, params: dict, step: int, more_files: Mapping[str, bytes]) -> None:
  """Write a parameter tree as a checkpoint folder of this format, atomically and one array at a time.

  The checkpoint includes the initial state of MT3's optimizer, Adafactor: t5x requires one to train from it.

  Args:
    folder: the checkpoint's folder.
    params: the parameter tree.
    step: number of training steps.
    more_files: contents of additional files by name.

  Raises:
    UserError: it cannot be written, or exists already.
  """
  import tensorstore
  from flax import serialization, traverse_util

  with atomic_folder(folder) as temporary:
    specs, states = {}, {}
    for path, array in traverse_util.flatten_dict(params).items():
      place = f'target.{".".join(path)}/'
      metadata = {'chunks': list(array.shape), 'compressor': {'id': 'gzip', 'level': 1}, 'shape': list(array.shape)}
      store = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': f'{temporary.absolute()}/{place}'}}
      try:
        tensorstore.open({**store, 'metadata': {**metadata, 'dtype': '<f4'}, 'create': True}).result().write(
          array
        ).result()
      except ValueError as error:  # such as a full disk
        raise OSError(first_line(error)) from error
      specs[path] = {
        'driver': 'zarr',
        'dtype': 'float32',
        'kvstore': {'driver': 'file', 'path': place},
        'metadata': metadata,
      }
      states[path] = _initial_state(array.shape)
    tree = {
      'target': traverse_util.unflatten_dict(specs),
      'state': {'step': np.int32(step), 'param_states': traverse_util.unflatten_dict(states)},
    }
    content = serialization.msgpack_serialize({'version': _VERSION, 'optimizer': tree})
    for name, data in {FILE: content, **more_files}.items():
      (temporary / name).write_bytes(data)


def _initial_state(shape: tuple[int, ...]) -> dict:
  """Return Adafactor's initial state of a parameter: zeros, factored if two dimensions are large."""
  state = {name: np.zeros(1, np.float32) for name in ('m', 'v', 'v_row', 'v_col')}
  order = np.argsort(shape)
  if len(shape) < 2 or shape[order[-2]] < _FACTORED:
    return {**state, 'v': np.zeros(shape, np.float32)}
  second, largest = order[-2], order[-1]
  rows, columns = np.delete(shape, largest), np.delete(shape, second)
  return {**state, 'v_row': np.zeros(rows, np.float32), 'v_col': np.zeros(columns, np.float32)}
