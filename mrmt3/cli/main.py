"""The `mrmt3` command: runs a subcommand and turns errors into one line and an exit code.

Exit codes: 0 success, 1 a check was not met, 2 bad input or usage, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from mrmt3.cli import bench, convert, dataset, demo, evaluate, fetch, inspect, reproduce, study, transcribe
from mrmt3.cli.parsing import Parser
from mrmt3.errors import UserError, system_error
from mrmt3.utils import huge_pages
from mrmt3.version import __version__

EXTRA_OF = {
  'note_seq': 'train',
  'music21': 'dataset',
  'symusic': 'dataset',
  'pyloudnorm': 'dataset',
  'tensorflow': 'train',
  'seqio': 'train',
  'clu': 'train',
  'gin': 'train',
  'apache_beam': 'cache',
}

GIN_COMMANDS = {
  'train': 'train a model',
  'eval': 'score checkpoints with the metrics of a task',
  'infer': 'write the predictions of a model for a split',
}


def build_parser() -> argparse.ArgumentParser:
  """Build the parser of all commands."""
  parser = Parser(prog='mrmt3', description='Multi-instrument music transcription with memory (MR-MT3).')
  parser.add_argument('--version', action='version', version=f'mrmt3 {__version__}')
  subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for command in (transcribe, evaluate, fetch, convert, reproduce, dataset, inspect, bench, study, demo):
    command.add_parser(subparsers)
  for name, help_text in GIN_COMMANDS.items():
    subparsers.add_parser(
      name, help=f'{help_text}; same as python -m mrmt3.{name}', add_help=False, prefix_chars='\0'
    ).add_argument('rest', nargs=argparse.REMAINDER)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line and return the exit code."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  if arguments and arguments[0] in GIN_COMMANDS:
    # gin files have `import __main__ as train_script`, so training must be the main module.
    sys.stdout.flush()
    huge_pages.set_for_child_processes()
    os.execv(sys.executable, [sys.executable, '-m', f'mrmt3.{arguments[0]}', *arguments[1:]])
  args = build_parser().parse_args(arguments)
  try:
    code = args.run(args)
    sys.stdout.flush()
    return code
  except UserError as error:
    print(f'mrmt3: error: {" ".join(str(error).splitlines())}', file=sys.stderr)  # names of files may have newlines
    return 2
  except KeyboardInterrupt:
    print('mrmt3: interrupted', file=sys.stderr)
    return 130
  except ModuleNotFoundError as error:
    package = (error.name or '').split('.')[0]
    if package not in EXTRA_OF:
      raise
    extra = EXTRA_OF[package]
    print(f'mrmt3: error: {package} is not installed; install it with: pip install "mrmt3[{extra}]"', file=sys.stderr)
    return 2
  except Exception as error:
    text = system_error(error)
    if isinstance(error, OSError) and error.filename is None:
      text = _stdout_error(error)
      if text is None:
        return 0
    if text is None:
      raise
    print(f'mrmt3: error: {text}', file=sys.stderr)
    return 2


def _stdout_error(error: OSError) -> str | None:
  """Return one line about an error of stdout; None if its reader has closed the pipe (mrmt3 ... | head).

  Other errors of files name their file.
  """
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # no second error at exit
  return None if isinstance(error, BrokenPipeError) else f'cannot write to the standard output: {error.strerror}'
