"""Device mesh and sharding, with t5x's names: a mesh of `data` x `model`, partitioned by GSPMD.

The batch is sharded over `data`. Parameters are sharded over `model` along their logical axes (`vocab`, `mlp`, `heads`,
`joined_kv`) and replicated over `data`. A replica of the model never spans two hosts, so that each host reads its own
data.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrmt3.errors import UserError

Rules = Sequence[tuple[str, str | None]]
MESH_AXES = ('data', 'model')


def standard_logical_axis_rules(
  activation_partitioning_dims: int = 1, parameter_partitioning_dims: int = 1, additional_rules: Rules | None = None
) -> Rules:
  """Return t5x's rules as (logical axis, mesh axis); None is replicated, and the first rule of an axis applies.

  Args:
    activation_partitioning_dims: not supported, keep 1.
    parameter_partitioning_dims: 2 shards parameters, gradients and optimizer state over `data` too, along `embed`.
    additional_rules: rules appended to these.

  Raises:
    UserError: an argument has an unsupported value.
  """
  if activation_partitioning_dims != 1 or parameter_partitioning_dims not in (1, 2):
    raise UserError(
      'partitioning.standard_logical_axis_rules: set activation_partitioning_dims to 1, and '
      'parameter_partitioning_dims to 1 or 2'
    )
  embed = 'data' if parameter_partitioning_dims == 2 else None
  split = [
    ('batch', 'data'),
    ('vocab', 'model'),
    ('mlp', 'model'),
    ('heads', 'model'),
    ('joined_kv', 'model'),
    ('embed', embed),
  ]
  whole = [
    (name, None) for name in ('kv', 'relpos_buckets', 'abspos_buckets', 'length', 'layers', 'stack', 'mlp_activations')
  ]
  return (*split, *whole, *(additional_rules or ()))


class PjitPartitioner:
  """Places arrays on a mesh (`data`, `model`) of all devices of all hosts.

  Args:
    num_partitions: number of devices per replica of the model.
    model_parallel_submesh: instead of num_partitions, the block of devices per replica: (x, y, z, cores) of a TPU
      topology, otherwise (hosts, devices per host).
    params_on_devices: keep True.
    logical_axis_rules: (logical axis, mesh axis or None) pairs; None is `standard_logical_axis_rules()`.

  Raises:
    UserError: an argument is not supported, or the partitions do not divide the devices of each host.
  """

  def __init__(
    self,
    num_partitions: int | None = None,
    model_parallel_submesh: Sequence[int] | None = None,
    params_on_devices: bool = True,
    logical_axis_rules: Rules | None = None,
  ):
    if not params_on_devices:
      raise UserError('partitioning.PjitPartitioner.params_on_devices = False is not supported; leave it out')
    if num_partitions is not None and model_parallel_submesh is not None:
      raise UserError('partitioning.PjitPartitioner: give num_partitions or model_parallel_submesh, not both')
    if model_parallel_submesh is None:
      submesh, what = (1, 1 if num_partitions is None else num_partitions), f'num_partitions is {num_partitions}'
    else:
      submesh, what = tuple(model_parallel_submesh), f'model_parallel_submesh is {tuple(model_parallel_submesh)}'
    self.logical_axis_rules = tuple(standard_logical_axis_rules() if logical_axis_rules is None else logical_axis_rules)
    for rule in self.logical_axis_rules:
      if len(rule) != 2 or rule[1] not in (*MESH_AXES, None):
        raise UserError(
          f"partitioning.PjitPartitioner.logical_axis_rules: {rule!r} is not (name, 'data' or 'model' or None)"
        )
    self.mesh = Mesh(_in_blocks(submesh, model_parallel_submesh is not None, what), MESH_AXES)
    self.replicated = NamedSharding(self.mesh, PartitionSpec())
    self.batch_sharding = NamedSharding(self.mesh, PartitionSpec('data'))

  def check_batch_size(self, batch_size: int, what: str) -> None:
    """Raise UserError if the number of replicas does not divide the batch size; `what` names the data set."""
    copies = self.mesh.shape['data']
    if batch_size % copies:
      devices = '' if copies == self.mesh.size else f' ({self.mesh.size} devices, {self.mesh.shape["model"]} each)'
      of = f'{copies} devices' if not devices else f'{copies} replicas of the model{devices}'
      raise UserError(f'{what}: batch_size {batch_size} is not a multiple of the {of}; set batch_size to one')

  def mesh_axes(self, names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """Return the PartitionSpec of an array with these logical axes.

    Each logical axis follows its first rule. A mesh axis is used once per array, and only if it divides the size.
    """
    rules, taken, axes = {}, set(), []
    for name, axis in self.logical_axis_rules:
      rules.setdefault(name, axis)
    for name, size in zip(names, shape, strict=True):
      axis = rules.get(name)
      usable = (
        axis is not None and axis not in taken and self.mesh.shape[axis] > 1 and size % self.mesh.shape[axis] == 0
      )
      axes.append(axis if usable else None)
      taken.add(axes[-1])
    return PartitionSpec(*axes) if any(axes) else PartitionSpec()

  def shardings(self, params, logical_axes, tree):
    """Return a tree like `tree` with the sharding of each array.

    Args:
      params: parameters, or their shapes.
      logical_axes: {path of a parameter: its axes' names} (see `trainer.logical_axes`); others are replicated.
      tree: the arrays to place. An array whose path ends with a parameter's path, and which has its shape (a gradient
        or a moment), is sharded as this parameter; all others are replicated.

    Raises:
      UserError: the model is to be partitioned, but no parameter can be.
    """
    specs = {
      path: (leaf.shape, self.mesh_axes(logical_axes[path], leaf.shape))
      for path, leaf in jax.tree_util.tree_leaves_with_path(params)
      if path in logical_axes
    }
    partitions = self.mesh.shape['model']
    if partitions > 1 and not any('model' in spec for _, spec in specs.values()):
      raise UserError(
        f'partitioning.PjitPartitioner: no parameter of this model can be split into {partitions} partitions by its '
        'logical axes; set num_partitions to 1'
      )
    longest = max(map(len, specs), default=0)

    def sharding(path, leaf):
      for start in range(max(0, len(path) - longest), len(path)):
        shape, spec = specs.get(path[start:], (None, None))
        if shape == leaf.shape:
          return NamedSharding(self.mesh, spec)
      return self.replicated

    return jax.tree_util.tree_map_with_path(sharding, tree)

  def place_batch(self, batch):
    """Make global arrays, sharded over `data`, of this process's arrays `[local batch, ...]`."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.batch_sharding, np.asarray(x)), batch)

  def place_state(self, state, shardings=None):
    """Place a tree of arrays, which must be equal on all hosts.

    Args:
      state: tree of arrays.
      shardings: tree of their shardings; None replicates every array.
    """
    if shardings is None:
      shardings = jax.tree.map(lambda _: self.replicated, state)
    if jax.process_count() == 1:
      return jax.device_put(state, shardings)

    def place(x, sharding):
      x = np.asarray(x)
      return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, state, shardings)


def _in_blocks(submesh: Sequence[int], by_topology: bool, what: str) -> np.ndarray:
  """Return the devices as `[replicas, partitions]`; each row is a block of the given shape within one host.

  Args:
    submesh: the block's shape.
    by_topology: whether the shape is in TPU coordinates, if the devices have them, or in (host, index within the host).
    what: the argument and its value, for messages.

  Raises:
    UserError: blocks of this shape do not fill every host.
  """
  devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
  hosts = np.array([device.process_index for device in devices])
  if by_topology and hasattr(devices[0], 'coords'):
    places = np.array([(*device.coords, device.core_on_chip) for device in devices])
  else:
    places = np.stack([hosts, np.arange(len(hosts)) - np.searchsorted(hosts, hosts)], axis=1)
  per_host = f'the {np.bincount(hosts).max()} devices of each host'
  if len(submesh) != places.shape[1] or not all(isinstance(n, int) and n > 0 for n in submesh):
    raise UserError(f'partitioning.PjitPartitioner.{what}; it must be {places.shape[1]} integers of at least 1')
  blocks = np.concatenate([hosts[:, None], places // np.array(submesh)], axis=1)
  _, block, sizes = np.unique(blocks, axis=0, return_inverse=True, return_counts=True)
  partitions = math.prod(submesh)
  if (sizes != partitions).any():
    raise UserError(f'partitioning.PjitPartitioner.{what}; such blocks must fill {per_host}')
  within = places % np.array(submesh)
  order = np.lexsort((*within.T[::-1], block.reshape(-1)))
  return np.array(devices)[order].reshape(-1, partitions)
