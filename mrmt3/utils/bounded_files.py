"""Reading of small files that may be huge, or no files at all."""

import os
import stat
from pathlib import Path


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
  """Return the content of a regular file; a pipe or a device, which could be read for ever, is not opened.

  Raises:
    OSError: it cannot be read, or is not a regular file.
    ValueError: it has more than `most` bytes.
  """
  path = Path(path)
  if not stat.S_ISREG(path.stat().st_mode):
    raise OSError(0, 'it is not a regular file', str(path))
  with path.open('rb') as file:
    content = file.read(most + 1)
  if len(content) > most:
    raise ValueError(f'it is longer than {most:,} bytes')
  return content
