"""The command `mrmt3`: finds the subcommand, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 a check was not met, 2 bad input or usage, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from mrmt3.cli import bench, dataset, demo, evaluate, transcribe
from mrmt3.errors import UserError
from mrmt3.version import __version__


def build_parser() -> argparse.ArgumentParser:
  """Returns the parser of all commands."""
  parser = argparse.ArgumentParser(prog='mrmt3', description='Multi-instrument music transcription with memory (MR-MT3).')
  parser.add_argument('--version', action='version', version=f'mrmt3 {__version__}')
  subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for command in (transcribe, evaluate, dataset, bench, demo):
    command.add_parser(subparsers)
  subparsers.add_parser(
      'train', help='train a model; same as python -m mrmt3.train', add_help=False, prefix_chars='\0'
  ).add_argument('rest', nargs=argparse.REMAINDER)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line and returns the exit code."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  if arguments[:1] == ['train']:
    # gin files say `import __main__ as train_script`, so training has to be the main module.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, '-m', 'mrmt3.train', *arguments[1:]])
  args = build_parser().parse_args(arguments)
  try:
    return args.run(args)
  except UserError as error:
    print(f'mrmt3: error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('mrmt3: interrupted', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # The reader of a pipe has gone (mrmt3 ... | head); nothing is left to say, not even at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
