"""`mrmt3 study`: the questions of the paper, one command each."""

import argparse
import sys
from pathlib import Path

from mrmt3.errors import UserError

_TRAINED = (
  'steps',
  'moments',
  'seeds',
  'batch-size',
  'base',
  'gin',
  'init-from',
  'single',
  'notes',
)  # options of studies that train

_END = """\
A study that was stopped goes on when run again with the same -o. DIR/study.md and
DIR/index.html hold its tables and figures, DIR/results.jsonl what they are made of.

Training studies build a small data set themselves where --data names none (this needs
the extra `dataset`). Their networks are those of gin/runs/study.gin, small enough for a
CPU, or of --base: runs/frozen_encoder.gin with --init-from framewise trains decoder and memory
only; --base models/mr_mt3.gin --base optimizers/mr_mt3.gin --base runs/train.gin is
the published size.
"""


def add_parser(subparsers) -> None:
  """Adds `study` to the commands."""
  from mrmt3.studies.catalogue import STUDIES, TRAINING

  width = max(map(len, STUDIES))
  lines = [f'{name:<{width}} {study.question}' for name, study in STUDIES.items()]
  parser = subparsers.add_parser(
    'study',
    help='ablations, domain overfitting, memory probe and others, one command each',
    description='Trains and scores what a question of the paper asks for, or looks into a checkpoint, and writes tables and figures.',
    epilog='\n'.join(['studies:', *(f'  {line}' for line in lines), '', _END]),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  training = [name for name, study in STUDIES.items() if study.kind == TRAINING]
  parser.add_argument('name', metavar='NAME', choices=list(STUDIES), help='which study, see below')
  parser.add_argument('-o', '--output', required=True, metavar='DIR', help='where everything goes')
  parser.add_argument(
    '--data',
    metavar='DIR',
    help='data set in the Slakh2100 layout; for the other studies any folder of MIDI with audio',
  )
  parser.add_argument(
    '--split', default='test', help='which split is tested on, where there are splits (default: test)'
  )
  parser.add_argument(
    '--pieces',
    type=int,
    metavar='N',
    help='test on the first N pieces only (of single notes that are rendered: on all)',
  )
  looking = parser.add_argument_group(
    f'studies of a checkpoint ({", ".join(name for name in STUDIES if name not in training)})'
  )
  looking.add_argument('--checkpoint', metavar='DIR', help='checkpoint to look into, or a name of `mrmt3 fetch --list`')
  trained = parser.add_argument_group(f'studies that train ({", ".join(training)})')
  trained.add_argument('--steps', type=int, metavar='N', help='training steps of each network (default: 4000)')
  trained.add_argument(
    '--moments',
    type=int,
    metavar='N',
    help='score each network at so many moments of its training, its end among them (default: what the study says)',
  )
  trained.add_argument('--seeds', type=int, metavar='K', help='train each network so many times (default: 1)')
  trained.add_argument('--batch-size', type=int, metavar='N', help='examples a step (default: 16)')
  trained.add_argument(
    '--base',
    action='append',
    metavar='GIN_FILE',
    help='gin file of the training that is varied, may be given several times (default: runs/study.gin)',
  )
  trained.add_argument(
    '--gin', action='append', default=[], metavar='NAME=VALUE', help='further gin binding of all networks'
  )
  trained.add_argument(
    '--init-from', metavar='DIR', help='checkpoint that all networks start from; a memory that it has not begins fresh'
  )
  trained.add_argument(
    '--single',
    metavar='DIR',
    help='single-instrument music with audio, such as rendered ComMU (default: stems of the test split)',
  )
  trained.add_argument('--notes', metavar='DIR', help="single notes with audio, such as NSynth's (default: rendered)")
  trained.add_argument('--dry-run', action='store_true', help='print what each network is trained with, and do nothing')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Runs a study and says where its report is; returns 0."""
  from mrmt3.studies import catalogue

  _check(args)
  study = catalogue.STUDIES[args.name]
  base = tuple(args.base or ('runs/study.gin',))
  if args.dry_run:
    if not study.runs:
      raise UserError(f'{args.name} trains nothing; leave --dry-run out')
    for cell in study.runs:
      start = f', from {cell.starts_from!r}' if cell.starts_from else ''
      print(f'{cell.name}: {cell.data}{start}: {" ".join([*(f"--gin_file={file}" for file in base), *cell.flags()])}')
    return 0
  from mrmt3.studies import run as run_study
  from mrmt3.studies.options import Options
  from mrmt3.utils import compilation_cache

  compilation_cache.enable()
  paths = {
    name: value and Path(value) for name, value in (('data', args.data), ('single', args.single), ('notes', args.notes))
  }
  options = Options(
    split=args.split,
    pieces=args.pieces,
    checkpoint=args.checkpoint,
    steps=args.steps,
    eval_points=args.moments,
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
  """Raises UserError for numbers out of range, and for options of another kind of study."""
  from mrmt3.studies import catalogue

  for name in ('pieces', 'steps', 'moments', 'seeds', 'batch-size'):
    value = getattr(args, name.replace('-', '_'))
    if value is not None and value < 1:
      raise UserError(f'--{name} is {value}; it must be at least 1')
  trains = catalogue.STUDIES[args.name].kind == catalogue.TRAINING
  for name, of_training in (('checkpoint', False), *((name, True) for name in _TRAINED)):
    if trains != of_training and getattr(args, name.replace('-', '_')) not in (None, []):
      what = 'trains its networks' if trains else 'looks into a checkpoint'
      raise UserError(f'{args.name} {what}; leave --{name} out')
  for binding in args.gin:
    if '=' not in binding:
      raise UserError(f'--gin {binding}: write NAME=VALUE')
