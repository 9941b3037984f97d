"""The commands of `mrmt3` and their parser."""

import argparse

from mrmt3.cli import (
  bench,
  convert,
  dataset,
  demo,
  evaluate,
  fetch,
  info,
  inspect,
  notate,
  reproduce,
  serve,
  study,
  transcribe,
)
from mrmt3.cli.parsing import Parser
from mrmt3.version import __version__

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
  for command in (
    transcribe,
    notate,
    serve,
    evaluate,
    fetch,
    convert,
    reproduce,
    dataset,
    inspect,
    bench,
    study,
    demo,
    info,
  ):
    command.add_parser(subparsers)
  for name, help_text in GIN_COMMANDS.items():
    subparsers.add_parser(
      name, help=f'{help_text}; same as python -m mrmt3.{name}', add_help=False, prefix_chars='\0'
    ).add_argument('rest', nargs=argparse.REMAINDER)
  return parser
