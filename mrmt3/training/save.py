"""Saving a run's checkpoints beside the training, and clearing away old ones."""

import concurrent.futures
from collections.abc import Mapping

import jax
import numpy as np

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.training import multihost


class CheckpointSaver:
  """Writes checkpoints in a thread of its own, one at a time; training goes on meanwhile.

  A checkpoint appears under its name when all of it is written; the oldest beyond `keep` go after that. Of several hosts only
  the first one writes; all need to see what it has written, so the folder is one that they share.
  """

  def __init__(self, model_dir: str, spec=None, keep: int | None = None):
    """Takes the folder, the model's ModelSpec (None: no model.json is written), and how many to keep (None: all)."""
    self._model_dir, self._spec, self._keep = model_dir, spec, keep
    self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
    self._running = None
    if multihost.is_first():
      orbax_checkpoints.clear_unfinished(model_dir)

  def save(self, step: int, state, files: Mapping[str, bytes]) -> None:
    """Begins to save; waits for the last one first, whose UserError (disk full, ...) is raised here.

    Args:
      step: steps done.
      state: PyTree of arrays; copied before this returns, so it may be donated.
      files: contents of further files by name.
    """
    self.wait()
    state = multihost.whole(state)
    if not multihost.is_first():
      return
    copy = jax.tree.map(lambda x: np.array(x, copy=True), jax.device_get(state))
    self._running = self._worker.submit(self._write, step, copy, dict(files))

  def _write(self, step, state, files) -> None:
    orbax_checkpoints.save_checkpoint(self._model_dir, step, state, self._spec, files)
    if self._keep is not None:
      orbax_checkpoints.remove_old(self._model_dir, self._keep)

  def wait(self) -> None:
    """Returns when nothing is being written any more; raises what went wrong."""
    running, self._running = self._running, None
    if running is not None:
      running.result()

  def close(self) -> None:
    """Waits, and ends the thread."""
    try:
      self.wait()
    finally:
      self._worker.shutdown()
