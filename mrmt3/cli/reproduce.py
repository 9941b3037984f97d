"""`mrmt3 reproduce slakh`: reproduces the published evaluation with one command."""

import argparse
import sys

from mrmt3.cli import devices

_DEFAULT = ('mt3', 'mr-mt3-0', 'mr-mt3-64-hop3')


def add_parser(subparsers) -> None:
  """Add `reproduce` and its evaluations."""
  reproduce = subparsers.add_parser(
    'reproduce', help='fetch, transcribe Slakh2100, score, and compare with published figures'
  )
  parts = reproduce.add_subparsers(dest='evaluation', required=True, metavar='WHAT')
  slakh = parts.add_parser(
    'slakh',
    help="the test split of Slakh2100, with MT3's and MR-MT3's checkpoints",
    description='Fetches and converts checkpoints, transcribes a split of Slakh2100 (or of any folder in its layout), '
    'scores it with the published settings and with the defaults, and prints the scores and the published figures in '
    'one table. A stopped run resumes when started again.',
  )
  slakh.add_argument('--data', required=True, metavar='DIR', help='folder of the data set, e.g. slakh2100_flac_redux')
  slakh.add_argument(
    '--checkpoint',
    action='append',
    metavar='NAME',
    help=f'published checkpoint or a folder; repeatable (default: {", ".join(_DEFAULT)})',
  )
  slakh.add_argument('-o', '--output', default='reproduce', metavar='FOLDER', help='output folder (default: reproduce)')
  slakh.add_argument('--split', help='split to use (default: test, or all tracks of a folder without splits)')
  slakh.add_argument('--tracks', type=int, metavar='N', help='use only the first N tracks (default: all)')
  devices.add_option(slakh)
  slakh.add_argument('--quiet', action='store_true', help='print no progress')
  slakh.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Run the evaluation; returns 0, or 2 if pieces fail, which are listed.

  Pieces that cannot be transcribed count as empty. Those whose reference cannot be read are left out.
  """
  from mrmt3.errors import UserError
  from mrmt3.evaluation import reproduction
  from mrmt3.utils import compilation_cache, console

  if args.tracks is not None and args.tracks < 1:
    raise UserError(f'--tracks is {args.tracks}; it must be at least 1')
  devices.choose(args.device)
  compilation_cache.enable()
  results = []
  for checkpoint in args.checkpoint or _DEFAULT:
    result = reproduction.run(checkpoint, args.data, args.output, args.split, args.tracks, args.quiet)
    for name, reason in result.failed.items():
      print(console.printable(f'mrmt3: error: {name} counts as empty: {reason}'), file=sys.stderr)
    for name, reason in result.unreadable.items():
      print(console.printable(f'mrmt3: error: {name} is left out: {reason}'), file=sys.stderr)
    results.append(result)
  split = reproduction.choose_tracks(args.data, args.split)[0].split
  print(f'{console.counted(results[0].pieces, "piece")} of the split {split} of {args.data}')
  print(reproduction.table(results))
  return 2 if any(result.failed or result.unreadable for result in results) else 0
