"""`mrmt3 inspect`: shows a task's examples as numbers, text, images and sound."""

import argparse
import sys

from mrmt3.errors import UserError

EXAMPLES = 1000
_DESCRIPTION = """\
Reads examples of a seqio task as in training and prints statistics of them: features,
lengths, token types, hops to prior segments and instruments. Prints some examples as
lists of events, each segment next to its prior one.
"""
_EXPLANATION = """\
WHAT is one of
  a module of tasks/, with its data:         mrmt3 inspect slakh --data DIR
      examples: --gin.ExampleConfig.FIELD=VALUE (see mrmt3/data/example_config.py);
      model sizes: --gin_file (default: models/mr_mt3.gin);
      settings of the module's task: --gin.mt3_records.task.name=musicnet_em
  a data set of a run, by its gin files:     mrmt3 inspect train --gin_file=models/tiny.gin
      --gin_file=runs/train.gin --gin.DATA_DIR=DIR    (train_eval: the run's evaluation data)
  a task or mixture registered with seqio:   mrmt3 inspect NAME --module my.tasks
      one of MT3's own, with the records of mrmt3 dataset convert:
                                             mrmt3 inspect slakh_notes_ties_vb1_train --data DIR

Examples beyond the length limit are counted, not dropped. Times in the lists of events are
relative to the segment's start. "tie" lists the notes that continue from the segment before.
"""


class _GinWords:
  """Wrapper of a parser that accepts `--gin.NAME=VALUE` and `--gin.NAME VALUE` for any NAME as `--gin NAME=VALUE`."""

  def __init__(self, parse):
    self._parse = parse

  def __call__(self, args=None, namespace=None):
    args = list(sys.argv[1:] if args is None else args)
    words = []
    while args:
      word = args.pop(0)
      if word.startswith('--gin.'):
        if '=' not in word and args:
          word += f'={args.pop(0)}'
        word = f'--gin={word.removeprefix("--gin.")}'
      words.append(word)
    return self._parse(words, namespace)


def add_parser(subparsers) -> None:
  """Add `inspect` to `subparsers`."""
  parser = subparsers.add_parser(
    'inspect',
    help='inspect the examples of a task, by eye and by ear',
    description=_DESCRIPTION,
    epilog=_EXPLANATION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.parse_known_args = _GinWords(parser.parse_known_args)
  parser.add_argument('what', metavar='WHAT', help='task module, data set of a run, or registered task or mixture')
  parser.add_argument('--data', metavar='DIR', help='data folder of a task module')
  parser.add_argument('--split', metavar='NAME', help="split to read (default: the run's, else train)")
  parser.add_argument('--n', type=int, default=2, metavar='N', help='examples to show (default: 2)')
  parser.add_argument(
    '--examples',
    type=int,
    default=EXAMPLES,
    metavar='M',
    help=f'examples to measure (default: {EXAMPLES}, or an epoch of a grid)',
  )
  parser.add_argument(
    '--length', type=int, metavar='L', help="maximum number of tokens (default: the model's, 1024 for MT3)"
  )
  parser.add_argument(
    '--seed', type=int, default=0, metavar='N', help='random seed; the same seed gives the same examples (default: 0)'
  )
  parser.add_argument(
    '--plot', metavar='FILE', help='also plot log-mel and notes of the shown examples (.png, .svg or .pdf)'
  )
  parser.add_argument(
    '--audio',
    metavar='DIR',
    help='also write the audio of the shown examples and their synthesized tokens as .wav files',
  )
  parser.add_argument(
    '--json', metavar='FILE', help='also write all results as JSON; - for stdout, instead of the text'
  )
  parser.add_argument(
    '--module', action='append', default=[], metavar='MODULE', help='Python module that registers tasks'
  )
  parser.add_argument(
    '--gin_file',
    action='append',
    default=[],
    metavar='FILE',
    help='as in training; repeatable, later files override earlier ones',
  )
  parser.add_argument('--gin_search_paths', default='', metavar='DIRS', help='as in training')
  parser.add_argument(
    '--gin', action='append', default=[], metavar='NAME=VALUE', help='written --gin.NAME=VALUE, as in training'
  )
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Show the examples; returns 0."""
  _check(args)
  from mrmt3.utils.tensorflow_setup import start_tensorflow

  if args.audio:
    import symusic  # noqa: F401  fail before any data is read
  if args.module and '' not in sys.path:
    sys.path.append('')  # find modules in the working directory, like python -m mrmt3.train
  start_tensorflow()
  from mrmt3 import train
  from mrmt3.inspection import statistics as inspection_statistics
  from mrmt3.inspection import task_reader

  found = task_reader.find(
    args.what,
    data=args.data,
    split=args.split,
    limit=args.length,
    modules=args.module,
    gin_files=args.gin_file,
    gin_bindings=args.gin,
    gin_search_paths=args.gin_search_paths,
    main_module=train,
  )
  reading = task_reader.read(found, args.examples, args.n, args.seed)
  pieces = task_reader.instruments_of_pieces(found)
  report = inspection_statistics.measure(reading.segments, found.codec, found.limit, found.spec.segment_frames, pieces)
  if args.plot:
    _plot(args.plot, found, reading)
  sounds = _write_audio(args.audio, found, reading) if args.audio else []
  if args.json:
    _write_json(args.json, found, reading, report)
  if args.json != '-':
    print(
      '\n'.join(
        [*_head(found, reading), '', *inspection_statistics.report_lines(report), *_shown_lines(found, reading)]
      )
    )
    for path in [args.plot, *sounds]:
      if path:
        print(f'wrote {path}')
  return 0


def _check(args):
  """Raise UserError for errors that do not need heavy imports."""
  from pathlib import Path

  for name, minimum in {'n': 0, 'examples': 1, 'length': 1, 'seed': 0}.items():
    value = getattr(args, name)
    if value is not None and value < minimum:
      raise UserError(f'--{name} is {value}; it must be at least {minimum}')
  for binding in args.gin:
    if '=' not in binding:
      raise UserError(f'--gin.{binding}: the value is missing; write --gin.{binding}=VALUE')
  if args.plot and Path(args.plot).suffix.lower() not in ('.png', '.svg', '.pdf'):
    raise UserError(
      f'cannot plot to {args.plot}: unknown image format {Path(args.plot).suffix!r}; use .png, .svg or .pdf'
    )
  if args.audio and Path(args.audio).exists() and not Path(args.audio).is_dir():
    raise UserError(f'cannot write to {args.audio}: it is not a folder; name a folder')
  if (args.plot or args.audio) and not args.n:
    raise UserError('--plot and --audio show examples; give --n 1 or more')


def _head(found, reading):
  total = f', {reading.total:,} per epoch' if reading.total is not None else ''
  rate = f'; {reading.rate:.1f} examples/s' if reading.rate else ''
  lines = [f'{found.name}, split {found.split}: {reading.examples:,} examples{total}{rate}']
  if len(reading.segments) != reading.examples:
    lines.append(f'an example is a whole piece; they have {len(reading.segments):,} segments')
  lines += ['', 'features']
  for name in found.task.output_features:
    if name in reading.features:
      dtype, low, high, _ = reading.features[name]
      lines.append(f'  {name:<14}  {dtype} [{", ".join(map(_range, low, high))}]')
  others = [f'{name} {dtype}' for name, (dtype, _, _, is_feature) in reading.features.items() if not is_feature]
  if others:
    lines.append(f'  not features: {", ".join(others)}')
  return lines


def _range(low, high):
  return str(low) if low == high else f'{low}..{high}'


def _shown_lines(found, reading):
  from mrmt3.inspection import statistics as inspection_statistics

  lines = []
  for number, shown in enumerate(reading.shown, 1):
    lines += ['', f'example {number} {shown.segment.piece}'.rstrip()]
    frames = found.spec.spectrogram.frame_rate
    lines += inspection_statistics.event_columns(shown.segment, found.codec, frames, found.spec.segment_frames)
  return lines


def _seconds(found):
  return float(found.spec.segment_frames / found.spec.spectrogram.frame_rate)


def _plot(path, found, reading):
  from mrmt3.inspection import statistics as inspection_statistics
  from mrmt3.plots import log_mel

  rows = []
  for number, shown in enumerate(reading.shown, 1):
    segment = shown.segment
    frames = found.spec.spectrogram.frame_rate
    own, prior = inspection_statistics.heading(segment, frames, found.spec.segment_frames)
    notes = inspection_statistics.segment_notes(segment.targets, found.codec, _seconds(found))
    row = [log_mel.Panel(f'example {number} {segment.piece}: {own}', shown.log_mel, notes)]
    if segment.priors is not None:
      notes = inspection_statistics.segment_notes(segment.priors[-1], found.codec, _seconds(found))
      row.insert(0, log_mel.Panel(prior, shown.prior_log_mel, notes))
    rows.append(row)
  log_mel.plot_segments(path, rows, found.spec.spectrogram, _seconds(found), f'{found.name}, {found.split}')


def _write_audio(folder, found, reading):
  from mrmt3.audio import sonify
  from mrmt3.inspection import statistics as inspection_statistics

  paths = []
  for number, shown in enumerate(reading.shown, 1):
    if shown.samples is None:
      raise UserError(f'{found.name} has log-mels and no samples to write as audio; leave --audio out')
    notes = inspection_statistics.segment_notes(shown.segment.targets, found.codec, _seconds(found))
    paths += sonify.write_pair(
      folder, number, shown.segment.piece, shown.samples, notes, found.spec.spectrogram.sample_rate
    )
  return paths


def _write_json(target, found, reading, report):
  import json

  from mrmt3.inspection import statistics as inspection_statistics
  from mrmt3.utils.files import atomic_path

  content = {
    'task': found.name,
    'split': found.split,
    'examples': reading.examples,
    'examples_an_epoch': reading.total,
    'examples_per_second': reading.rate,
    'features': {
      name: {'dtype': dtype, 'smallest': low, 'largest': high, 'is_feature': is_feature}
      for name, (dtype, low, high, is_feature) in reading.features.items()
    },
    **inspection_statistics.as_json(report),
    'shown': [inspection_statistics.segment_as_json(shown.segment, found.codec) for shown in reading.shown],
  }
  text = json.dumps(content, indent=1) + '\n'
  if target == '-':
    sys.stdout.write(text)
    return
  with atomic_path(target) as path:
    path.write_text(text, encoding='utf-8')
