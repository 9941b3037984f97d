"""Several processes ("hosts") that train or evaluate together, each with devices of its own.

Every host runs the same program. A jitted step is done by all of them together, so they have to come to it equally often
and with arrays of equal shapes; what only one of them sees (its data, a signal) is made known to all here. With one host
nothing here costs anything.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from mrmt3.errors import UserError


def initialise(address: str | None, count: int | None, index: int | None, timeout: int | None = None) -> None:
  """Connects this process with the others; on a TPU pod all arguments can be None, jax finds out by itself.

  Args:
    address: HOST:PORT of process 0.
    count: how many processes there are.
    index: which of them this is, from 0.
    timeout: seconds to wait for the others; None is jax's default.

  Raises:
    UserError: if they cannot be reached.
  """
  options = {} if timeout is None else {'initialization_timeout': timeout}
  try:
    jax.distributed.initialize(address, count, index, **options)
  except (RuntimeError, ValueError) as error:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(
        f'cannot connect process {index} of {count} with {address} ({reason}); start all of them with the same '
        '--coordinator_address and --process_count, and --process_index from 0'
    ) from error


def is_first() -> bool:
  """Returns whether this is the host that writes files and talks."""
  return jax.process_index() == 0


def count() -> int:
  """Returns how many hosts there are."""
  return jax.process_count()


def any_says(flag: bool) -> bool:
  """Returns whether the flag is set on any host; all of them have to ask."""
  return flag if jax.process_count() == 1 else bool(_from_all(np.array(flag)).any())


def _from_all(x: np.ndarray) -> np.ndarray:
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(x))


def texts_of_all(content: bytes) -> list[bytes]:
  """Returns what each host gives, in their order; all of them have to ask."""
  if jax.process_count() == 1:
    return [content]
  sizes = _from_all(np.array(len(content)))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(content)] = np.frombuffer(content, np.uint8)
  return [row[:size].tobytes() for row, size in zip(_from_all(padded), sizes.tolist(), strict=True)]


def same_batches(batches: Iterator[Mapping[str, np.ndarray]], like: Mapping[str, Sequence], dtypes: Mapping) -> Iterator[dict]:
  """Yields this host's batches, filled up with zeros so that all hosts have equally many, of equal shapes.

  Args:
    batches: of arrays `[rows, ...]`.
    like: shapes of a batch; where a host has no batch left, it yields zeros instead.
    dtypes: their dtypes.
  """
  if jax.process_count() == 1:
    yield from batches
    return
  names = sorted(like)
  for batch in itertools.chain(batches, itertools.repeat(None)):
    shapes = [np.shape(batch[name]) if batch else tuple(like[name]) for name in names]
    offers = _from_all(np.array([batch is not None, *itertools.chain(*shapes)], np.int64))
    if not offers[:, 0].any():
      return
    sizes = iter(offers[offers[:, 0] > 0].max(axis=0)[1:].tolist())
    largest = {name: tuple(itertools.islice(sizes, len(shape))) for name, shape in zip(names, shapes, strict=True)}
    yield {name: _fill(batch and batch[name], largest[name], dtypes[name]) for name in names}


def _fill(x, shape, dtype) -> np.ndarray:
  if x is None:
    return np.zeros(shape, dtype)
  return np.pad(x, [(0, size - n) for size, n in zip(shape, x.shape, strict=True)])


def on_every_host(tree):
  """Returns arrays that are spread over the devices of all hosts as whole numpy arrays."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def own_rows(x: jax.Array) -> np.ndarray:
  """Returns the rows of an array `[batch]` that belong to this host's examples."""
  if jax.process_count() == 1:
    return np.asarray(x)
  if x.is_fully_replicated:
    return np.split(np.asarray(x), jax.process_count())[jax.process_index()]
  shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
  return np.concatenate([np.asarray(shard.data) for shard in shards])
