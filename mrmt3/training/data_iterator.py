"""A data set's batches, one by one, with a position that can be saved and taken up again."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mrmt3.engine.utils import close_at_exit, user_errors
from mrmt3.errors import UserError, first_line

FILE = 'data'  # what the files of a saved position begin with
EXAMPLE_ID = 'example_id'


class DataIterator(Iterator):
  """Batches of a tf.data.Dataset as numpy trees.

  A position is two numbers, where examples say from which record they can be had again (`preprocessors`, example_id), and the
  data set can be opened there. Else it is TensorFlow's: where every stage of the pipeline stands, not what is in it (tf.data's
  symbolic checkpoints). Functions in Python (tf.numpy_function) must follow from their arguments alone.

  Attributes:
    waited: seconds that the caller has spent in `next` so far.
  """

  def __init__(self, dataset, open_at: Callable | None = None):
    """Takes the data set, and a function from (serial number of a record, examples to leave out) to the data set from there on."""
    self._open_at = open_at if EXAMPLE_ID in dataset.element_spec else None
    self._record, self._examples = 0, 0
    self._open(dataset)
    close_at_exit(self)
    self.waited = 0.0

  def _open(self, dataset):
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_symbolic_checkpoint = True
    # Functions in Python count as having state that cannot be saved; ours have none.
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
    """Counts the examples that have come from the record with which the last one of them begins."""
    if records[-1] < 0:  # nobody has numbered them: all are to be made again
      self._record, self._examples = 0, self._examples + len(records)
      return
    of_last = int((np.cumsum((records != records[-1])[::-1]) == 0).sum())
    before = self._examples if of_last == len(records) and self._record == records[-1] else 0
    self._record, self._examples = int(records[-1]), before + of_last

  def save(self, name: str = FILE) -> dict[str, bytes]:
    """Returns the position behind the last batch that was handed out, as contents of files whose names begin with `name`.

    None at all where TensorFlow cannot tell it, as with records of a generator in Python.
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
    """Takes up the position whose files `name`.* lie in `folder`; UserError if they are not there or of another data set."""
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
    """Stops the pipeline's threads."""
    self._iterator = None


def zero_batch(dataset) -> dict[str, np.ndarray]:
  """Returns a batch of zeros with the dataset's shapes; reading a real one would do the first batch's work twice."""
  specs = {name: spec for name, spec in dataset.element_spec.items() if name != EXAMPLE_ID}
  return {name: np.zeros([n or 0 for n in spec.shape], spec.dtype.as_numpy_dtype) for name, spec in specs.items()}


def split_ids(batch: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
  """Returns (what the model takes, the examples' ids); ids, feature `example_id`, are None where the data has none."""
  features = dict(batch)
  return features, features.pop(EXAMPLE_ID, None)


def readable_ids(ids: np.ndarray, piece_names: Sequence[str] = ()) -> list[str] | None:
  """Returns a name for each example; None where nobody said which they are.

  Args:
    ids: `[examples, 2 or more]` numbers of pieces and first frames (negative: unknown), or `[examples]` names as strings.
    piece_names: by number.
  """
  if ids.dtype.kind not in 'iu':
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.ravel(ids)]
  if (ids[:, :2] < 0).any():
    return None
  names = dict(enumerate(piece_names))
  return [f'{names.get(piece, f"piece {piece}")} from frame {frame}' for piece, frame, *_ in ids.tolist()]
