"""The user's cache folder: `MRMT3_CACHE`, else `$XDG_CACHE_HOME/mrmt3`, else `~/.cache/mrmt3`."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from pathlib import Path


def cache_root() -> Path | None:
  """Return mrmt3's cache folder, which may not exist yet; None if the user has no home folder."""
  if os.environ.get('MRMT3_CACHE'):
    return Path(os.environ['MRMT3_CACHE'])
  with contextlib.suppress(RuntimeError):  # no home folder
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mrmt3'
  return None


def cache_root_or_temporary() -> Path:
  """Return `cache_root`; for a user without a home folder, a temporary folder that only this user can write to.

  The temporary folder goes with the process, unless TMPDIR is the user's own. In a folder with a known name that all
  users share, another user could have put other files.
  """
  root = cache_root()
  if root is not None:
    return root
  folder = Path(tempfile.gettempdir())
  status = folder.stat()
  if status.st_uid == os.getuid() and not status.st_mode & 0o077:
    return folder / 'mrmt3'
  return _temporary_root()


@functools.cache
def _temporary_root() -> Path:
  folder = tempfile.mkdtemp(prefix='mrmt3-cache-')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return Path(folder)
