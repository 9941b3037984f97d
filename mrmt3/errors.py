"""The one exception type that is meant for the person at the keyboard, and what other exceptions say in one line."""


class UserError(Exception):
  """Something the user can put right: its text is one line that says what is wrong, where, and how to fix it.

  Command lines print it without a traceback and exit with code 2.
  """


def first_line(error) -> str:
  """Returns the first line of what an exception says, cut at 200 characters; its type where it says nothing."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
