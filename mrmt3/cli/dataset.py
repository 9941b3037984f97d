"""`mrmt3 dataset`: makes training sets of real music in Slakh2100's layout, and checks and describes any in that layout."""

import argparse
import sys
from pathlib import Path


def add_parser(subparsers) -> None:
  """Adds `dataset` with its own subcommands to the command line's `subparsers`."""
  parser = subparsers.add_parser(
      'dataset', help='make, describe and check data sets', description='Makes and checks data sets in Slakh2100 layout.'
  )
  commands = parser.add_subparsers(dest='dataset_command', metavar='COMMAND', required=True)
  _add_build(commands)
  _add_check(commands)
  _add_report(commands)


def _add_build(commands):
  from mrmt3.dataset_builder.recipes import RECIPES, SPLITS

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
  build.add_argument(
      '--tracks-of', metavar='DIR',
      help='make the tracks of another data set again: with its --recipe, --seed and --seconds the same music, other fonts',
  )  # fmt: skip
  build.add_argument('--split', choices=SPLITS, help='with --tracks-of: the tracks of this split only')
  build.add_argument('--plot', metavar='FILE', help='also draw the report, as .png, .pdf or .svg')
  build.add_argument('--force', action='store_true', help='replace the tracks that are in OUT')
  build.set_defaults(run=run_build)


def _add_check(commands):
  check = commands.add_parser(
      'check',
      help='check that the audio of a data set agrees with its labels',
      description='Checks any folder in Slakh2100 layout: stems can be heard and add up to the mix, sound begins within '
      '10 ms of its label for 80 % of the stems, and there is energy at the labelled pitch for 95 % of the notes.',
      epilog='Exit code 1 if something is not met.',
  )
  check.add_argument('dir', metavar='DIR', help='folder of the data set, or of a split')
  check.add_argument('--split', metavar='NAME', help='only this split')
  check.add_argument('--tracks', type=int, metavar='N', help='only so many tracks, evenly chosen (default: all)')
  check.add_argument('--workers', type=int, metavar='N', help='processes (default: one per processor)')
  check.add_argument('--json', metavar='FILE', help='also write what was measured of every stem')
  check.set_defaults(run=run_check)


def _add_report(commands):
  report = commands.add_parser(
      'report',
      help='say what is in a data set',
      description='Says what is in any folder in Slakh2100 layout: hours, pieces, notes, instruments, polyphony, splits.',
  )
  report.add_argument('dir', metavar='DIR', help='folder of the data set')
  report.add_argument('--plot', metavar='FILE', help='also draw it, as .png, .pdf or .svg')
  report.add_argument('--json', metavar='FILE', help='also write it as JSON')
  report.add_argument('--workers', type=int, metavar='N', help='processes (default: one per processor)')
  report.set_defaults(run=run_report)


def run_check(args: argparse.Namespace) -> int:
  """Runs `mrmt3 dataset check`; returns 0, or 1 if something is not met."""
  from mrmt3.dataset_builder import check

  verdict, stems = check.check(args.dir, split=args.split, tracks=args.tracks, workers=args.workers)
  for trouble in verdict.troubles:
    print(f'mrmt3: {trouble}', file=sys.stderr)
  if args.json:
    check.write_json(Path(args.json), verdict, stems)
  print('\n'.join(check.lines(verdict)))
  if verdict.troubles:
    print(f'{len(verdict.troubles)} troubles, named above')
  return 0 if verdict.is_good else 1


def run_report(args: argparse.Namespace) -> int:
  """Runs `mrmt3 dataset report`; returns 0, or 2 if some tracks cannot be read."""
  import json

  from mrmt3.dataset_builder import report
  from mrmt3.files import atomic_path

  found = report.describe(args.dir, workers=args.workers)
  if args.json:
    with atomic_path(args.json) as path:
      path.write_text(json.dumps(report.as_json(found), indent=1) + '\n', encoding='utf-8')
  if args.plot:
    report.draw(found, args.plot, title=Path(args.dir).resolve().name)
  print('\n'.join(report.lines(found)))
  for trouble in found.troubles:
    print(f'mrmt3: error: {trouble}', file=sys.stderr)
  return 2 if found.troubles else 0


def run_build(args: argparse.Namespace) -> int:
  """Runs `mrmt3 dataset build` and returns the exit code; UserError where it cannot."""
  from mrmt3.dataset_builder import report as contents
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
      tracks_of=args.tracks_of,
      split=args.split,
      workers=args.workers,
      force=args.force,
  )
  splits = ', '.join(f'{count} {split}' for split, count in report.splits.items())
  kept = f', {report.kept} of them there before' if report.kept else ''
  if report.left_out:
    print(f'mrmt3: {len(report.left_out)} pieces of music were left out', file=sys.stderr)
  print(f'{report.made + report.kept} tracks ({splits}{kept}) in {args.out}')
  found = contents.describe(args.out, workers=args.workers)
  if args.plot:
    contents.draw(found, args.plot, title=Path(args.out).resolve().name)
  print('\n'.join(contents.lines(found)))
  return 0
