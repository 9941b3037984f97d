"""`mrmt3 dataset build`: makes a training set of real music, in Slakh2100's layout, from what pip installed."""

import argparse


def add_parser(subparsers) -> None:
  """Adds `dataset` with its own subcommands to the command line's `subparsers`."""
  from mrmt3.dataset_builder.recipes import RECIPES

  parser = subparsers.add_parser(
      'dataset', help='make a data set to train on', description='Makes data sets in Slakh2100 layout.'
  )
  commands = parser.add_subparsers(dest='dataset_command', metavar='COMMAND', required=True)
  build = commands.add_parser(
      'build',
      help='build a data set from real scores',
      description='Builds a data set from real scores: arranged for other instruments, with drums, rendered with a '
      'soundfont; audio, stems, MIDI and metadata as in Slakh2100. A build that was stopped goes on when run again.',
      epilog='recipes: ' + '; '.join(f'{name}: {recipe.description}' for name, recipe in RECIPES.items()),
  )
  build.add_argument('out', metavar='OUT', help='folder of the data set')
  build.add_argument('--recipe', choices=list(RECIPES), default='demo', help='kind of data set (default: %(default)s)')
  build.add_argument('--pieces', type=int, metavar='N', help="number of tracks (default: the recipe's own)")
  build.add_argument('--seconds', type=float, metavar='S', help="length of a track (default: the recipe's own)")
  build.add_argument('--seed', type=int, default=0, metavar='N', help='same seed, same data set (default: 0)')
  build.add_argument('--workers', type=int, metavar='N', help='processes (default: one per processor)')
  build.add_argument('--soundfont', metavar='FILE', help='.sf2 or .sf3 file (default: the one inside pretty_midi)')
  build.add_argument('--force', action='store_true', help='replace the tracks that are in OUT')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs `mrmt3 dataset build` and returns the exit code; UserError where it cannot."""
  from mrmt3.dataset_builder.build import build

  report = build(
      args.out,
      recipe=args.recipe,
      pieces=args.pieces,
      seconds=args.seconds,
      seed=args.seed,
      workers=args.workers,
      soundfont=args.soundfont,
      force=args.force,
  )
  splits = ', '.join(f'{count} {split}' for split, count in report.splits.items())
  kept = f', {report.kept} of them there before' if report.kept else ''
  print(f'{report.made + report.kept} tracks ({splits}{kept}) in {args.out}')
  return 0
