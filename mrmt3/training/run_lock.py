"""A lock on a run's folder, since two runs would remove and overwrite each other's checkpoints."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import filelock

from mrmt3.errors import UserError
from mrmt3.training import multihost

FILE = '.running'
WAIT_SECONDS = 0.5  # for a run that is about to end

_UNWRITABLE = (
  errno.EACCES,
  errno.EROFS,
  errno.ENOSPC,
  errno.EDQUOT,
  errno.ENAMETOOLONG,
  errno.ENOTDIR,
  errno.EEXIST,
  errno.EISDIR,
)


@contextlib.contextmanager
def only_run(model_dir: str) -> Iterator[None]:
  """Hold a lock on a folder for as long as the block lasts; of several hosts the first one does.

  The lock is the operating system's, so it ends with the process, however that ends. Where a file system has no locks
  (some mounted buckets), there is none.

  Raises:
    UserError: another run holds it, or the folder cannot be written.
  """
  if not multihost.is_first():
    yield
    return
  path = Path(model_dir) / FILE
  # The fallback is a file that outlives a killed process, and would then keep its successor on another machine waiting.
  lock = filelock.FileLock(path, fallback_to_soft=False)
  held = _acquire(lock, path)
  try:
    yield
  finally:
    if held:
      path.unlink(missing_ok=True)  # before the release: afterwards it may be another run's
      lock.release()


def _acquire(lock: filelock.FileLock, path: Path) -> bool:
  """Acquire the lock and write this process into its file; return False where the file system has no locks."""
  try:
    lock.acquire(timeout=WAIT_SECONDS)
    path.write_text(f'{os.getpid()} on {platform.node()}')
    return True
  except filelock.Timeout:
    raise UserError(
      f'{path.parent}: another run uses this folder (process {_holder(path)}); wait for it, stop it, or give another '
      'MODEL_DIR'
    ) from None
  except OSError as error:
    if error.errno in _UNWRITABLE:
      if lock.is_locked:  # made, but not written
        path.unlink(missing_ok=True)
        lock.release()
      raise UserError(f'{path}: cannot be written ({error.strerror})') from error
    return False


def _holder(path: Path) -> str:
  with contextlib.suppress(OSError):
    return path.read_text().strip() or 'of unknown number'
  return 'of unknown number'
