"""Running a model's predict or score step over a data set, in batches, on all devices of all processes."""

import inspect
from collections.abc import Callable

import jax
import numpy as np

from mrmt3.engine.data_iterator import user_errors
from mrmt3.errors import UserError


class Predictor:
  """A jitted predict or score step with its parameters.

  Args:
    step: (params, batch) or (params, batch, rng) -> tree of arrays with leading batch axes; pure.
    params: the parameters, in place.
    batch_size: examples a call, over all devices; the last batch is filled up with zeros.
    partitioner: where batches go.
    seed: of `rng`.

  Of several processes each reads its share of the examples only, and all get all results.

  Attributes:
    params: the parameters; may be replaced.
  """

  def __init__(self, step: Callable, params, batch_size: int, partitioner, seed: int = 0):
    takes_rng = 'rng' in inspect.signature(step).parameters
    step_fn = step if takes_rng else lambda params, batch, rng: step(params, batch)
    self._step = jax.jit(step_fn, out_shardings=partitioner.replicated if jax.process_count() > 1 else None)
    self.params = params
    self._batch_size, self._partitioner, self._seed = batch_size, partitioner, seed

  def __call__(self, dataset) -> list[tuple[int, object]]:
    """Takes a tf.data.Dataset of (index, model features) and returns (index, the step's result for it), in its order."""
    if jax.process_count() > 1:
      return self._run_processes(dataset)
    results = []
    batches = dataset.padded_batch(self._batch_size)
    with user_errors():
      for number, (indices, batch) in enumerate(batches.as_numpy_iterator()):
        results += _rows(indices, self._run(number, batch, self._batch_size))
    return results

  def _run(self, number, batch, rows):
    filled = {name: _fill(x, rows) for name, x in batch.items()}
    rng = jax.random.fold_in(jax.random.key(self._seed), number)
    return jax.device_get(self._step(self.params, self._partitioner.place_batch(filled), rng))

  def _run_processes(self, dataset):
    """As `__call__`: every process reads every n-th example, in batches that all of them have in common."""
    from jax.experimental import multihost_utils

    processes, me = jax.process_count(), jax.process_index()
    local_size, total = self._batch_size // processes, int(dataset.cardinality())
    if total < 0:
      raise UserError('several processes can only predict a data set whose number of examples is known')
    batches = dataset.shard(processes, me).padded_batch(local_size).as_numpy_iterator()
    empty = {name: np.zeros((0, *(n or 0 for n in spec.shape)), spec.dtype.as_numpy_dtype) for name, spec in dataset.element_spec[1].items()}
    results = []
    with user_errors():
      for number in range(-(-total // self._batch_size)):
        indices, batch = next(batches, (np.zeros(0, np.int64), empty))
        # Pieces have different lengths, and so have the batches of the processes.
        shapes = {name: np.array(x.shape[1:], np.int32) for name, x in batch.items()}
        largest = {name: np.max(all_of, axis=0) for name, all_of in multihost_utils.process_allgather(shapes).items()}
        batch = {name: _grow(x, largest[name]) for name, x in batch.items()}
        result = self._run(number, batch, local_size)
        padded = np.pad(indices, (0, local_size - len(indices)), constant_values=-1)
        everyones = multihost_utils.process_allgather(padded.astype(np.int32)).reshape(-1)
        results += [pair for pair in _rows(everyones, result) if pair[0] >= 0]
    return sorted(results, key=lambda pair: pair[0])


def _rows(indices, result):
  return [(int(index), jax.tree.map(lambda x, row=row: x[row], result)) for row, index in enumerate(indices)]


def _grow(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
  return np.pad(x, [(0, 0), *((0, int(most) - n) for most, n in zip(shape, x.shape[1:], strict=True))])


def as_arrays(results: list[tuple[int, object]]):
  """Returns the results, ordered by index, as one tree of arrays `[examples, ...]`, padded with 0 to the longest."""
  ordered = [result for _, result in sorted(results, key=lambda pair: pair[0])]
  return jax.tree.map(lambda *rows: _stack(rows), *ordered)


def _stack(rows):
  if not np.ndim(rows[0]):
    return np.array(rows)
  shape = np.max([np.shape(row) for row in rows], axis=0)
  return np.stack([np.pad(row, [(0, most - n) for most, n in zip(shape, np.shape(row), strict=True)]) for row in rows])


def _fill(x: np.ndarray, rows: int) -> np.ndarray:
  return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def uniform(results: list[tuple[int, object]]) -> list[tuple[int, object]]:
  """Returns the results with all of one shape, as seqio's evaluator asks: padded with 0 to the longest."""
  if not results:
    return results
  stacked = as_arrays(results)
  return [(row, jax.tree.map(lambda x, row=row: x[row], stacked)) for row in range(len(results))]


def with_aux(run: Callable) -> Callable:
  """Turns a function that returns (index, (tokens, aux)) pairs into one that returns ((index, tokens) pairs, aux lists)."""

  def predict(dataset):
    results = run(dataset)
    names = results[0][1][1].keys() if results else ()
    return [(i, tokens) for i, (tokens, _) in results], {name: [aux[name] for _, (_, aux) in results] for name in names}

  return predict
