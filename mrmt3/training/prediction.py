"""Prediction over a data set: a model's predict or score step, in batches of one shape."""

import inspect
from collections.abc import Callable

import jax
import numpy as np

from mrmt3.engine.utils import user_errors
from mrmt3.training import multihost

_INDEX = 'index of the example'


class Predictor:
  """A jitted predict or score step with its parameters.

  Args:
    step: pure function (params, batch) or (params, batch, rng) -> tree of arrays `[batch, ...]`.
    params: the parameters, placed on the devices.
    batch_size: examples per call, over all hosts; the last batch is padded with zeros.
    partitioner: partitioning.PjitPartitioner.
    seed: seed of `rng`.

  Attributes:
    params: the parameters; may be replaced.
  """

  def __init__(self, step: Callable, params, batch_size: int, partitioner, seed: int = 0):
    takes_rng = 'rng' in inspect.signature(step).parameters
    self._step = jax.jit(step if takes_rng else lambda params, batch, rng: step(params, batch))
    self.params = params
    self._batch_size, self._partitioner, self._seed = batch_size, partitioner, seed

  def __call__(self, dataset) -> list[tuple[int, object]]:
    """Map a tf.data.Dataset of (index, model features) to a list of (index, result of the step), ordered by index.

    Several hosts share the work, and each gets all results.
    """
    results, rows = [], self._batch_size // multihost.count()
    own = dataset.shard(multihost.count(), jax.process_index()).padded_batch(rows)
    shapes = {name: (rows, *(n or 0 for n in spec.shape[1:])) for name, spec in own.element_spec[1].items()}
    dtypes = {name: spec.dtype.as_numpy_dtype for name, spec in own.element_spec[1].items()}

    def batches():
      for indices, batch in own.as_numpy_iterator():
        # Numbered from 1, so that 0 marks padding rows.
        yield {**{name: _fill(x, rows) for name, x in batch.items()}, _INDEX: _fill(indices + 1, rows)}

    with user_errors():
      shared = multihost.same_batches(batches(), {**shapes, _INDEX: (rows,)}, {**dtypes, _INDEX: np.int64})
      for number, batch in enumerate(shared):
        indices = multihost.gather_arrays(self._partitioner.place_batch(batch.pop(_INDEX).astype(np.int32)))
        rng = jax.random.fold_in(jax.random.key(self._seed), number)
        result = multihost.gather_arrays(self._step(self.params, self._partitioner.place_batch(batch), rng))
        found = [row for row in range(len(indices)) if indices[row]]
        results += [(int(indices[row]) - 1, jax.tree.map(lambda x, row=row: x[row], result)) for row in found]
    return sorted(results, key=lambda pair: pair[0])


def as_arrays(results: list[tuple[int, object]]):
  """Stack the results, ordered by index, into one tree of arrays `[examples, ...]`, zero-padded to the longest."""
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
  """Zero-pad all results to the longest one, since seqio's evaluator needs equal shapes."""
  if not results:
    return results
  stacked = as_arrays(results)
  return [(row, jax.tree.map(lambda x, row=row: x[row], stacked)) for row in range(len(results))]


def with_aux(run: Callable) -> Callable:
  """Adapt a function that returns (index, (tokens, aux)) pairs to return ((index, tokens) pairs, lists of aux)."""

  def predict(dataset):
    results = run(dataset)
    names = results[0][1][1].keys() if results else ()
    return [(i, tokens) for i, (tokens, _) in results], {name: [aux[name] for _, (_, aux) in results] for name in names}

  return predict
