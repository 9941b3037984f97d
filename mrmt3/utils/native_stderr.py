"""Filter for what native libraries write to the process's standard error."""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

_LOCK = threading.Lock()  # the file descriptor belongs to the whole process


@contextlib.contextmanager
def without_lines(pattern: re.Pattern) -> Iterator[None]:
  """Drop the lines written to file descriptor 2 in the block that match `pattern` from their start; keep the others.

  The others are written when the block ends. Blocks in other threads wait.
  """
  with _LOCK, contextlib.ExitStack() as stack:
    try:
      kept = os.dup(2)
    except OSError:  # there is no standard error
      yield
      return
    stack.callback(os.close, kept)
    written = stack.enter_context(tempfile.TemporaryFile())
    os.dup2(written.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(kept, 2)
      written.seek(0)
      for line in written.read().splitlines(keepends=True):
        if not pattern.match(line):
          os.write(2, line)
