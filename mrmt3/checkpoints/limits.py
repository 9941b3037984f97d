"""Limits on checkpoints of other people: what a file may declare, how arrays may be named, what a folder may hold.

All of them raise ValueError, and the readers name the file.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_ALWAYS_ALLOWED = 1 << 26  # bytes
_MAX_DEPTH = 32
_MAX_NAME_LENGTH = 200
_MAX_FILES = 200_000


def check_expansion(declared: int, stored: int, ratio: int = 32) -> None:
  """Raise ValueError if a file declares far more bytes of arrays than it can hold.

  Args:
    declared: bytes of the arrays in memory.
    stored: bytes on disk.
    ratio: the largest of the two that is plausible. Weights hardly compress; constant arrays, such as norms, do.
  """
  if not 0 <= declared <= max(_ALWAYS_ALLOWED, ratio * stored):
    raise ValueError(f'it declares {declared:,} bytes of arrays, and has {stored:,} bytes')


def check_path(parts: Iterable) -> None:
  """Raise ValueError unless the parts of a parameter's path are plain names, and few."""
  parts = tuple(parts)
  if not 0 < len(parts) <= _MAX_DEPTH:
    raise ValueError(f'the name of an array has {len(parts):,} parts')
  for part in parts:
    if not _is_plain(part):
      raise ValueError(f'{str(part)[:_MAX_NAME_LENGTH]!r:.80} is not a name for an array')


def _is_plain(part) -> bool:
  if not isinstance(part, str) or not 0 < len(part) <= _MAX_NAME_LENGTH or part in ('.', '..'):
    return False
  return part.isprintable() and not set(part) & {'/', '\\'}


def check_paths(paths: Iterable[tuple[str, ...]]) -> None:
  """Raise ValueError unless each path is plain, and none is that of an array and of a group of arrays at once."""
  paths = set(paths)
  for path in paths:
    check_path(path)
    for length in range(1, len(path)):
      if path[:length] in paths:
        raise ValueError(f'{"/".join(path[:length])!r:.80} is an array and a group of arrays')


def folder_bytes(folder: Path) -> int:
  """Return how many bytes the files in a folder have.

  Raises:
    ValueError: a link in it leads out of it, or there is something that is neither a file nor a folder, such as a pipe.
    OSError: it cannot be read.
  """
  root = folder.resolve()
  total, count = 0, 0
  pending = [root]
  while pending:
    with os.scandir(pending.pop()) as entries:
      for entry in entries:
        count += 1
        if count > _MAX_FILES:
          raise ValueError(f'it has more than {_MAX_FILES:,} files')
        if entry.is_symlink():
          target = Path(entry.path).resolve()
          if not target.is_relative_to(root):
            raise ValueError(f'{entry.name!r:.80} is a link that leads out of it; copy the file itself there')
        elif entry.is_dir():
          pending.append(entry.path)
          continue
        mode = entry.stat().st_mode
        if stat.S_ISREG(mode):
          total += entry.stat().st_size
        elif not stat.S_ISDIR(mode):
          raise ValueError(f'{entry.name!r:.80} is neither a file nor a folder')
  return total
