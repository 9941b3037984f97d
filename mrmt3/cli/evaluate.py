"""`mrmt3 evaluate`: scores transcriptions against references."""

import argparse
import json
import sys
from pathlib import Path

from mrmt3.cli import devices
from mrmt3.data import catalogue
from mrmt3.errors import UserError
from mrmt3.utils import console

_EXPLANATION = """\
onset F1          notes with the right pitch, within 50 ms
onset+program F1  of these, with an instrument of the right family (MIDI class)
leakage ratio     detected instruments / reference instruments; 1 is right
instrument F1     detection of the instruments that play
Instruments are Slakh classes; all drums are one. The mean is over pieces; a
transcription that is missing or cannot be read counts as empty. A reference that
cannot be read is left out. The exit code is then 2, except for transcriptions that
are missing. Hidden files are ignored. docs/metrics.md defines the scores.

EST is a MIDI file, a folder of them, or predictions saved as .jsonl (by --output
here, or by mrmt3 infer: then add --model). Several ESTs are compared with each
other; NAME=EST names one. Pieces are matched by path (a/song.mid), else by name.
REF can be a folder of Slakh tracks: TrackNNNNN is matched with TrackNNNNN.mid.
With --checkpoint, the audio of the references is transcribed and scored. A run
with the same --output reuses the results in it, except for pieces whose audio
has changed.
"""


def add_parser(subparsers) -> None:
  """Add `evaluate` to the commands."""
  parser = subparsers.add_parser(
    'evaluate',
    help='score transcriptions against references',
    description='Scores transcriptions, or a checkpoint, against references.',
    epilog=_EXPLANATION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('reference', metavar='REF', help='MIDI file, or folder of MIDI files or Slakh tracks')
  parser.add_argument(
    'estimate', metavar='EST', nargs='*', help='MIDI file, folder of MIDI files, or saved predictions'
  )
  parser.add_argument(
    '--checkpoint',
    metavar='DIR',
    help='also transcribe the audio of the references with this model (a folder, or a name of `mrmt3 fetch --list`)',
  )
  parser.add_argument(
    '--memory',
    choices=('predicted', 'truth', 'none'),
    default='predicted',
    help="content of the memory with --checkpoint: the model's own output (default), the reference, or nothing",
  )
  devices.add_option(parser)
  parser.add_argument(
    '--batch-size', type=int, metavar='N', help='pieces transcribed in a batch (default: 4, or one per device)'
  )
  parser.add_argument(
    '--task',
    metavar='NAME',
    help=f'read REF as this task does: {", ".join(catalogue.sources())}',
  )
  parser.add_argument('--split', metavar='NAME', help='use only this split of REF')
  parser.add_argument('--pieces', type=int, metavar='N', help='use only the first N pieces')
  parser.add_argument('--model', metavar='DIR', help='checkpoint of the predictions that mrmt3 infer saved')
  parser.add_argument(
    '-o', '--output', metavar='DIR', help='save predictions and the scores of each piece there, as .jsonl'
  )
  parser.add_argument('--report', metavar='DIR', help='write DIR/index.html: tables, plots, the worst pieces')
  parser.add_argument(
    '--json', metavar='FILE', help='also write all scores as JSON; - for stdout, instead of the table'
  )
  parser.add_argument(
    '--mt3-suite', action='store_true', help="add MT3's frame, velocity and tolerance scores to the JSON"
  )
  parser.add_argument(
    '--score',
    action='store_true',
    help='score beats, downbeats, metre and key instead of notes; REF and EST are MIDI files or folders, those of REF '
    'with time signatures',
  )
  parser.add_argument('--workers', type=int, default=0, metavar='N', help='scoring processes (default: one per core)')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Print and write the scores; returns 0, or 2 if references or transcriptions cannot be read."""
  from mrmt3.evaluation import references as evaluation_references
  from mrmt3.evaluation import score_pieces

  _check(args)
  if args.score:
    return _score_musical_time(args)
  reference = Path(args.reference)
  names = system_names(args.estimate)
  for name, estimate in names.items():
    _check_kinds(reference, estimate)
    if name == _checkpoint_name(args):
      raise UserError(f'two systems have the name {name}; give one another name: NAME={estimate}')
  references = evaluation_references.find_references(reference, task=args.task, split=args.split)
  if args.pieces:
    references = dict(list(references.items())[: args.pieces])
  systems = {}
  for name, estimate in names.items():
    found = evaluation_references.find_estimates(estimate, args.model and Path(args.model))
    systems[name] = evaluation_references.match(references, found, estimate)
  output = args.output or args.report
  output = output and Path(output)
  if args.checkpoint:
    from mrmt3.utils import compilation_cache

    devices.choose(args.device)
    compilation_cache.enable()
    name = _checkpoint_name(args)
    systems[name] = score_pieces.transcribe(references, args.checkpoint, name, output, args.memory, args.batch_size)
  summaries = {
    name: score_pieces.score(name, references, estimates, output, args.mt3_suite, args.workers)
    for name, estimates in systems.items()
  }
  for line in dict.fromkeys(line for summary in summaries.values() for line in summary.odd_files):
    print(f'mrmt3: warning: {console.printable(line)}', file=sys.stderr)
  for name, summary in summaries.items():
    which = f'{console.printable(name)}: ' if len(summaries) > 1 else ''
    for piece, problem in summary.failed.items():
      what = console.printable(f'{piece} counts as empty: {problem}')
      print(f'mrmt3: warning: {which}{what}', file=sys.stderr)
  unreadable = next(iter(summaries.values())).unreadable
  for piece, problem in unreadable.items():
    print(console.printable(f'mrmt3: error: {piece} is left out: {problem}'), file=sys.stderr)
  if unreadable:
    print(f'mrmt3: error: {len(unreadable)} of {len(references)} references cannot be read', file=sys.stderr)
  if args.json != '-':
    print(format_table(next(iter(summaries.values()))) if len(summaries) == 1 else format_comparison(summaries))
  if args.json:
    _write_json(args.json, summaries)
  if args.report:
    from mrmt3.evaluation import html_report

    page = html_report.write(Path(args.report), summaries, references, systems, title=reference.resolve().name)
    print(f'wrote {console.printable(page)}', file=sys.stderr)
  return 2 if unreadable or any(summary.unreadable_estimates for summary in summaries.values()) else 0


def _score_musical_time(args):
  """Print and write the scores of bars and keys; returns 0, or 2 if files cannot be read."""
  from mrmt3.evaluation import musical_time
  from mrmt3.evaluation import references as evaluation_references

  others = ('checkpoint', 'task', 'split', 'model', 'output', 'report', 'mt3_suite')
  if given := [name for name in others if getattr(args, name)]:
    raise UserError(f'--score cannot be combined with --{given[0].replace("_", "-")}; leave it out')
  if len(args.estimate) > 1:
    raise UserError('--score takes one EST; score others one by one')
  reference, (estimate,) = Path(args.reference), map(Path, args.estimate)
  _check_kinds(reference, estimate)
  references = evaluation_references.find_references(reference)
  files = evaluation_references.midi_files(reference) if reference.is_dir() else {reference.stem: reference}
  if missing := [name for name in references if name not in files]:
    raise UserError(f'{reference}: {missing[0]} is no MIDI file; --score needs MIDI files with time signatures')
  found = evaluation_references.match(references, evaluation_references.find_estimates(estimate), estimate)
  wanted = list(references)[: args.pieces]
  results, left_out, failed = musical_time.score_files(
    {name: files[name] for name in wanted}, {name: found[name] and found[name].file for name in wanted}
  )
  for name, problem in left_out.items():
    print(f'mrmt3: error: {console.printable(f"{name} is left out: {problem}")}', file=sys.stderr)
  for name, problem in failed.items():
    print(f'mrmt3: warning: {console.printable(f"{name} counts as 0: {problem}")}', file=sys.stderr)
  if not results:
    raise UserError(f'{reference}: no reference has bars; give MIDI files with time signatures')
  mean = musical_time.mean_scores(results)
  if args.json != '-':
    rows = [[console.printable(name), *result.values()] for name, result in results.items()]
    rows += [[f'mean of {len(rows)} pieces', *mean.values()]] if len(rows) > 1 else []
    cells = [[row[0], *('-' if value != value else f'{value:.3f}' for value in row[1:])] for row in rows]
    print(_columns([['', *musical_time.HEADINGS.values()], *cells], 'beats within 70 ms; key: weighted score'))
  if args.json:
    pieces = {name: _nan_to_none(result) for name, result in results.items()}
    _write_text(args.json, json.dumps({'pieces': pieces, 'mean': _nan_to_none(mean)}, indent=2) + '\n')
  return 2 if left_out or failed else 0


def _check(args):
  """Raise UserError for arguments that exclude each other or are out of range."""
  if not args.estimate and not args.checkpoint:
    raise UserError('nothing to score: name transcriptions (EST) or a --checkpoint')
  for name, minimum in {'pieces': 1, 'batch-size': 1, 'workers': 0}.items():
    value = getattr(args, name.replace('-', '_'))
    if value is not None and value < minimum:
      raise UserError(f'--{name} is {value}; it must be at least {minimum}')
  if args.memory != 'predicted' and not args.checkpoint:
    raise UserError(f'--memory {args.memory} needs a checkpoint; add --checkpoint DIR')


def _check_kinds(reference, estimate):
  """Raise UserError if one is a file and the other a folder."""
  is_saved = estimate.is_file() and '.jsonl' in estimate.name
  if not is_saved and reference.exists() and estimate.exists() and reference.is_dir() != estimate.is_dir():
    folder, file = (reference, estimate) if reference.is_dir() else (estimate, reference)
    if file.is_file():
      raise UserError(f'{folder} is a folder but {file} is a file; give two files or two folders')


def _checkpoint_name(args):
  if not args.checkpoint:
    return None
  name = Path(args.checkpoint).resolve().name
  return name if args.memory == 'predicted' else f'{name}, memory {args.memory}'


def system_names(estimates: list[str]) -> dict[str, Path]:
  """Return {system name: path of its transcriptions}; UserError if two have the same name."""
  named = {}
  for text in estimates:
    name, is_named, path = text.partition('=')
    if not is_named or '/' in name or Path(text).exists():
      name, path = '', text
    path = Path(path)
    name = name or path.resolve().name.partition('.jsonl')[0]
    if name in named:
      raise UserError(f'{named[name]} and {path} have the same name {name}; give one another name: NAME={path}')
    named[name] = path
  return named


def format_table(summary) -> str:
  """Format a `summary.Summary` as a table: a row per piece, then the mean and its confidence interval."""
  from mrmt3.evaluation import metric_registry

  columns = {score.name: score.column or score.heading for score in metric_registry.shown_in('table')}
  rows = [
    (console.printable(piece.name) + (' (empty)' if piece.problem else ''), piece.scores) for piece in summary.pieces
  ]
  last = [(f'mean of {len(rows)} pieces', summary.mean)]
  if len(rows) == 1:
    rows, last = [], rows
  else:
    ends = {key: summary.interval(key) for key in columns}
    last += [(f'95 % {side}', {key: getattr(end, side) for key, end in ends.items()}) for side in ('low', 'high')]
  width = max(len(name) for name, _ in [*rows, *last])
  widths = {key: max(len(column), len('0.000')) for key, column in columns.items()}
  header = '  '.join([' ' * width, *(column.rjust(widths[key]) for key, column in columns.items())])
  rule = '-' * len(header)
  lines = [header, *([rule] + [_row(*row, width, widths) for row in rows] if rows else []), rule]
  return '\n'.join([*lines, *(_row(*row, width, widths) for row in last)])


def _row(name, scores, width, widths):
  return '  '.join([name.ljust(width), *(f'{scores[key]:.3f}'.rjust(column) for key, column in widths.items())])


def format_comparison(summaries) -> str:
  """Format several systems as a table: mean and interval of each score, and p values relative to the first system.

  A single piece has neither intervals nor p values.
  """
  from mrmt3.evaluation import metric_registry
  from mrmt3.evaluation.summary import compare

  shown = metric_registry.shown_in('comparison')
  (first, base), *others = summaries.items()
  names = {name: console.printable(name) for name in summaries}
  if len(base.pieces) == 1:
    rows = [
      [score.column or score.heading, *(f'{each.mean[score.name]:.3f}' for each in summaries.values())]
      for score in shown
    ]
    return _columns([['', *names.values()], *rows], 'of 1 piece: no intervals, no test')
  compared = {name: compare(base, other, [score.name for score in shown]) for name, other in others}
  table = [['', names[first], *(cell for name, _ in others for cell in (names[name], 'p'))]]
  for score in shown:
    cells = [_with_interval(base, score.name)]
    for name, other in others:
      p_value = compared[name][score.name].p_value
      cells += [_with_interval(other, score.name), f'{p_value:.3f}' if p_value >= 0.001 else '<.001']
    table.append([score.column or score.heading, *cells])
  test = f'p: the difference to {names[first]} (paired sign-flip test)'
  return _columns(table, f'means of {len(base.pieces)} pieces, 95 % intervals; {test}')


def _columns(table, end):
  widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
  lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
  return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:], end])


def _with_interval(summary, key):
  low, high = summary.interval(key)
  return f'{summary.mean[key]:.3f} ({low:.3f} .. {high:.3f})' if low == low else f'{summary.mean[key]:.3f}'


def _nan_to_none(values):
  """Convert numbers for JSON: NaN (a single piece has no interval) becomes None."""
  return {name: None if value != value else value for name, value in values.items()}


def _write_json(target, summaries):
  """Write all scores to a file or stdout (-)."""
  from mrmt3.evaluation import metric_registry
  from mrmt3.evaluation.summary import compare

  reports = {
    name: {'pieces': {piece.name: piece.scores for piece in summary.pieces}, **summary.as_json()}
    for name, summary in summaries.items()
  }
  report = next(iter(reports.values()))
  if len(reports) > 1:
    first, *others = summaries
    shown = [score.name for score in metric_registry.shown_in('comparison')]
    compared = {name: compare(summaries[first], summaries[name], shown) for name in others}
    differences = {
      name: {key: _nan_to_none(test._asdict()) for key, test in tests.items()} for name, tests in compared.items()
    }
    report = {'systems': reports, f'compared_with_{first}': differences}
  _write_text(target, json.dumps(report, indent=2) + '\n')


def _write_text(target, text):
  """Write text to a file or stdout (-)."""
  if target == '-':
    sys.stdout.write(text)
    return
  from mrmt3.utils.files import atomic_path

  with atomic_path(target) as temporary:
    temporary.write_text(text)
