"""Devices and sharding: the batch is split over all devices, parameters stand on each (data parallel)."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrmt3.errors import UserError


class PjitPartitioner:
  """Places arrays on a one-dimensional mesh (`data`) of all devices.

  Raises UserError for model parallelism (`num_partitions` other than 1, or a submesh).
  """

  def __init__(
      self,
      num_partitions: int = 1,
      model_parallel_submesh: Sequence[int] | None = None,
      params_on_devices: bool = True,
      logical_axis_rules: Sequence | None = None,
  ):
    if num_partitions != 1 or model_parallel_submesh is not None or not params_on_devices:
      raise UserError(
          'partitioning.PjitPartitioner: only data parallelism is supported (num_partitions = 1, no '
          'model_parallel_submesh, params_on_devices = True)'
      )
    self.logical_axis_rules = tuple(logical_axis_rules or ())
    self.mesh = Mesh(np.array(jax.devices()), ('data',))
    self.replicated = NamedSharding(self.mesh, PartitionSpec())
    self.batch_sharding = NamedSharding(self.mesh, PartitionSpec('data'))

  def check_batch_size(self, batch_size: int, what: str) -> None:
    """Raises UserError if the devices do not divide the batch."""
    if batch_size % self.mesh.size:
      raise UserError(
          f'{what}: batch_size {batch_size} is not a multiple of the {self.mesh.size} devices; choose one that is'
      )

  def place_batch(self, batch):
    """Returns this process's part `[local batch, ...]` of each array as one global array, split over the devices."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.batch_sharding, np.asarray(x)), batch)

  def place_state(self, state):
    """Returns the tree with every array on every device; all hosts must have the same."""
    if jax.process_count() == 1:
      return jax.device_put(state, self.replicated)

    def place(x):
      x = np.asarray(x)
      return jax.make_array_from_callback(x.shape, self.replicated, lambda index: x[index])

    return jax.tree.map(place, state)
