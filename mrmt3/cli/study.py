"""`mrmt3 study`: the experiments of the paper, one command each."""

import argparse
import sys
from pathlib import Path

from mrmt3.cli import devices
from mrmt3.errors import UserError

_TRAINED = (
  'steps',
  'eval-points',
  'seeds',
  'batch-size',
  'base',
  'gin',
  'init-from',
  'single',
  'notes',
)  # options of studies that train

_END = """\
A stopped study resumes when run again with the same -o. DIR/study.md and
DIR/index.html have its tables and figures, DIR/results.jsonl their data.

Training studies without --data build a small data set themselves (this needs the
extra `dataset`). They train the networks of gin/runs/study.gin, which are small
enough for a CPU, or of --base: runs/frozen_encoder.gin with --init-from framewise
trains decoder and memory only; --base models/mr_mt3.gin --base optimizers/mr_mt3.gin
--base runs/train.gin is the published size.
"""


def add_parser(subparsers) -> None:
  """Add `study` to the commands."""
  from mrmt3.studies.catalogue import STUDIES, TRAINING

  width = max(map(len, STUDIES))
  lines = [f'{name:<{width}} {study.question}' for name, study in STUDIES.items()]
  parser = subparsers.add_parser(
    'study',
    help='ablations, domain overfitting, memory probe and others, one command each',
    description='Trains and scores the networks of an experiment, or examines a checkpoint, and writes tables and '
    'figures.',
    epilog='\n'.join(['studies:', *(f'  {line}' for line in lines), '', _END]),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  training = [name for name, study in STUDIES.items() if study.kind == TRAINING]
  parser.add_argument('name', metavar='NAME', choices=list(STUDIES), help='study to run, see below')
  parser.add_argument('-o', '--output', required=True, metavar='DIR', help='output folder')
  parser.add_argument(
    '--data',
    metavar='DIR',
    help='data set in Slakh2100 layout; for studies of a checkpoint, any folder of MIDI with audio',
  )
  parser.add_argument('--split', default='test', help='split to test on, if the data has splits (default: test)')
  parser.add_argument(
    '--pieces',
    type=int,
    metavar='N',
    help='test on only the first N pieces (rendered single notes: on all)',
  )
  looking = parser.add_argument_group(
    f'studies of a checkpoint ({", ".join(name for name in STUDIES if name not in training)})'
  )
  looking.add_argument('--checkpoint', metavar='DIR', help='checkpoint to examine, or a name of `mrmt3 fetch --list`')
  trained = parser.add_argument_group(f'studies that train ({", ".join(training)})')
  trained.add_argument('--steps', type=int, metavar='N', help='training steps of each network (default: 4000)')
  trained.add_argument(
    '--eval-points',
    type=int,
    metavar='N',
    help="number of times that each network is scored in training, the last step included (default: the study's)",
  )
  # The option's first name.
  trained.add_argument('--moments', dest='eval_points', type=int, help=argparse.SUPPRESS)
  trained.add_argument('--seeds', type=int, metavar='K', help='number of training runs per network (default: 1)')
  trained.add_argument('--batch-size', type=int, metavar='N', help='examples per step (default: 16)')
  trained.add_argument(
    '--base',
    action='append',
    metavar='GIN_FILE',
    help='gin file of the training setup that is varied; repeatable (default: runs/study.gin)',
  )
  trained.add_argument(
    '--gin',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='additional gin binding for all networks; repeatable',
  )
  trained.add_argument(
    '--init-from',
    metavar='DIR',
    help='checkpoint that initializes all networks; a missing memory is initialized randomly',
  )
  trained.add_argument(
    '--single',
    metavar='DIR',
    help='single-instrument music with audio, such as rendered ComMU (default: stems of the test split)',
  )
  trained.add_argument('--notes', metavar='DIR', help='single notes with audio, such as NSynth (default: rendered)')
  devices.add_option(parser)
  trained.add_argument('--dry-run', action='store_true', help='print the settings of each network without training')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Run a study and print its report; returns 0."""
  from mrmt3.studies import catalogue

  _check(args)
  study = catalogue.STUDIES[args.name]
  base = tuple(args.base or ('runs/study.gin',))
  if args.dry_run:
    if not study.runs:
      raise UserError(f'{args.name} trains no network; leave --dry-run out')
    labels = {each.name: each.label for each in study.runs}
    for each in study.runs:
      start = f', from {labels[each.starts_from]!r}' if each.starts_from else ''
      print(f'{each.label}: {each.data}{start}: {" ".join([*(f"--gin_file={file}" for file in base), *each.flags()])}')
    return 0
  from mrmt3.studies import run as run_study
  from mrmt3.studies.options import Options
  from mrmt3.utils import compilation_cache

  devices.choose(args.device)
  compilation_cache.enable()
  paths = {
    name: value and Path(value) for name, value in (('data', args.data), ('single', args.single), ('notes', args.notes))
  }
  options = Options(
    split=args.split,
    pieces=args.pieces,
    checkpoint=args.checkpoint,
    steps=args.steps,
    eval_points=args.eval_points,
    seeds=args.seeds or 1,
    batch_size=args.batch_size or 16,
    base=base,
    bindings=tuple(args.gin),
    init_from=args.init_from,
    **paths,
  )
  page = run_study.run(args.name, Path(args.output), options)
  print((page.parent / 'study.md').read_text(encoding='utf-8'))
  print(f'wrote {page}', file=sys.stderr)
  return 0


def _check(args):
  """Raise UserError for numbers out of range, and for options of another kind of study."""
  from mrmt3.studies import catalogue

  for name in ('pieces', 'steps', 'eval-points', 'seeds', 'batch-size'):
    value = getattr(args, name.replace('-', '_'))
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; it must be at least 1')
  trains = catalogue.STUDIES[args.name].kind == catalogue.TRAINING
  for name, of_training in (('checkpoint', False), *((name, True) for name in _TRAINED)):
    if trains != of_training and getattr(args, name.replace('-', '_')) not in (None, []):
      what = 'trains its networks' if trains else 'examines a checkpoint'
      raise UserError(f'{args.name} {what}; leave --{name} out')
  for binding in args.gin:
    if '=' not in binding:
      raise UserError(f'--gin {binding}: the value is missing; write NAME=VALUE')
