"""Runs commands of the command line in the tests' own process."""

from mrmt3.cli.parsing import Parser


def run(command, *words) -> int:
  """Run `mrmt3` with these words; `command` is the module of mrmt3.cli. Returns the exit code."""
  parser = Parser()
  command.add_parser(parser.add_subparsers())
  args = parser.parse_args(list(map(str, words)))
  return args.run(args)
