"""The one exception type that is meant for the person at the keyboard."""


class UserError(Exception):
  """Something the user can put right: its text is one line that says what is wrong, where, and how to fix it.

  Command lines print it without a traceback and exit with code 2.
  """
