"""`mrmt3 dataset`: makes training sets of real music in Slakh2100's layout, and checks and describes any in that layout."""

import argparse
import sys


def add_parser(subparsers) -> None:
  """Adds `dataset` with its own subcommands to the command line's `subparsers`."""
  parser = subparsers.add_parser(
      'dataset', help='make, describe and check data sets', description='Makes and checks data sets in Slakh2100 layout.'
  )
  commands = parser.add_subparsers(dest='dataset_command', metavar='COMMAND', required=True)
  _add_build(commands)


def _add_build(commands):
  from mrmt3.dataset_builder.recipes import RECIPES

  build = commands.add_parser(
      'build',
      help='build a data set from real scores',
      description='Builds a data set from real scores: arranged for other instruments, with drums, rendered with '
      'soundfonts; audio, stems, MIDI and metadata as in Slakh2100. A build that was stopped goes on when run again.',
      epilog='recipes: ' + '; '.join(f'{name}: {recipe.description}' for name, recipe in RECIPES.items()),
  )
  build.add_argument('out', metavar='OUT', help='folder of the data set')
  build.add_argument('--recipe', choices=list(RECIPES), help='kind of data set (default: demo, with --midi: midi)')
  build.add_argument(
      '--midi', action='append', default=[], metavar='DIR', help="folder of MIDI files to use, may be given several times"
  )
  build.add_argument('--pieces', type=int, metavar='N', help="number of tracks (default: the recipe's own)")
  build.add_argument('--hours', type=float, metavar='H', help='as many tracks as make so many hours')
  build.add_argument('--seconds', type=float, metavar='S', help="length of a track (default: the recipe's own)")
  build.add_argument('--takes', type=int, default=1, metavar='N', help='arrangements of a piece at most (default: 1)')
  build.add_argument(
      '--drums', type=float, metavar='SHARE',
      help="share of the pieces without drums that get a drum pattern, 0 to 1 (default: the recipe's own)",
  )  # fmt: skip
  build.add_argument('--seed', type=int, default=0, metavar='N', help='same seed, same data set (default: 0)')
  build.add_argument('--workers', type=int, metavar='N', help='processes (default: one per processor)')
  build.add_argument(
      '--soundfont', action='append', default=[], metavar='FILE',
      help='.sf2 or .sf3 file, may be given several times: one is chosen for each stem (default: the one in pretty_midi)',
  )  # fmt: skip
  build.add_argument(
      '--held-out', action='append', default=[], metavar='FILE',
      help='soundfont for the test split alone; it must share no samples with those of --soundfont',
  )  # fmt: skip
  build.add_argument(
      '--slakh-extras', action='store_true', help="also write mix_16k.wav, inst_names.json and all_src_v2.mid (MR-MT3's)"
  )
  build.add_argument('--force', action='store_true', help='replace the tracks that are in OUT')
  build.set_defaults(run=run_build)


def run_build(args: argparse.Namespace) -> int:
  """Runs `mrmt3 dataset build` and returns the exit code; UserError where it cannot."""
  from mrmt3.dataset_builder.build import build

  report = build(
      args.out,
      recipe=args.recipe,
      pieces=args.pieces,
      hours=args.hours,
      seconds=args.seconds,
      seed=args.seed,
      takes=args.takes,
      drums=args.drums,
      midi=args.midi,
      soundfonts=args.soundfont,
      held_out=args.held_out,
      extras=args.slakh_extras,
      workers=args.workers,
      force=args.force,
  )
  splits = ', '.join(f'{count} {split}' for split, count in report.splits.items())
  kept = f', {report.kept} of them there before' if report.kept else ''
  if report.left_out:
    print(f'mrmt3: {len(report.left_out)} pieces of music were left out', file=sys.stderr)
  print(f'{report.made + report.kept} tracks ({splits}{kept}) in {args.out}')
  return 0
