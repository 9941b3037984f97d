"""Errors that the user can fix, warnings about odd files, and one-line messages of other exceptions."""

import errno
import os
import re
import sys


class UserError(Exception):
  """An error that the user can fix. The message is one line: what is wrong, where, and how to fix it.

  Commands print it without a traceback and exit with code 2.
  """


class DataWarning(UserWarning):
  """A file was read although something about it is odd. The message is one line: where, and what is odd.

  Commands print it as one line, see `utils.warning_lines`.

  Attributes:
    lost_notes: number of notes in the file that could not be read.
    oddities: what else is odd, a phrase each.
  """

  def __init__(self, message: str, lost_notes: int = 0, oddities: tuple[str, ...] = ()):
    super().__init__(message)
    self.lost_notes = lost_notes
    self.oddities = oddities


def first_line(error) -> str:
  """Return the first line of an exception's message, up to 200 characters, or its type if there is no message."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def system_error(error: BaseException) -> str | None:
  """Return one line about an error of the machine, such as a full disk or a missing GPU; None for other exceptions.

  Of errors of files, those that name their file and those of a full disk count.
  """
  if isinstance(error, OSError) and error.errno is not None:
    if error.filename is not None:
      name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
      return f'{name if len(name) <= 200 else name[:200] + "..."}: {error.strerror}'
    return f'{error.strerror}; free some space' if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
  text = first_line(error)
  if isinstance(error, MemoryError):
    return f'out of memory ({text}); lower the batch size, or give shorter input'
  if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in text:
    return f'out of memory ({text}); lower the batch size'
  backend = re.match(r"Unable to initialize backend '(\w+)'", text)
  if isinstance(error, RuntimeError) and backend:
    return _no_backend(backend[1])
  if isinstance(error, AssertionError) and os.environ.get('JAX_PLATFORMS') and not _has_device():
    return _no_backend(os.environ['JAX_PLATFORMS'])  # JAX asserts that it has found a device
  return None


def _no_backend(name: str) -> str:
  return f'JAX finds no device for JAX_PLATFORMS={name}; unset JAX_PLATFORMS, or set it to cpu'


def _has_device() -> bool:
  """Return whether JAX has a device; its tracebacks leave out the frames that would tell where it failed."""
  jax = sys.modules.get('jax')
  if jax is None:
    return True
  try:
    return bool(jax.devices())
  except (AssertionError, RuntimeError):
    return False
