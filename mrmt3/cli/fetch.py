"""`mrmt3 fetch`: downloads published checkpoints by name."""

import argparse
import sys

from mrmt3.errors import UserError


def add_parser(subparsers) -> None:
  """Add `fetch` to the commands."""
  parser = subparsers.add_parser(
    'fetch',
    help='download a published checkpoint of MT3 or MR-MT3',
    description='Downloads and converts published checkpoints, for `mrmt3 transcribe --checkpoint NAME`. '
    'They are stored in MRMT3_CACHE, else ~/.cache/mrmt3.',
    epilog='A stopped download resumes when run again. Without internet, the files to download by hand are listed, and '
    'where to put them.',
  )
  parser.add_argument('names', metavar='NAME', nargs='*', help='checkpoint (see --list)')
  parser.add_argument('--list', action='store_true', help='print all names, and which are downloaded')
  parser.add_argument('--keep', action='store_true', help='keep the downloaded files after conversion')
  parser.add_argument('--quiet', action='store_true', help='no progress; errors only')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Fetch checkpoints or list them; returns 0."""
  from mrmt3.checkpoints import published

  if not args.names and not args.list:
    raise UserError('nothing to fetch; name a checkpoint, or add --list to see which there are')
  requested = [published.named(name) for name in args.names]
  from mrmt3.checkpoints import conversion, fetch
  from mrmt3.checkpoints.orbax import read_spec

  if args.list:
    for checkpoint in requested or published.CHECKPOINTS.values():
      state = 'here' if fetch.is_here(checkpoint) else '-'
      print(f'{checkpoint.name:16} {state:5} {checkpoint.title}\n{"":22} {checkpoint.address}')
    return 0
  for checkpoint in requested:
    was_here = fetch.is_here(checkpoint)
    folder = fetch.fetch(checkpoint, keep=args.keep, quiet=args.quiet)
    if not args.quiet:
      where = f'{checkpoint.name}: {"was here already" if was_here else "is here now"}, {folder}'
      print(f'{where}\n{conversion.describe(read_spec(folder))}', file=sys.stderr)
  return 0
