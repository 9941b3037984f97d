"""A run's position in its training data, which is saved with each checkpoint and restored on resume."""

import json
import sys
from collections.abc import Mapping

import jax
import seqio

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.training import multihost
from mrmt3.training.data_iterator import FILE, DataIterator

PROGRESS_NAME = 'progress.json'
_ORDER = 'records 1'  # change this when the order of examples for a seed, or the format of a position, changes


def data_fingerprint(config, seed: int) -> str:
  """Return a text that is equal for data sets that share positions.

  Args:
    config: utils.DatasetConfig.
    seed: the run's seed, for a config without one.
  """
  lengths = dict(sorted(config.task_feature_lengths.items()))
  seed = seed if config.seed is None else config.seed
  # Our sources have a fingerprint of their files; of other sources only the name is known.
  provider = config.mixture_or_task_name
  provider = seqio.get_mixture_or_task(provider) if isinstance(provider, str) else provider
  fingerprint = getattr(getattr(provider, 'source', None), 'fingerprint', None)
  files = fingerprint(config.split) if fingerprint else ''
  named = (
    str(config.mixture_or_task_name),
    files,
    lengths,
    config.split,
    config.batch_size,
    config.shuffle,
    seed,
    _ORDER,
  )
  shares = jax.process_count()
  return repr(named if shares == 1 else (*named, f'{shares} hosts'))


def position_files(batches: DataIterator, rows: list, fingerprint: str) -> dict[str, bytes]:
  """Return the files that `restore_position` reads, as {file name: content}; every host must call this.

  Args:
    batches: this host's iterator.
    rows: metrics of the steps since the last report.
    fingerprint: `data_fingerprint` of the data.
  """
  own = {name: content.hex() for name, content in batches.save(_name()).items()}
  files = {PROGRESS_NAME: json.dumps({'rows': rows, 'data': fingerprint, 'position': bool(own)}).encode()}
  for text in multihost.gather_bytes(json.dumps(own).encode()):
    files |= {name: bytes.fromhex(content) for name, content in json.loads(text).items()}
  return files


def _name() -> str:
  """Return the prefix of this host's position files."""
  return FILE if multihost.is_first() else f'{FILE}-host{jax.process_index()}'


def restore_position(batches: DataIterator, model_dir: str, step: int, fingerprint: str) -> list[Mapping[str, float]]:
  """Restore `batches` to the position saved with a step's checkpoint; return its metrics not yet reported.

  If the checkpoint has no position, or one in other data, the data starts from the beginning, with a line on stderr.
  """
  folder = orbax_checkpoints.checkpoint_folder(model_dir, step)
  try:
    progress = json.loads((folder / PROGRESS_NAME).read_text())
    saved, rows, has_position = progress['data'], progress['rows'], progress.get('position', True)
  except (OSError, ValueError, KeyError, TypeError):
    saved, rows = None, []
  if saved != fingerprint:
    reason = 'has no position in the data' if saved is None else 'is of a run with other data'
    if multihost.is_first():
      print(f'checkpoint_{step} {reason}; the data starts from the beginning', file=sys.stderr, flush=True)
    return []
  if not has_position:
    if multihost.is_first():
      print(
        f'checkpoint_{step}: TensorFlow could not save the position in this data; the data starts from the beginning',
        file=sys.stderr,
        flush=True,
      )
    return rows
  batches.restore(folder, _name())
  return rows
