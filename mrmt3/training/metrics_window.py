"""Metrics of a training run between two reports: loss and accuracy, speed, and the check for a finite loss."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mrmt3.engine import trainer
from mrmt3.errors import UserError
from mrmt3.training import data_iterator, multihost

MAX_IDS = 8  # examples named in a message


class MetricsWindow:
  """Collects the metrics of steps without waiting for the devices, until `check` or `report` is called.

  Attributes:
    rows: metrics of the checked steps since the last report, as floats.
  """

  def __init__(
    self,
    batch_size: int,
    step: int,
    rows: Sequence[Mapping[str, float]] = (),
    piece_names: Callable[[], Sequence[str]] = tuple,
  ):
    """Start a window.

    Args:
      batch_size: examples per step.
      step: steps done.
      rows: metrics restored from a checkpoint, of steps not yet reported.
      piece_names: returns the names of the pieces that examples are cut from, by number.
    """
    self._batch_size, self._step, self._piece_names = batch_size, step, piece_names
    self.rows = [dict(row) for row in rows]
    self._new, self._ids = [], []
    self._start, self._waited, self._timed = time.perf_counter(), 0.0, 0

  def add(self, numbers: Mapping[str, jax.Array], ids: np.ndarray | None) -> None:
    """Add a step's metrics and the ids of its examples, if known (see `data_iterator.readable_ids`)."""
    self._new.append(numbers)
    self._ids.append(ids)

  def check(self) -> None:
    """Wait for the steps so far.

    Raises:
      UserError: a loss or gradient norm is not finite; the message names the step and its examples.
    """
    new = trainer.as_floats(self._new)
    for row, numbers, ids in zip(new, self._new, self._ids, strict=True):
      self._step += 1
      for name in ('loss', 'gradient_norm'):
        if not math.isfinite(row[name]):
          examples = self._examples(multihost.own_rows(numbers[trainer.EXAMPLE_LOSS]), ids)
          raise UserError(
            f'the {name} is {row[name]} at step {self._step}, {examples}; check these examples, or lower the learning '
            'rate, and run the command again: it resumes from the last checkpoint, which is intact'
          )
    self.rows += new
    self._timed += len(new)
    self._new, self._ids = [], []

  def _examples(self, losses: np.ndarray, ids: np.ndarray | None) -> str:
    bad = np.flatnonzero(~np.isfinite(losses))
    chosen = bad if len(bad) else np.arange(len(losses))
    if ids is not None:
      ids = data_iterator.readable_ids(ids, self._piece_names())
    if ids is None:
      ids = [str((self._step - 1) * self._batch_size + row) for row in range(len(losses))]
      kind = 'examples (counted in the order of training, from 0)'
    else:
      kind = 'examples'
    named = (', ' if kind != 'examples' else '; ').join(ids[row] for row in chosen[:MAX_IDS])
    return f'{kind} {named}' + (f' and {len(chosen) - MAX_IDS} more' if len(chosen) > MAX_IDS else '')

  def report(self, waited: float) -> dict[str, float]:
    """Return the summary of the steps since the last report, and start a new window.

    Args:
      waited: seconds that the run has waited for data since its start.
    """
    self.check()
    summary = trainer.summarise(self.rows)
    seconds = max(time.perf_counter() - self._start, 1e-9)
    summary['examples_per_second'] = self._timed * self._batch_size / seconds
    summary['input_wait_share'] = min(1.0, (waited - self._waited) / seconds)
    self.rows, self._timed = [], 0
    self._start, self._waited = time.perf_counter(), waited
    return summary

  def pause(self) -> float:
    """Stop the clock, for example during an evaluation; return a time for `resume`."""
    self.check()
    return time.perf_counter()

  def resume(self, since: float) -> None:
    """Exclude the time since `pause` from the speed."""
    self._start += time.perf_counter() - since
