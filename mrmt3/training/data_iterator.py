"""Iterator over a data set's batches, with a position that can be saved and restored."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mrmt3.engine.utils import close_at_exit, user_errors
from mrmt3.errors import UserError, first_line

FILE = 'data'  # prefix of the files of a saved position
EXAMPLE_ID = 'example_id'


class DataIterator(Iterator):
  """Batches of a tf.data.Dataset as numpy trees.

  If the examples carry the feature `example_id`, a position is the serial number of a record and a number of examples
  to skip from there. Otherwise it is a symbolic checkpoint of tf.data. Symbolic checkpoints store where each stage of
  the pipeline is, not its contents, so Python functions in it (tf.numpy_function) must be pure.

  Attributes:
    waited: seconds spent in `next` so far.
  """

  def __init__(self, dataset, open_at: Callable | None = None):
    """Open the data set.

    Args:
      dataset: a tf.data.Dataset of batches.
      open_at: (serial number of a record, examples to skip) -> the data set from there on; None if it cannot be
        opened at a record.
    """
    self._open_at = open_at if EXAMPLE_ID in dataset.element_spec else None
    self._record, self._examples = 0, 0
    self._open(dataset)
    close_at_exit(self)
    self.waited = 0.0

  def _open(self, dataset):
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    # TensorFlow assumes that Python functions have state that cannot be saved; ours are pure.
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    self._iterator = iter(dataset.prefetch(2).with_options(options))

  def __next__(self) -> dict[str, np.ndarray]:
    start = time.perf_counter()
    try:
      with user_errors():
        batch = {name: value.numpy() for name, value in next(self._iterator).items()}
    finally:
      self.waited += time.perf_counter() - start
    if self._open_at is not None:
      self._count(batch[EXAMPLE_ID][:, 2])
    return batch

  def _count(self, records: np.ndarray) -> None:
    """Update the position: the record of the last example, and the number of examples already taken from it."""
    if records[-1] < 0:  # records without numbers: the position counts from the beginning
      self._record, self._examples = 0, self._examples + len(records)
      return
    of_last = int((np.cumsum((records != records[-1])[::-1]) == 0).sum())
    before = self._examples if of_last == len(records) and self._record == records[-1] else 0
    self._record, self._examples = int(records[-1]), before + of_last

  def save(self, name: str = FILE) -> dict[str, bytes]:
    """Return the position after the last batch, as {file name: content}; the file names begin with `name`.

    Empty if TensorFlow cannot save the position, for example that of a Python generator.
    """
    if self._open_at is not None:
      return {f'{name}.json': json.dumps({'record': self._record, 'examples': self._examples}).encode()}
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
      try:
        tf.train.Checkpoint(iterator=self._iterator).write(str(Path(folder) / name))
      except tf.errors.UnimplementedError:
        return {}
      return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}

  def restore(self, folder: Path, name: str = FILE) -> None:
    """Restore the position from the files `name`.* in `folder`.

    Raises:
      UserError: the files are missing, unreadable, or of another data set.
    """
    if self._open_at is not None:
      try:
        saved = json.loads((folder / f'{name}.json').read_text())
        self._record, self._examples = int(saved['record']), int(saved['examples'])
      except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{folder}: cannot take up the position in the data ({first_line(error)})') from error
      self._open(self._open_at(self._record, self._examples))
      return
    import tensorflow as tf

    try:
      tf.train.Checkpoint(iterator=self._iterator).read(str(folder / name)).assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
      raise UserError(f'{folder}: cannot take up the position in the data ({first_line(error)})') from error

  def close(self) -> None:
    """Stop the pipeline's threads, which could otherwise block the interpreter's exit."""
    self._iterator = None


def zero_batch(dataset) -> dict[str, np.ndarray]:
  """Return a batch of zeros with the data set's shapes and dtypes, without reading the data."""
  specs = {name: spec for name, spec in dataset.element_spec.items() if name != EXAMPLE_ID}
  return {name: np.zeros([n or 0 for n in spec.shape], spec.dtype.as_numpy_dtype) for name, spec in specs.items()}


def split_ids(batch: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
  """Return (model features, example ids); the ids are the feature `example_id`, or None if there is none."""
  features = dict(batch)
  return features, features.pop(EXAMPLE_ID, None)


def readable_ids(ids: np.ndarray, piece_names: Sequence[str] = ()) -> list[str] | None:
  """Return a readable name for each example, or None if the ids are unknown.

  Args:
    ids: int `[examples, 2 or more]`, the piece's number and first frame (negative: unknown), or `[examples]` strings.
    piece_names: names of the pieces, by number.
  """
  if ids.dtype.kind not in 'iu':
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.ravel(ids)]
  if (ids[:, :2] < 0).any():
    return None
  names = dict(enumerate(piece_names))
  return [f'{names.get(piece, f"piece {piece}")} from frame {frame}' for piece, frame, *_ in ids.tolist()]
