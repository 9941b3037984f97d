"""Calling commands of the command line in the tests' own process."""

from mrmt3.cli.parsing import Parser


def run(command, *words) -> int:
  """Does what `mrmt3` with these words does, `command` being the module of mrmt3.cli; returns its exit code."""
  parser = Parser()
  command.add_parser(parser.add_subparsers())
  args = parser.parse_args(list(map(str, words)))
  return args.run(args)
