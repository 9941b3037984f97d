"""`mrmt3 fetch`: published checkpoints by name."""

import argparse
import sys

from mrmt3.errors import UserError


def add_parser(subparsers) -> None:
  """Adds `fetch` to the commands."""
  parser = subparsers.add_parser(
    'fetch',
    help='download a published checkpoint of MT3 or MR-MT3',
    description='Downloads published checkpoints and converts them; `mrmt3 transcribe --checkpoint NAME` finds them then. '
    'They are kept in MRMT3_CACHE, else ~/.cache/mrmt3.',
    epilog='A download that was stopped goes on when run again. Without internet it says what to download by hand, and '
    'where to put it.',
  )
  parser.add_argument('names', metavar='NAME', nargs='*', help='which (see --list)')
  parser.add_argument('--list', action='store_true', help='print the names there are, and which are here')
  parser.add_argument('--keep', action='store_true', help='keep the downloaded files beside what was made of them')
  parser.add_argument('--quiet', action='store_true', help='no progress; errors only')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Fetches, or lists; returns 0."""
  from mrmt3.checkpoints import published

  if not args.names and not args.list:
    raise UserError('nothing to fetch; name a checkpoint, or add --list to see which there are')
  wanted = [published.named(name) for name in args.names]
  from mrmt3.checkpoints import conversion, fetch
  from mrmt3.checkpoints.orbax import read_spec

  if args.list:
    for what in wanted or published.CHECKPOINTS.values():
      print(f'{what.name:16} {"here" if fetch.is_here(what) else "-":5} {what.title}\n{"":22} {what.address}')
    return 0
  for what in wanted:
    was_here = fetch.is_here(what)
    folder = fetch.fetch(what, keep=args.keep, quiet=args.quiet)
    if not args.quiet:
      where = f'{what.name}: {"was here already" if was_here else "is here now"}, {folder}'
      print(f'{where}\n{conversion.describe(read_spec(folder))}', file=sys.stderr)
  return 0
