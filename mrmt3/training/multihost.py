"""Training and evaluation with several processes ("hosts"), each with its own devices.

Every host runs the same program. A jitted step is a collective operation, so all hosts must run it equally often and
with equal shapes. The functions here exchange what only one host knows, such as its data or a signal. Functions that
communicate must be called by every host. With a single host they cost nothing.
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

_TIMEOUT = 300  # seconds, as in jax.distributed


def initialise(address: str | None, count: int | None, index: int | None, timeout: int | None = None) -> None:
  """Connect this process with the others. On a TPU pod all arguments can be None; JAX detects them.

  Args:
    address: HOST:PORT of process 0.
    count: number of processes.
    index: index of this process, from 0.
    timeout: seconds to wait for the others; None is JAX's default.

  Raises:
    UserError: the other processes cannot be reached.
  """
  options = {} if timeout is None else {'initialization_timeout': timeout}
  if address is not None:
    # With detection on, JAX under SLURM gives each process only one device of its host.
    options['cluster_detection_method'] = 'deactivate'
  try:
    if address is None:
      address, count, index = _detect(timeout or _TIMEOUT)
    reached_at = address
    if address and index:
      # JAX aborts with a stack trace if nothing listens at the address.
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
  """Return what `initialise` takes, as JAX detects it from the cluster; None for what it cannot detect."""
  from jax._src import clusters  # the public API detects them only while connecting

  known = os.environ.get('JAX_COORDINATOR_ADDRESS')
  return clusters.ClusterEnv.auto_detect_unset_distributed_params(known, None, None, None, None, timeout)[:3]


def _wait_for(address: str, index: int, count: int, timeout: int) -> None:
  """Return when something listens at the address; UserError if nothing does within `timeout` seconds."""
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
    f'cannot connect process {index} of {count} with {address} ({reason}); start all processes with the same '
    '--coordinator_address and --process_count, and with --process_index from 0'
  )


def leave() -> None:
  """Disconnect when all hosts are done; a host that exits earlier would take the others down."""
  if heartbeat.Watch.running is not None:
    heartbeat.Watch.running.end()
  if jax.distributed.is_initialized():
    jax.distributed.shutdown()


def is_first() -> bool:
  """Return whether this is the first host, which writes files and messages."""
  return jax.process_index() == 0


def count() -> int:
  """Return the number of hosts."""
  return jax.process_count()


def any_host(flag: bool) -> bool:
  """Return whether the flag is set on any host."""
  return flag if jax.process_count() == 1 else bool(_all_gather(np.array(flag)).any())


def _all_gather(x: np.ndarray) -> np.ndarray:
  from jax.experimental import multihost_utils

  return np.asarray(multihost_utils.process_allgather(x))


def gather_bytes(content: bytes) -> list[bytes]:
  """Return the contents of all hosts, in their order."""
  if jax.process_count() == 1:
    return [content]
  sizes = _all_gather(np.array(len(content)))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(content)] = np.frombuffer(content, np.uint8)
  return [row[:size].tobytes() for row, size in zip(_all_gather(padded), sizes.tolist(), strict=True)]


def same_batches(
  batches: Iterator[Mapping[str, np.ndarray]], like: Mapping[str, Sequence], dtypes: Mapping
) -> Iterator[dict]:
  """Yield this host's batches, padded with zeros so that all hosts have equally many, of equal shapes.

  Args:
    batches: batches of arrays `[rows, ...]`.
    like: shapes of a batch of zeros, for a host with no batch left.
    dtypes: dtypes of a batch.
  """
  if jax.process_count() == 1:
    yield from batches
    return
  names = sorted(like)
  for batch in itertools.chain(batches, itertools.repeat(None)):
    shapes = [np.shape(batch[name]) if batch else tuple(like[name]) for name in names]
    offers = _all_gather(np.array([batch is not None, *itertools.chain(*shapes)], np.int64))
    if not offers[:, 0].any():
      return
    sizes = iter(offers[offers[:, 0] > 0].max(axis=0)[1:].tolist())
    largest = {name: tuple(itertools.islice(sizes, len(shape))) for name, shape in zip(names, shapes, strict=True)}
    yield {name: _fill(batch and batch[name], largest[name], dtypes[name]) for name in names}


def _fill(x, shape, dtype) -> np.ndarray:
  if x is None:
    return np.zeros(shape, dtype)
  return np.pad(x, [(0, size - n) for size, n in zip(shape, x.shape, strict=True)])


def gather_arrays(tree):
  """Gather arrays that are sharded over the devices of all hosts; return them as numpy arrays."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils

  return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def replicate(tree):
  """Return the tree with every array fully replicated, so that each host can read all of it."""
  leaves = jax.tree.leaves(tree)
  if jax.process_count() == 1 or all(x.is_fully_replicated for x in leaves):
    return tree
  mesh = next(x.sharding.mesh for x in leaves if not x.is_fully_replicated)
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.jit(lambda arrays: arrays, out_shardings=everywhere)(tree)


def own_rows(x: jax.Array) -> np.ndarray:
  """Return the rows of an array `[batch]` that belong to this host's examples."""
  if jax.process_count() == 1:
    return np.asarray(x)
  if x.is_fully_replicated:
    return np.split(np.asarray(x), jax.process_count())[jax.process_index()]
  # With model parallelism, several devices hold the same rows.
  rows = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])
