"""`mrmt3 evaluate`: scores transcriptions against references."""

import argparse
import collections
import json
import sys
from pathlib import Path

from mrmt3.errors import UserError

_SUFFIXES = ('.mid', '.midi')
_COLUMNS = {
  'onset F1': 'onset_f1',
  'onset+program F1': 'onset_program_f1',
  'leakage ratio': 'leakage_ratio',
  'instrument F1': 'instrument_detection_f1',
}
_EXPLANATION = f"""\
onset F1          notes with the right pitch, within 50 ms
onset+program F1  of these, with an instrument of the right family (MIDI class)
leakage ratio     instruments heard / instruments that play; 1 is right
instrument F1     which instruments play
Instruments are Slakh classes; all drums are one. The mean is over pieces; a
transcription that is missing or cannot be read counts as empty.

Folders are searched for {' and '.join(_SUFFIXES)} files, which are matched by path
(a/song.mid) or else by name. A folder of Slakh tracks can be the reference:
TrackNNNNN is matched with TrackNNNNN.mid.
"""


def add_parser(subparsers) -> None:
  """Adds `evaluate` to the commands."""
  parser = subparsers.add_parser(
    'evaluate',
    help='score transcriptions against references',
    description='Scores a transcription (MIDI file) against a reference, or a folder of them against another.',
    epilog=_EXPLANATION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('reference', metavar='REF', help='MIDI file, or folder of MIDI files or Slakh tracks')
  parser.add_argument('estimate', metavar='EST', help='MIDI file, or folder of MIDI files')
  parser.add_argument('--json', metavar='FILE', help='also write all scores there; - for stdout, in place of the table')
  parser.add_argument(
    '--mt3-suite', action='store_true', help="add MT3's frame, velocity and tolerance scores to the JSON"
  )
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Prints and writes the scores; returns 0."""
  from tqdm import tqdm

  from mrmt3 import metrics

  pairs = find_pairs(Path(args.reference), Path(args.estimate))
  pieces, problems = {}, {}
  progress = tqdm(pairs.items(), unit='piece', leave=False, disable=not sys.stderr.isatty())
  for name, (read_reference, estimate) in progress:
    notes, problem = _read_estimate(estimate)
    pieces[name] = read_reference(), notes
    if problem:
      problems[name] = problem
  try:
    evaluation = metrics.evaluate_pieces(pieces, mt3_suite=args.mt3_suite)
  except ValueError as error:
    raise UserError(f'cannot score {error}') from error
  for name, problem in problems.items():
    print(f'mrmt3: warning: {name} counts as empty: {problem}', file=sys.stderr)
  if args.json != '-':
    print(format_table(evaluation))
  if args.json:
    _write_json(args.json, evaluation, problems)
  return 0


def _read_estimate(path):
  """Returns (notes or None, why they are None) of an estimate's file, which may be missing (None)."""
  from mrmt3.midi_io import read_midi

  if path is None:
    return None, 'there is no transcription of it'
  try:
    return read_midi(path), ''
  except UserError as error:
    return None, str(error)


def find_pairs(reference: Path, estimate: Path) -> dict[str, tuple]:
  """Returns `{name: (function that reads the reference's notes, path of the estimate or None)}`, by name.

  Raises UserError if something is missing, a file meets a folder, or no piece has an estimate. Estimates that belong to
  no reference are named on stderr.
  """
  for path in (reference, estimate):
    if not path.exists():
      raise UserError(f'no such file or folder: {path}')
    if not path.is_dir() and not path.is_file():
      raise UserError(f'{path} is neither a file nor a folder; save it as a MIDI file first')
  if reference.is_dir() != estimate.is_dir():
    folder, file = (reference, estimate) if reference.is_dir() else (estimate, reference)
    raise UserError(f'{folder} is a folder but {file} is a file; give two files or two folders')
  if not reference.is_dir():
    return {reference.stem: (_midi_reader(reference), estimate)}

  readers = _references_in(reference)
  estimates = _midi_files(estimate)
  # Names that stand for one piece only on either side; a mix.mid in every folder tells nothing.
  own_names = _unique_names(readers).keys() & (by_name := _unique_names(estimates)).keys()
  pairs = {}
  for name, reader in readers.items():
    last = Path(name).name
    pairs[name] = reader, estimates.get(name) or (estimates[by_name[last]] if last in own_names else None)
  used = {path for _, path in pairs.values()}
  if not used - {None}:
    raise UserError(f'nothing in {estimate} has the name of a piece in {reference} (such as {next(iter(readers))}.mid)')
  for path in estimates.values():
    if path not in used:
      print(f'mrmt3: warning: {path} is left out: no reference of that name', file=sys.stderr)
  return pairs


def _references_in(folder):
  """Returns `{name: reader}` of the Slakh tracks of a folder, or else of its MIDI files."""
  from mrmt3 import slakh

  if any(folder.glob('Track*/metadata.yaml')) or any(folder.glob('*/Track*/metadata.yaml')):
    # all_src.mid has wrong octaves and stems that are not in the mix: the reader takes the stems' own files.
    tracks = slakh.find_tracks(folder)
    return {str(track.path.relative_to(folder)): lambda track=track: slakh.read_notes(track) for track in tracks}
  files = _midi_files(folder)
  if not files:
    raise UserError(f'{folder} holds no MIDI files and no Slakh tracks to compare with')
  return {name: _midi_reader(path) for name, path in files.items()}


def _midi_files(folder):
  """Returns `{relative path without suffix: path}` of the MIDI files in a folder and below, sorted."""
  paths = sorted(path for path in folder.rglob('*') if path.suffix.lower() in _SUFFIXES and path.is_file())
  named = {path.relative_to(folder).with_suffix('').as_posix(): path for path in paths}
  twins = [path for path in paths if path not in named.values()]
  if twins:
    raise UserError(f'{twins[0]} has the same name as another MIDI file beside it; remove or rename one of them')
  return named


def _midi_reader(path):
  from mrmt3.midi_io import read_midi

  return lambda: read_midi(path)


def _unique_names(paths):
  """Returns `{last part: path}` of the relative paths whose last part occurs once."""
  counts = collections.Counter(Path(path).name for path in paths)
  return {Path(path).name: path for path in paths if counts[Path(path).name] == 1}


def format_table(evaluation) -> str:
  """Returns a `metrics.Evaluation` as aligned lines: a header, the pieces, and, of several, the mean."""
  remarks = dict.fromkeys(evaluation.failed, ' (empty)')
  rows = [(name + remarks.get(name, ''), scores) for name, scores in evaluation.pieces.items()]
  mean = (f'mean of {len(rows)} pieces', evaluation.mean)
  if len(rows) == 1:
    rows, mean = [], rows[0]
  width = max(len(name) for name, _ in [*rows, mean])
  header = '  '.join([' ' * width, *_COLUMNS])
  rule = '-' * len(header)
  return '\n'.join([header, *([rule] + [_row(*row, width) for row in rows] if rows else []), rule, _row(*mean, width)])


def _row(name, scores, width):
  cells = [f'{scores[key]:.3f}'.rjust(len(title)) for title, key in _COLUMNS.items()]
  return '  '.join([name.ljust(width), *cells])


def _write_json(target, evaluation, problems):
  """Writes everything to a file or stdout (-)."""
  report = {'pieces': evaluation.pieces, 'mean': evaluation.mean, 'counted_as_empty': problems}
  text = json.dumps(report, indent=2) + '\n'
  if target == '-':
    sys.stdout.write(text)
    return
  from mrmt3.files import atomic_path

  with atomic_path(target) as temporary:
    temporary.write_text(text)
