"""Where a run stands in its data: saved with each checkpoint, taken up by the run that goes on."""

import json
import sys
from collections.abc import Mapping

import jax
import seqio

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.training import multihost
from mrmt3.training.data_iterator import FILE, DataIterator

PROGRESS_NAME = 'progress.json'
_ORDER = 'records 1'  # to be changed with the order of a seed's examples, or what a position consists of


def data_fingerprint(config, seed: int) -> str:
  """Returns a text that is the same for data sets between which a position can be carried over."""
  lengths = dict(sorted(config.task_feature_lengths.items()))
  seed = seed if config.seed is None else config.seed
  # Our sources tell when files have changed; of others the name has to do.
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
  """Returns what `take_up` needs, as contents of files by name: the positions of all hosts, numbers not reported yet.

  All hosts have to ask.
  """
  own = {name: content.hex() for name, content in batches.save(_name()).items()}
  files = {PROGRESS_NAME: json.dumps({'rows': rows, 'data': fingerprint, 'position': bool(own)}).encode()}
  for text in multihost.texts_of_all(json.dumps(own).encode()):
    files |= {name: bytes.fromhex(content) for name, content in json.loads(text).items()}
  return files


def _name() -> str:
  """Returns what this host's files of a position begin with."""
  return FILE if multihost.is_first() else f'{FILE}-host{jax.process_index()}'


def take_up(batches: DataIterator, model_dir: str, step: int, fingerprint: str) -> list[Mapping[str, float]]:
  """Moves `batches` to where the checkpoint of a step left the data; returns its numbers that are not reported yet.

  A checkpoint without a position, or one of other data, is passed over with a line on stderr: then the data begins anew.
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
      print(f'checkpoint_{step} {reason}; the data begins anew', file=sys.stderr, flush=True)
    return []
  if not has_position:
    if multihost.is_first():
      print(
        f'checkpoint_{step}: TensorFlow could not tell the position in this data; it begins anew',
        file=sys.stderr,
        flush=True,
      )
    return rows
  batches.restore(folder, _name())
  return rows
