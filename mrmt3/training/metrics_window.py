"""The numbers of a run between two reports: what is still to be reported, how fast it went, whether it is still sound."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mrmt3.engine import trainer
from mrmt3.errors import UserError
from mrmt3.training import data_iterator, multihost

MOST_IDS = 8  # examples named in a message


class RunLog:
  """Collects what steps return, without waiting for them, until it is asked.

  Attributes:
    rows: numbers of the steps that are not reported yet and have been looked at, as floats.
  """

  def __init__(
    self,
    batch_size: int,
    step: int,
    rows: Sequence[Mapping[str, float]] = (),
    piece_names: Callable[[], Sequence[str]] = tuple,
  ):
    """Makes an empty log.

    Args:
      batch_size: examples a step.
      step: steps done.
      rows: what a checkpoint says of steps that are not reported yet.
      piece_names: returns the names of the pieces that examples are cut from, by number.
    """
    self._batch_size, self._step, self._piece_names = batch_size, step, piece_names
    self.rows = [dict(row) for row in rows]
    self._new, self._ids = [], []
    self._start, self._waited, self._timed = time.perf_counter(), 0.0, 0

  def add(self, numbers: Mapping[str, jax.Array], ids: np.ndarray | None) -> None:
    """Adds a step's numbers and the ids of its examples, where they are known; see `data_iterator.readable_ids`."""
    self._new.append(numbers)
    self._ids.append(ids)

  def check(self) -> None:
    """Waits for the steps so far; UserError naming step and examples of the first loss that is not a number."""
    new = trainer.as_floats(self._new)
    for row, numbers, ids in zip(new, self._new, self._ids, strict=True):
      self._step += 1
      for name in ('loss', 'gradient_norm'):
        if not math.isfinite(row[name]):
          examples = self._examples(multihost.own_rows(numbers[trainer.EXAMPLE_LOSS]), ids)
          raise UserError(
            f'the {name} is {row[name]} at step {self._step}, {examples}; look at these, or lower the learning rate '
            'and start again: the last checkpoint is sound'
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
    named = (', ' if kind != 'examples' else '; ').join(ids[row] for row in chosen[:MOST_IDS])
    return f'{kind} {named}' + (f' and {len(chosen) - MOST_IDS} more' if len(chosen) > MOST_IDS else '')

  def report(self, waited: float) -> dict[str, float]:
    """Returns the summary of the steps since the last report, and begins anew.

    Args:
      waited: seconds that the run has waited for data, from its start.
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
    """Returns the time, to be handed to `go_on` after something that is not training (an evaluation)."""
    self.check()
    return time.perf_counter()

  def go_on(self, since: float) -> None:
    """Takes the time since `pause` out of the speed."""
    self._start += time.perf_counter() - since
