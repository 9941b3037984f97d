"""Errors that the user can fix, warnings about odd files, and one-line messages of other exceptions."""


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
