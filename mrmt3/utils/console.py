"""Text for people on terminals and pages: names and messages from outside cannot act on the terminal."""

import io
import sys
import unicodedata

# Categories of characters without a shape of their own: control characters (escape sequences begin with one), format
# characters (they reverse or hide text), halves of surrogate pairs (bytes that are not UTF-8), line separators.
_HIDDEN = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')
_JOINERS = '\u200c\u200d'  # parts of words and emoji


def printable(text: object) -> str:
  r"""Escape the characters of a name or a one-line message that a terminal acts on, as in Python: \x1b, \n, \u202e."""
  return _escaped(str(text), '')


def counted(count: int, noun: str) -> str:
  """Return a number with its noun: '1 piece', '2 pieces'."""
  return f'{count} {noun}' if count == 1 else f'{count} {noun}s'


def protect_streams() -> None:
  """Escape what this process writes to stdout and stderr in the same way, except line ends and tabs.

  For programs, not for libraries. Text that the stream's encoding lacks is escaped instead of being an error.
  """
  sys.stdout, sys.stderr = map(_protected, (sys.stdout, sys.stderr))


def _escaped(text: str, kept: str) -> str:
  if text.isascii() and text.isprintable():
    return text
  return ''.join(
    repr(char)[1:-1] if unicodedata.category(char) in _HIDDEN and char not in _JOINERS + kept else char for char in text
  )


class _Stream(io.TextIOWrapper):
  def write(self, text: str) -> int:
    super().write(_escaped(text, '\n\r\t'))
    return len(text)


def _protected(stream):
  if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _Stream):
    return stream  # None, or a stream of a program that calls this one
  options = {'line_buffering': stream.line_buffering, 'write_through': stream.write_through}
  encoding = stream.encoding
  stream.flush()
  return _Stream(stream.detach(), encoding=encoding, errors='backslashreplace', **options)
