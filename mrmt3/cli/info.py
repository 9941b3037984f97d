"""`mrmt3 info`: what is installed and what it can use, for people and for bug reports."""

import argparse
import json


def add_parser(subparsers) -> None:
  """Add `info` to the commands."""
  parser = subparsers.add_parser(
    'info',
    help='print versions, devices, models, programs and caches',
    description='Prints what a bug report needs: versions, devices, the models and soundfonts that are here, other '
    'programs, and the cache.',
  )
  parser.add_argument('--json', action='store_true', help='as one JSON object')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Print the facts; returns 0."""
  from mrmt3.inspection import environment
  from mrmt3.utils import console

  facts = environment.describe()
  if args.json:
    print(json.dumps(facts, indent=2))
    return 0
  for title, part in facts.items():
    print(title)
    width = max((len(name) for name in part), default=0)
    for name, value in part.items():
      print(console.printable(f'  {name:<{width}}  {value}'))
  return 0
