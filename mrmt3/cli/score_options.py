"""The options of bars and sheet music in `transcribe`."""

import argparse

OUTPUTS = {
  'musicxml': 'sheet music that notation programs open',
  'pdf': 'pages; needs MuseScore',
  'svg': 'pages as one image; needs verovio',
  'performance': 'with --quantize, also a MIDI file with the times as played: song.played.mid, or FILE.mid',
}


def add(group: argparse._ArgumentGroup) -> None:
  """Add the options to a group of a parser."""
  group.add_argument(
    '--tempo',
    metavar='auto|BPM|none',
    help='MIDI with bars: auto finds beats, tempo, metre and key; BPM is a constant tempo; none writes 120 bpm without '
    'bars (default: none, or auto if one of the next options is given)',
  )
  group.add_argument(
    '--quantize', metavar='GRID', help='MIDI notes on a grid: 1/16 or 1/8, or 1/16,triplets; sheets have 1/16,triplets'
  )
  for kind, text in OUTPUTS.items():
    suffix = '' if kind == 'performance' else '; next to the MIDI file unless FILE is given'
    group.add_argument(f'--{kind}', nargs='?', const='', metavar='FILE', help=text + suffix)
  group.add_argument(
    '--clean',
    action='store_true',
    help='merge stuttered repeats, drop very short notes, mend notes cut at segment borders',
  )


def read(args: argparse.Namespace):
  """Return the `ScoreOptions` of arguments; UserError if they exclude each other."""
  from mrmt3.errors import UserError
  from mrmt3.inference.jobs import SHEET_SUFFIXES
  from mrmt3.score.options import NO_TEMPO, ScoreOptions

  asked = args.quantize is not None or any(getattr(args, kind, None) is not None for kind in OUTPUTS)
  asked = asked or str(args.output or '').lower().endswith(SHEET_SUFFIXES)
  options = ScoreOptions(args.tempo or ('auto' if asked else NO_TEMPO), args.quantize)
  options.check()
  if args.performance is not None and args.quantize is None:
    raise UserError('--performance needs --quantize: without it, the MIDI file has the times as played')
  return options


def check_programs(outputs: dict[str, str | None]) -> None:
  """Raise UserError before the work if a program is missing that an output needs."""
  from mrmt3.score import render

  if outputs.get('pdf') is not None:
    render.check_pdf()
  if outputs.get('svg') is not None:
    render.check_svg()
