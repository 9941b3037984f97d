"""`mrmt3 notate`: sheet music, or MIDI with bars, from a MIDI file."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from mrmt3.cli import score_options
from mrmt3.errors import UserError

SUFFIXES = {
  '.musicxml': 'musicxml',
  '.xml': 'musicxml',
  '.pdf': 'pdf',
  '.svg': 'svg',
  '.mid': 'midi',
  '.midi': 'midi',
  '.json': 'json',
}


def add_parser(subparsers) -> None:
  """Add `notate` to the commands."""
  parser = subparsers.add_parser(
    'notate',
    help='write a MIDI file down as sheet music',
    description='Finds beats, bars and key of the notes in a MIDI file, and writes them as MusicXML, PDF or SVG, as a '
    'MIDI file with a tempo map, or as JSON.',
  )
  parser.add_argument('midi', metavar='MIDI', help='MIDI file; its own tempo and bars are not used')
  parser.add_argument(
    '-o',
    '--output',
    metavar='FILE',
    action='append',
    required=True,
    help='song.musicxml, .pdf (needs MuseScore), .svg (needs verovio), .mid or .json; may be repeated',
  )
  parser.add_argument('--tempo', metavar='auto|BPM', default='auto', help='default: auto')
  parser.add_argument(
    '--quantize', metavar='GRID', help='1/16, or 1/16,triplets (default of sheets); a .mid is quantised only if given'
  )
  parser.add_argument('--clean', action='store_true', help='merge stuttered repeats and drop very short notes')
  parser.add_argument('--title', default=None, help="of the sheet; default: the file's name")
  parser.add_argument('--quiet', action='store_true', help='print errors only')
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Write all outputs; raises UserError."""
  from mrmt3.inference.outputs import write_sheet
  from mrmt3.notes import midi
  from mrmt3.score.clean import clean
  from mrmt3.score.options import NO_TEMPO, ScoreOptions
  from mrmt3.utils import warning_lines
  from mrmt3.utils.files import atomic_path

  options = ScoreOptions(args.tempo, args.quantize)
  if args.tempo == NO_TEMPO:
    raise UserError('--tempo none: a sheet needs bars; give auto or beats per minute')
  options.check()
  kinds = [_kind(output) for output in args.output]
  score_options.check_programs(dict.fromkeys(kinds, ''))
  if any(Path(output).absolute() == Path(args.midi).absolute() for output in args.output):
    raise UserError(f'{args.midi} is the input and cannot be an output; give another name')
  with warning_lines.hidden() if args.quiet else contextlib.nullcontext():
    notes = midi.read_midi(args.midi)
  if args.clean:
    notes = clean(notes)
  analysis = options.analyze(notes)
  title = Path(args.midi).stem if args.title is None else args.title
  sheet = None
  for output, kind in zip(args.output, kinds, strict=True):
    if kind == 'midi':
      if analysis.tempo is None:
        raise UserError(f'{args.midi}: {analysis.summary()}; name the tempo with --tempo BPM')
      played, clock = options.midi(notes, analysis)
      midi.write_midi(played, output, clock)
    elif kind == 'json':
      with atomic_path(output) as temporary:
        temporary.write_text(json.dumps({'midi': args.midi, **analysis.record()}) + '\n', encoding='utf-8')
    else:
      sheet = sheet or options.musicxml(notes, analysis, title, args.midi)
      write_sheet(kind, sheet, Path(output))
  if not args.quiet:
    print(f'{args.midi}: {analysis.summary()}', file=sys.stderr)
  return 0


def _kind(output):
  kind = SUFFIXES.get(Path(output).suffix.lower())
  if kind is None:
    raise UserError(f'-o {output}: the name must end in {", ".join(SUFFIXES)}')
  return kind
