"""Warnings about inputs as lines on stderr, as commands print errors."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator

from mrmt3.errors import InputWarning


def _print(text: str) -> None:
  print(f'mrmt3: warning: {text}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def shown(show: Callable[[str], None] = _print) -> Iterator[None]:
  """Pass the text of each `InputWarning` in the block to `show`; other warnings are shown as before."""
  with warnings.catch_warnings():
    warnings.simplefilter('default', InputWarning)  # each text once
    others = warnings.showwarning

    def show_warning(message, category, *args, **options):
      if issubclass(category, InputWarning):
        show(str(message))
      else:
        others(message, category, *args, **options)

    warnings.showwarning = show_warning
    yield


@contextlib.contextmanager
def hidden() -> Iterator[None]:
  """Show no `InputWarning` in the block."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', InputWarning)
    yield
