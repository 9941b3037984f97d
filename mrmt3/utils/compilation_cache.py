"""JAX's persistent compilation cache in the user's cache folder, so that later runs start in seconds."""

import contextlib
import glob
import os
import re
import sys
import warnings
from pathlib import Path

from mrmt3.utils.user_cache import cache_root

MAX_BYTES = 2 * 2**30  # size limit of the cache

_JAX_WARNING = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']+)': (.*)")


def enable() -> None:
  """Let JAX store compiled programs in the user's cache folder. For programs to call, not for libraries.

  Does nothing if JAX_COMPILATION_CACHE_DIR is set, or if there is no cache folder. Programs that cannot be written are
  compiled again by the next run.
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
  _repair_damaged(root / 'programs')


def _repair_damaged(folder: Path) -> None:
  """Remove programs that JAX cannot read, or could not write as a whole, with one line for all of them.

  JAX warns of them, compiles them again, but keeps the file, and so would warn at every start. Its warning names the
  function; the names of the files begin with it.
  """
  show, printed = warnings.showwarning, []

  def repair(message, *args, **kwargs):
    found = _JAX_WARNING.match(str(message))
    if found is None:
      show(message, *args, **kwargs)
      return
    for path in folder.glob(f'{glob.escape(found[2])}-*'):
      with contextlib.suppress(OSError):
        path.unlink()
    if found[1] not in printed:
      printed.append(found[1])
      text = {
        'reading': f'mrmt3: a compiled program in {folder} is damaged; it is compiled again',
        'writing': f'mrmt3: programs cannot be kept in {folder} ({found[3]}); they are compiled again next time',
      }[found[1]]
      print(text, file=sys.stderr, flush=True)

  warnings.showwarning = repair


def prune(folder: Path, max_bytes: int) -> None:
  """Remove the least recently used files of a folder that exceeds `max_bytes`, until it has half of that.

  JAX's own limit needs another package, and a lock for every program.
  """
  found = []
  try:
    for entry in os.scandir(folder):
      status = entry.stat()
      found.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
  except OSError:  # missing, or another process is pruning it
    return
  total = sum(size for _, size, _ in found)
  if total <= max_bytes:
    return
  for _, size, path in sorted(found):
    if total <= max_bytes / 2:
      return
    try:
      os.remove(path)
    except OSError:
      continue
    total -= size
