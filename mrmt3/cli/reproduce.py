"""`mrmt3 reproduce slakh`: the published evaluation as one command."""

import argparse
import sys

_DEFAULT = ('mt3', 'mr-mt3-0', 'mr-mt3-64-hop3')


def add_parser(subparsers) -> None:
  """Adds `reproduce` with what can be reproduced."""
  reproduce = subparsers.add_parser(
    'reproduce', help='fetch, transcribe Slakh2100, score, and compare with published figures'
  )
  parts = reproduce.add_subparsers(dest='evaluation', required=True, metavar='WHAT')
  slakh = parts.add_parser(
    'slakh',
    help="the test split of Slakh2100, with MT3's and MR-MT3's checkpoints",
    description='Fetches and converts checkpoints, transcribes a split of Slakh2100 (or of any folder in its layout), scores it as '
    'published and by default, and prints a table with the published figures beside. Started again, it goes on where it '
    'was stopped.',
  )
  slakh.add_argument('--data', required=True, metavar='DIR', help='folder of the data set, e.g. slakh2100_flac_redux')
  slakh.add_argument(
    '--checkpoint',
    action='append',
    metavar='NAME',
    help=f'published checkpoint or a folder, may be given several times (default: {", ".join(_DEFAULT)})',
  )
  slakh.add_argument(
    '-o', '--output', default='reproduce', metavar='FOLDER', help='where everything goes (default: reproduce)'
  )
  slakh.add_argument('--split', default='test', help='which split (default: test)')
  slakh.add_argument('--tracks', type=int, metavar='N', help='only the first N tracks (default: all)')
  slakh.add_argument('--quiet', action='store_true', help='no progress')
  slakh.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs it; returns 0, or 2 if pieces could not be transcribed (they are named, and count as empty)."""
  from mrmt3.errors import UserError
  from mrmt3.evaluation import reproduction
  from mrmt3.utils import compilation_cache

  if args.tracks is not None and args.tracks < 1:
    raise UserError(f'--tracks {args.tracks}: it is a number of tracks, from 1')
  compilation_cache.enable()
  results = []
  for checkpoint in args.checkpoint or _DEFAULT:
    result = reproduction.run(checkpoint, args.data, args.output, args.split, args.tracks, args.quiet)
    for name, reason in result.failed.items():
      print(f'mrmt3: error: {name} counts as empty: {reason}', file=sys.stderr)
    results.append(result)
  print(f'{results[0].pieces} pieces of the split {args.split} of {args.data}')
  print(reproduction.table(results))
  return 2 if any(result.failed for result in results) else 0
