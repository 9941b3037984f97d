"""Keeps compiled programs on disk, so that the next run starts in seconds."""

import os
from pathlib import Path

from mrmt3.utils.user_cache import cache_root

MAX_BYTES = 2 * 2**30  # that the programs may take


def enable() -> None:
  """Lets JAX keep what it compiles in this process in the user's cache folder; to be called by programs, not libraries.

  Does nothing where JAX_COMPILATION_CACHE_DIR says where, or there is no place for it. What cannot be written is compiled
  again next time.
  """
  import jax

  root = cache_root()
  if root is None or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  prune(root / 'programs', MAX_BYTES)
  for name, value in (
    ('jax_compilation_cache_dir', str(root / 'programs')),
    ('jax_persistent_cache_min_compile_time_secs', 0.0),
    ('jax_persistent_cache_min_entry_size_bytes', -1),
    ('jax_raise_persistent_cache_errors', False),
  ):
    jax.config.update(name, value)


def prune(folder: Path, most_bytes: int) -> None:
  """Removes the files that were read or written longest ago, until a folder's take no more than half of what they may.

  Nothing is removed as long as they do not take more. (JAX's own limit needs one more package, and a lock for every program.)
  """
  found = []
  try:
    for entry in os.scandir(folder):
      status = entry.stat()
      found.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
  except OSError:  # not there yet, or another process is clearing it
    return
  total = sum(size for _, size, _ in found)
  if total <= most_bytes:
    return
  for _, size, path in sorted(found):
    if total <= most_bytes / 2:
      return
    try:
      os.remove(path)
    except OSError:
      continue
    total -= size
