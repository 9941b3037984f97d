"""Several processes ("hosts") that train or evaluate together, each with devices of its own.

Every host runs the same program. A jitted step is done by all of them together, so they have to come to it equally often
and with arrays of equal shapes; what only one of them sees (its data, a signal) is made known to all here. With one host
nothing here costs anything.
"""

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from mrmt3.errors import UserError, first_line
from mrmt3.training import heartbeat

_TIMEOUT = 300  # s, jax's own


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
  if address is not None:
    # Else jax would, under SLURM, give each process one device of its host.
    options['cluster_detection_method'] = 'deactivate'
  try:
    if address is None:
      address, count, index = _detect(timeout or _TIMEOUT)
    reached_at = address
    if address and index:
      # jax ends the process with a stack trace where nobody is there
      _wait_for(address, index, count, timeout or _TIMEOUT)
      reached_at = heartbeat.relay(address)
    jax.distributed.initialize(
      reached_at, count, index, heartbeat_timeout_seconds=heartbeat.HEARTBEAT_SECONDS, **options
    )
  except (RuntimeError, ValueError) as error:
    raise _not_connected(address, count, index, first_line(error)) from error
  if jax.process_count() > 1:
    heartbeat.Watch()


def _detect(timeout: int) -> tuple[str | None, int | None, int | None]:
  """Returns what `initialise` takes, as jax finds it out from the cluster; None where it does not know."""
  from jax._src import clusters  # in public, jax finds it out only while it connects

  known = os.environ.get('JAX_COORDINATOR_ADDRESS')
  return clusters.ClusterEnv.auto_detect_unset_distributed_params(known, None, None, None, None, timeout)[:3]


def _wait_for(address: str, index: int, count: int, timeout: int) -> None:
  """Returns when something listens at the address; UserError if nothing does in so many seconds."""
  host, _, port = address.rpartition(':')
  until = time.monotonic() + timeout
  while True:
    try:
      with socket.create_connection((host, int(port)), timeout=timeout):
        return
    except ValueError:
      raise _not_connected(address, count, index, 'the address is not HOST:PORT') from None
    except OSError as error:
      if time.monotonic() > until:
        raise _not_connected(address, count, index, error.strerror or str(error)) from error
      time.sleep(0.2)


def _not_connected(address, count, index, reason: str) -> UserError:
  return UserError(
    f'cannot connect process {index} of {count} with {address} ({reason}); start all of them with the same '
    '--coordinator_address and --process_count, and --process_index from 0'
  )


def leave() -> None:
  """Ends the connection when all are done; a host that just ended would take the others down."""
  if heartbeat.Watch.running is not None:
    heartbeat.Watch.running.end()
  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


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


def same_batches(
  batches: Iterator[Mapping[str, np.ndarray]], like: Mapping[str, Sequence], dtypes: Mapping
) -> Iterator[dict]:
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


def whole(tree):
  """Returns arrays, some of which may be split over devices, so that every host has all of them; all have to ask."""
  leaves = jax.tree.leaves(tree)
  if jax.process_count() == 1 or all(x.is_fully_replicated for x in leaves):
    return tree
  mesh = next(x.sharding.mesh for x in leaves if not x.is_fully_replicated)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.jit(lambda arrays: arrays, out_shardings=everywhere)(tree)


def own_rows(x: jax.Array) -> np.ndarray:
  """Returns the rows of an array `[batch]` that belong to this host's examples."""
  if jax.process_count() == 1:
    return np.asarray(x)
  if x.is_fully_replicated:
    return np.split(np.asarray(x), jax.process_count())[jax.process_index()]
  # With model parallelism several devices have the same rows.
  rows = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])
