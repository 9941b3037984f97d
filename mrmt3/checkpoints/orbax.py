"""Checkpoints on disk.

    <model_dir>/checkpoint_<step>/model.json   the ModelSpec
    <model_dir>/checkpoint_<step>/data.*       where the run stood in its data, see training/data_iterator.py
    <model_dir>/checkpoint_<step>/state/       Orbax PyTree {target: parameters, state: {step, param_states}}, as t5x

Checkpoints of `packed`, made to be given away, and t5x's own are read too.

A checkpoint appears under its name when all of it has been written.
"""

import contextlib
import errno
import logging
import math
import os
import re
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.checkpoints import limits, packed, published, spec_json, t5x_legacy, zarr_checks
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError, first_line
from mrmt3.nn.parameters import without_training_only
from mrmt3.utils import bounded_files, strict_json
from mrmt3.utils.files import make_folder

SPEC_NAME = 'model.json'
STATE_NAME = 'state'

_WRITING, _REMOVING = '.writing_', '.removing_'
_METADATA, _MAX_METADATA_BYTES = '_METADATA', 1 << 24
_FOLDER = re.compile(r'checkpoint_(\d+)')
_REMOVAL_ATTEMPTS, _REMOVAL_PAUSE = 100, 0.1  # s
_ABSENCES = 8  # how often in a row a folder must be gone
_DATA_FILE_BYTES = 1 << 24  # Orbax keeps what goes into a file in memory until it is full


def checkpoint_folder(model_dir: str | os.PathLike, step: int) -> Path:
  """Return where the checkpoint of a step lies."""
  return Path(model_dir) / f'checkpoint_{step}'


def checkpoint_steps(model_dir: str | os.PathLike) -> list[int]:
  """Return the steps that have a checkpoint in `model_dir`, ascending; none if there is no such folder."""
  try:
    names = os.listdir(model_dir)
  except OSError:
    return []
  return sorted(int(match[1]) for match in map(_FOLDER.fullmatch, names) if match)


def latest_step(model_dir: str | os.PathLike) -> int | None:
  """Return the newest step with a checkpoint in `model_dir`, or None."""
  steps = checkpoint_steps(model_dir)
  return steps[-1] if steps else None


def save_checkpoint(
  model_dir: str | os.PathLike,
  step: int,
  state,
  spec: ModelSpec | None,
  more_files: Mapping[str, bytes] = types.MappingProxyType({}),
) -> Path:
  """Write a checkpoint and return its folder; one of the same step is replaced.

  Args:
    model_dir: made if missing.
    step: training steps done.
    state: PyTree of arrays with the parameters under 'target'.
    spec: what the parameters belong to; None for a model that is not mrmt3's, then there is no model.json.
    more_files: contents of further files by name: what a run needs to go on.

  Raises:
    UserError: if it cannot be written; nothing is left behind then.
  """
  folder = checkpoint_folder(make_folder(model_dir), step)
  clear_unfinished(model_dir)
  temporary, failed = None, True
  try:
    temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder.parent))
    if spec is not None:
      (temporary / SPEC_NAME).write_text(spec_json.to_json(spec), encoding='utf-8')
    for name, content in more_files.items():
      (temporary / name).write_bytes(content)
    with _quiet_orbax(), _checkpointer() as checkpointer:
      _save(checkpointer, temporary.absolute() / STATE_NAME, state)
    temporary.chmod(0o755)
    _remove(folder)
    temporary.replace(folder)
    failed = False
  except (OSError, ValueError, RuntimeError) as error:  # tensorstore reports a full disk as a ValueError
    raise UserError(f'cannot write {folder}: {_reason(error)}') from error
  finally:
    if temporary is not None and failed:
      _remove_busy(temporary)
  return folder


def _reason(error: Exception) -> str:
  """Return why a checkpoint cannot be written, and what to do if the disk is full."""
  text = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
  full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT) or 'RESOURCE_EXHAUSTED' in text
  return 'no space left on the disk; free some, and run the same command again to resume' if full else text


def _remove_busy(folder: Path) -> None:
  """Remove a folder, also if threads of Orbax are still writing: after one has failed, others make it anew."""
  absent = 0
  for _ in range(_REMOVAL_ATTEMPTS):
    if not folder.exists():
      absent += 1
    else:
      absent = 0
      shutil.rmtree(folder, ignore_errors=True)
    if absent == _ABSENCES:
      return
    time.sleep(_REMOVAL_PAUSE)


def remove_old(model_dir: str | os.PathLike, keep: int) -> None:
  """Remove all but the `keep` newest checkpoints (at least one is kept)."""
  for step in checkpoint_steps(model_dir)[: -max(1, keep)]:
    _remove(checkpoint_folder(model_dir, step))


def clear_unfinished(model_dir: str | os.PathLike) -> None:
  """Remove what a run that was killed had begun to write or to remove."""
  for prefix in (_WRITING, _REMOVING):
    for left_over in Path(model_dir).glob(f'{prefix}*'):
      shutil.rmtree(left_over, ignore_errors=True)


def _remove(folder: Path) -> None:
  """Remove a checkpoint; it loses its name first, so that nobody ever finds half of one."""
  if folder.exists():
    leaving = Path(tempfile.mkdtemp(prefix=_REMOVING, dir=folder.parent))
    folder.replace(leaving)
    shutil.rmtree(leaving, ignore_errors=True)


# The bundled model: its name and place, and the name that it had before.
BUNDLED = 'framewise'
BUNDLED_FOLDER = Path(__file__).parent.parent / 'weights' / BUNDLED
_ALIASES = (BUNDLED, 'box')


def find_checkpoint(path: str | os.PathLike) -> Path:
  """Return the checkpoint folder that `path` names: itself, or the newest one in it; UserError if there is none.

  A path that does not exist may be the name of the bundled model, `BUNDLED`, or of a published checkpoint that
  `mrmt3 fetch` has put into the cache.
  """
  path = Path(path)
  if str(path) in _ALIASES and not os.path.exists(path):
    path = BUNDLED_FOLDER
  fetched = None if os.path.exists(path) else published.folder_of(path)
  if fetched is not None:
    if latest_step(fetched) is None:
      raise UserError(f'{path} is a published checkpoint that is not here yet; run `mrmt3 fetch {path}`')
    path = fetched
  if os.path.isdir(path / STATE_NAME) or t5x_legacy.is_legacy(path) or packed.is_packed(path):
    return path
  step = latest_step(path)
  if step is not None:
    return find_checkpoint(checkpoint_folder(path, step))
  if not os.path.exists(path):  # unlike Path.exists, also for a name that is too long
    raise UserError(
      f'{path}: no such checkpoint; name a checkpoint_<step> folder, the folder that holds it, or a published one '
      '(`mrmt3 fetch --list`)'
    )
  raise UserError(
    f'{path}: not a checkpoint; one has {SPEC_NAME} and {STATE_NAME}/ in it, or checkpoint_<step> folders'
  )


def read_spec(path: str | os.PathLike) -> ModelSpec:
  """Return the specification of the checkpoint that `path` names. UserError if there is none or it is broken."""
  file = find_checkpoint(path) / SPEC_NAME
  try:
    return spec_json.from_json(bounded_files.read_bytes(file, strict_json.MAX_BYTES).decode())
  except FileNotFoundError as error:
    folder = file.parent
    raise UserError(f'{folder} has no {SPEC_NAME}; run `mrmt3 convert {folder} DST` and use DST') from error
  except (OSError, ValueError) as error:
    raise UserError(f'cannot read {file}: {getattr(error, "strerror", None) or first_line(error)}') from error
  except UserError as error:
    raise UserError(f'{file}: {error}') from error


def restore_params(path: str | os.PathLike) -> tuple[dict, ModelSpec, int]:
  """Read the parameters only, not the optimizer's state.

  Args:
    path: a checkpoint_<step> folder, or a model_dir of which the newest is taken.

  Returns:
    (parameter tree of float32 numpy arrays, specification, step). The step is 0 if the folder has been renamed.

  Raises:
    UserError: if there is no checkpoint, or it is broken or does not fit its specification.
  """
  folder = find_checkpoint(path)
  spec = read_spec(folder)
  params, step = restore_target(folder)
  shapes = spec.parameter_shapes()
  params = without_training_only(params, shapes, spec.network.training_only)
  check_shapes(shapes, params, folder)
  return params, spec, step


def restore_target(path: str | os.PathLike) -> tuple[dict, int]:
  """As `restore_params` for any model, without its specification: returns (parameter tree, step), shapes unchecked.

  Reads checkpoints of t5x too, before and since Orbax.
  """
  folder = find_checkpoint(path)
  if t5x_legacy.is_legacy(folder):
    return t5x_legacy.read_params(folder)
  if packed.is_packed(folder):
    return packed.read_params(folder), _step_of(folder)
  with _reading(folder), _checkpointer() as checkpointer:
    params = _target(checkpointer, folder)
  return params, _step_of(folder)


def _target(checkpointer, folder: Path):
  stored = _check_folder(folder)
  metadata = checkpointer.metadata((folder / STATE_NAME).absolute()).item_metadata
  tree = {} if metadata is None else metadata.tree
  if not isinstance(tree, Mapping) or not isinstance(tree.get('target'), Mapping) or not tree['target']:
    raise UserError(f'{folder}: {STATE_NAME}/ holds no parameters; it is broken or was not copied as a whole')
  _check_arrays(tree['target'], stored)
  return _restore(checkpointer, folder, {'target': tree['target']}, partial=True)['target']


def _check_folder(folder: Path) -> int:
  """Return the bytes of a checkpoint's folder; ValueError if it leads elsewhere, or its metadata is not plausible."""
  stored = limits.folder_bytes(folder)
  metadata = folder / STATE_NAME / _METADATA
  if metadata.is_file():
    tree = strict_json.loads(bounded_files.read_bytes(metadata, _MAX_METADATA_BYTES), _MAX_METADATA_BYTES)
    for entry in tree['tree_metadata'].values():
      limits.check_path(str(key['key']) for key in entry['key_metadata'])
  zarr_checks.check_codecs(folder / STATE_NAME)
  return stored


def _check_arrays(tree, stored: int) -> None:
  """Raise ValueError unless the arrays of a metadata tree are numbers that `stored` bytes can hold."""
  import jax

  declared = 0
  for leaf in jax.tree.leaves(tree):
    shape, dtype = getattr(leaf, 'shape', None), getattr(leaf, 'dtype', None)
    if shape is None or dtype is None:
      raise ValueError('something under target is not an array')
    declared += math.prod(shape) * np.dtype(dtype).itemsize
    storage = getattr(leaf, 'storage', None)
    if storage is not None and storage.chunk_shape is not None:
      limits.check_expansion(math.prod(storage.chunk_shape) * np.dtype(dtype).itemsize, stored)
  limits.check_expansion(declared, stored)


def _step_of(folder: Path) -> int:
  match = _FOLDER.fullmatch(folder.absolute().name)
  return int(match[1]) if match else 0


def restore_state(path: str | os.PathLike, like):
  """Read a whole state, bit for bit, into numpy arrays.

  Args:
    path: a checkpoint_<step> folder, or a model_dir of which the newest is taken.
    like: a PyTree of the same structure and shapes; its values are not looked at.

  Returns:
    a PyTree like `like`.

  Raises:
    UserError: if there is no checkpoint, or it is broken or of another structure.
  """
  folder = find_checkpoint(path)
  with _reading(folder), _checkpointer() as checkpointer:
    _check_folder(folder)
    state = _restore(checkpointer, folder, like, partial=False)
  check_shapes(like, state, folder)
  return state


def _checkpointer():
  import jax
  import orbax.checkpoint as ocp

  if jax.process_count() == 1:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
  # Each process does all of its reading or writing alone, and waits for no other.
  alone = ocp.options.MultiprocessingOptions(
    primary_host=jax.process_index(),
    active_processes={jax.process_index()},
    barrier_sync_key_prefix=str(jax.process_index()),
  )
  handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
  return ocp.Checkpointer(handler, multiprocessing_options=alone)


class _SavedInPlace(np.ndarray):
  """An array that Orbax, which copies all that it is given before it writes, does not copy: saving here blocks."""

  def __deepcopy__(self, memo):
    return self


def _save(checkpointer, path: Path, state) -> None:
  import jax
  import orbax.checkpoint as ocp

  state = jax.tree.map(lambda x: x.view(_SavedInPlace) if isinstance(x, np.ndarray) else x, state)
  checkpointer.save(path, ocp.args.PyTreeSave(state, ocdbt_target_data_file_size=_DATA_FILE_BYTES))


def _restore(checkpointer, folder: Path, item, partial: bool):
  import jax
  import orbax.checkpoint as ocp

  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
  arguments = ocp.args.PyTreeRestore(item=item, restore_args=as_numpy, partial_restore=partial)
  return checkpointer.restore((folder / STATE_NAME).absolute(), arguments)


@contextlib.contextmanager
def _quiet_orbax():
  """Keep Orbax from logging, and from printing tracebacks. What it raises is raised.

  Without trouble, it logs that numpy arrays have no sharding. After the first array that cannot be read or written,
  each operation that is still under way prints a traceback, some of them after the block; so an error leaves it quiet.
  """
  loggers = [logging.getLogger('absl'), logging.getLogger('orbax')]
  levels = [logger.level for logger in loggers]
  report = sys.unraisablehook

  def report_others(unraisable):
    if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == 'Event loop is closed'):
      report(unraisable)

  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  sys.unraisablehook = report_others
  yield
  sys.unraisablehook = report
  for logger, level in zip(loggers, levels, strict=True):
    logger.setLevel(level)


@contextlib.contextmanager
def _reading(folder: Path):
  """Turn whatever a broken checkpoint makes Orbax raise into a UserError."""
  try:
    with _quiet_orbax():
      yield
  except UserError:
    raise
  except Exception as error:
    raise UserError(f'{folder}: cannot read the checkpoint, {first_line(error)}') from error


def check_shapes(wanted, found, folder: Path) -> None:
  """Raise UserError naming the first array that is missing, left over or of another shape."""
  import jax

  def shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): np.shape(leaf) for path, leaf in leaves}

  wanted, found = shapes(wanted), shapes(found)
  for name in sorted(wanted.keys() | found.keys()):
    if wanted.get(name) != found.get(name):
      raise UserError(
        f'{folder}: {name} is {found.get(name, "missing")}, expected {wanted.get(name, "none")}; '
        'was the checkpoint made with another configuration?'
      )
