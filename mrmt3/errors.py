"""The exception type for errors that the user can fix, and one-line messages of other exceptions."""


class UserError(Exception):
  """An error that the user can fix. The message is one line: what is wrong, where, and how to fix it.

  Commands print it without a traceback and exit with code 2.
  """


class InputWarning(UserWarning):
  """Something odd about an input that was read anyway. The message is one line: what is odd, where, what was done.

  Commands print it as a line on stderr.
  """


def first_line(error) -> str:
  """Return the first line of an exception's message, up to 200 characters, or its type if there is no message."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
