"""Warnings about odd files on the terminal: one line each, like errors."""

import contextlib
import contextvars
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mrmt3.errors import DataWarning
from mrmt3.utils import console

_OWN = contextvars.ContextVar('warning_lines', default=None)  # what takes the warnings of this thread


def warn(message: str) -> None:
  """Issue a `DataWarning`, or hand its message to `in_this_thread`."""
  show = _OWN.get()
  if show is None:
    warnings.warn(message, DataWarning, stacklevel=4)
  else:
    show(message)


@contextlib.contextmanager
def in_this_thread(show: Callable[[str], None]) -> Iterator[None]:
  """Call `show` with each message given to `warn` within the block and in this thread, instead of issuing it.

  For servers: the filters of `warnings` are those of the whole process.
  """
  token = _OWN.set(show)
  try:
    yield
  finally:
    _OWN.reset(token)


def show_as_lines() -> None:
  """Print each `DataWarning` of this process as one line on stderr, once; other warnings stay as they are."""
  warnings.simplefilter('default', DataWarning)
  before = warnings.showwarning
  if getattr(before, 'is_of_mrmt3', False):
    return

  def show(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, DataWarning):
      print(f'mrmt3: warning: {console.printable(message)}', file=file or sys.stderr)
    else:
      before(message, category, filename, lineno, file, line)

  show.is_of_mrmt3 = True
  warnings.showwarning = show


@contextlib.contextmanager
def passed_to(show: Callable[[str], None]) -> Iterator[None]:
  """Call `show` with the message of each `DataWarning` of the block, once; other warnings stay as they are."""
  with warnings.catch_warnings():
    warnings.simplefilter('default', DataWarning)
    before = warnings.showwarning

    def show_warning(message, category, *args, **options):
      if issubclass(category, DataWarning):
        show(str(message))
      else:
        before(message, category, *args, **options)

    warnings.showwarning = show_warning
    yield


@contextlib.contextmanager
def hidden() -> Iterator[None]:
  """Show no `DataWarning` of the block."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', DataWarning)
    yield


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[DataWarning]]:
  """Collect the `DataWarning`s inside, each message once, instead of printing them; not for use in threads."""
  collected = []
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', DataWarning)
    try:
      yield collected
    finally:
      collected += {str(one.message): one.message for one in caught if issubclass(one.category, DataWarning)}.values()
  for one in caught:
    if not issubclass(one.category, DataWarning):
      warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def with_warnings(function: Callable, item) -> tuple[Any, list[str]]:
  """Return (the result of `function(item)`, the messages of its `DataWarning`s)."""
  with collected_warnings() as warned:
    result = function(item)
  return result, [str(one) for one in warned]
