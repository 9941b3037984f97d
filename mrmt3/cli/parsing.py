"""The command line's parser."""

import argparse


class Parser(argparse.ArgumentParser):
  """Takes names that stand behind options too: `mrmt3 evaluate REF --split test EST`.

  argparse settles how many names an argument of any number gets at the first name; those that come later are left over.
  (`parse_intermixed_args` knows no subcommands.)
  """

  def parse_known_args(self, args=None, namespace=None):
    """As argparse's; what is left over, if no option is among it, goes to the last argument, where that has room."""
    namespace, rest = super().parse_known_args(args, namespace)
    *_, last = [None, *self._get_positional_actions()]
    if last is None or not rest or any(word.startswith('-') for word in rest):
      return namespace, rest
    given = getattr(namespace, last.dest)
    if last.nargs in ('*', '+'):
      setattr(namespace, last.dest, [*given, *rest])
      return namespace, []
    if last.nargs == '?' and given == last.default:
      setattr(namespace, last.dest, rest[0])
      return namespace, rest[1:]
    return namespace, rest
