"""The user's cache folder: `MRMT3_CACHE`, else `$XDG_CACHE_HOME/mrmt3`, else `~/.cache/mrmt3`."""

import contextlib
import os
from pathlib import Path


def cache_root() -> Path | None:
  """Return mrmt3's cache folder, which may not exist yet; None if the user has no home folder."""
  if os.environ.get('MRMT3_CACHE'):
    return Path(os.environ['MRMT3_CACHE'])
  with contextlib.suppress(RuntimeError):  # no home folder
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mrmt3'
  return None
