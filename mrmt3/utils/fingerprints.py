"""Texts that change when files or weights change; files are not read for it."""

import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from mrmt3.errors import DataWarning


def files_fingerprint(paths: Iterable[Path], root: Path) -> str:
  """Return a digest of the files' paths (relative to `root`), sizes and modification times; missing files count too."""
  digest = hashlib.sha256()
  for path in sorted(paths):
    try:
      status = path.stat()
      state = f'{status.st_size} {status.st_mtime_ns}'
    except OSError:
      state = 'missing'
    digest.update(f'{path.relative_to(root).as_posix()}\0{state}\0'.encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()


def weights_fingerprint(params, text: str) -> str:
  """Return a digest of a text and of a tree of arrays, in the order of the tree."""
  import jax
  import numpy as np

  digest = hashlib.sha256(text.encode())
  for leaf in jax.tree.leaves(params):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()


def files_below(folder: Path) -> list[Path]:
  """Return the files in a folder and its subfolders, sorted, without hidden ones (names that start with a dot).

  Links to folders are followed, but each folder is entered once, because a link may lead back up. An `DataWarning`
  names each folder that cannot be read.
  """
  found, seen = [], set()
  for parent, folders, names in os.walk(folder, onerror=_left_out, followlinks=True):
    status = os.stat(parent)
    if (status.st_dev, status.st_ino) in seen:
      folders.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    found += [Path(parent, name) for name in names if not name.startswith('.')]
  return sorted(found)


def _left_out(error):
  # A folder that is not there at all is the caller's concern.
  if not isinstance(error, FileNotFoundError):
    warnings.warn(f'{error.filename} is left out: {error.strerror}', DataWarning, stacklevel=3)
