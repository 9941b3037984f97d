"""Argument parser of the command line."""

import argparse


class Parser(argparse.ArgumentParser):
  """Parser that accepts positional arguments after options too: `mrmt3 evaluate REF --split test EST`.

  argparse fixes the number of values of a variable-length positional at its first value and leaves later ones over.
  (`parse_intermixed_args` does not support subcommands.)
  """

  def parse_known_args(self, args=None, namespace=None):
    """Parse like argparse; leftover words without options go to the last positional if it accepts more."""
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
