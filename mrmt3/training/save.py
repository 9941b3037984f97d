"""Saving a run's checkpoints in the background, and removing old ones."""

import concurrent.futures
from collections.abc import Mapping

import jax
import numpy as np

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.training import multihost


class CheckpointSaver:
  """Writes checkpoints in a thread of its own, one at a time, while training continues.

  A checkpoint gets its final name when it is complete; then the oldest ones beyond `keep` are removed. Only the first
  host writes. All hosts read, so the folder must be shared.
  """

  def __init__(self, model_dir: str, spec=None, keep: int | None = None):
    """Start the thread and remove incomplete checkpoints.

    Args:
      model_dir: the run's folder.
      spec: the model's ModelSpec, written as model.json; None writes none.
      keep: number of checkpoints to keep; None keeps all.
    """
    self._model_dir, self._spec, self._keep = model_dir, spec, keep
    self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
    self._running = None
    if multihost.is_first():
      orbax_checkpoints.clear_unfinished(model_dir)

  def save(self, step: int, state, files: Mapping[str, bytes]) -> None:
    """Start to save, after waiting for the previous checkpoint.

    Args:
      step: steps done.
      state: tree of arrays; copied before this returns, so it may be donated.
      files: {name: content} of further files.

    Raises:
      UserError: the previous checkpoint could not be written, for example because the disk is full.
    """
    self.wait()
    state = multihost.replicate(state)
    if not multihost.is_first():
      return
    copy = jax.tree.map(lambda x: np.array(x, copy=True), jax.device_get(state))
    self._running = self._worker.submit(self._write, step, copy, dict(files))

  def _write(self, step, state, files) -> None:
    orbax_checkpoints.save_checkpoint(self._model_dir, step, state, self._spec, files)
    if self._keep is not None:
      orbax_checkpoints.remove_old(self._model_dir, self._keep)

  def wait(self) -> None:
    """Wait until nothing is being written; raises the writer's error, if any."""
    running, self._running = self._running, None
    if running is not None:
      running.result()

  def close(self) -> None:
    """Wait for the last checkpoint and end the thread."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
