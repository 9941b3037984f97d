"""File names: their greatest length, and the normal forms of Unicode in which the same name can be written."""

import os
import unicodedata
from pathlib import Path

MAX_NAME_BYTES = 255  # on all common file systems


def shortened(name: str, max_bytes: int) -> str:
  """Return a name, cut at the end if it has more than `max_bytes` bytes."""
  return os.fsdecode(os.fsencode(name)[:max_bytes])


def is_too_long(path: Path) -> bool:
  """Return whether a file of this name cannot be written anywhere."""
  return len(os.fsencode(path.name)) > MAX_NAME_BYTES


def normal_form(name: str) -> str:
  """Return the composed form (NFC) of a name. macOS writes é as e and an accent, other systems as one character."""
  return unicodedata.normalize('NFC', name)


def existing(path: Path) -> Path:
  """Return the path as it is on disk if it is there in another normal form of Unicode; otherwise `path` itself."""
  if os.path.lexists(path) or str(path).isascii():
    return path
  found = Path(path.anchor)
  for part in path.relative_to(path.anchor).parts:
    if not os.path.lexists(found / part):
      try:
        names = [name for name in os.listdir(found) if normal_form(name) == normal_form(part)]
      except OSError:
        return path
      if len(names) != 1:
        return path
      part = names[0]
    found = found / part
  return found
