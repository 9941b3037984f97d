"""A lock on a run's folder, since two runs would remove and overwrite each other's checkpoints."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.training import multihost

FILE = '.running'

_UNWRITABLE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EISDIR)
_HELD = (errno.EAGAIN, errno.EACCES)
_TRIES = 100


@contextlib.contextmanager
def only_run(model_dir: str) -> Iterator[None]:
  """Holds a lock on a folder for as long as the block lasts; of several hosts the first one does.

  The lock is the operating system's, so it ends with the process, however that ends. Where a file system has no locks (some
  mounted buckets), there is none.

  Raises:
    UserError: another run holds it.
  """
  if not multihost.is_first():
    yield
    return
  path = Path(model_dir) / FILE
  stream = _locked(path)
  try:
    yield
  finally:
    if stream is not None:
      path.unlink(missing_ok=True)
      stream.close()


def _locked(path):
  """Returns the open file that is locked, None where there are no locks."""
  try:
    import fcntl
  except ImportError:  # Windows
    return None
  for _ in range(_TRIES):
    try:
      stream = path.open('a+')
    except OSError as error:
      if error.errno in _UNWRITABLE:
        raise UserError(f'{path}: cannot be written ({error.strerror})') from error
      return None
    try:
      fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      who = _content(stream)
      stream.close()
      if error.errno in _HELD:
        raise UserError(
          f'{path.parent}: another run is at work there (process {who}); wait for its end, stop it, or give another MODEL_DIR'
        ) from None
      return None
    # The run before may have removed the file between the two calls; then the lock is one on nothing.
    if _is_at(stream, path):
      stream.truncate(0)
      stream.write(f'{os.getpid()} on {platform.node()}')
      stream.flush()
      return stream
    stream.close()
  return None


def _content(stream) -> str:
  stream.seek(0)
  return stream.read().strip() or 'of unknown number'


def _is_at(stream, path) -> bool:
  """Whether an open file is the one that lies at a path."""
  try:
    return os.path.samestat(os.fstat(stream.fileno()), path.stat())
  except OSError:
    return False
