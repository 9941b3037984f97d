"""`mrmt3 bench real`: scores on real recordings, by kind."""

import argparse
import os
import sys
from pathlib import Path

from mrmt3.cli import devices

_COLUMNS = (
  ('onset_f1', 'onset F1'),
  ('onset_f1_100ms', 'at 100 ms'),
  ('class_f1', 'class F1'),
  ('leakage_ratio', 'leakage'),
  ('instrument_precision', 'instr. P'),
  ('instrument_recall', 'instr. R'),
  ('ends_at_border', 'ends: own'),
  ('ends_at_2s', 'ends: 2 s'),
  ('velocity_correlation', 'velocity'),
  ('drum_recall', 'drum R'),
)
_EPILOG = """\
onset F1     notes of the right pitch within 50 ms; class F1 also of the right Slakh class
leakage      detected instruments / reference instruments; read it with precision and recall of instruments
ends         share of pitched notes that end within 15 ms of a border of the model's own segments, and of 2 s, less the
             reference's share
velocity     correlation of the velocities of matched notes
A dash means that there is no such score: basic-pitch tells no instruments apart, a model may have no velocities.
docs/real.md has the figures.
"""


def add_parser(tests) -> None:
  """Add `real` to the tests of `bench`."""
  parser = tests.add_parser(
    'real',
    help='score a model on real recordings, by kind',
    description='Transcribes recordings with reference notes and prints scores by kind: DIR/audio/NAME.* with '
    'DIR/ref/NAME.mid, and tracks in DIR/slakh. The kind is the name up to its first _, or that in DIR/kinds.json.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('folder', nargs='?', metavar='DIR', help='folder of recordings (default: $MRMT3_REAL)')
  parser.add_argument(
    '--checkpoint', metavar='DIR', help='model, or a name of `mrmt3 fetch --list`; default: the bundled one'
  )
  parser.add_argument('--midi', metavar='DIR', help='score the files NAME.mid of this folder instead of a model')
  parser.add_argument('--peer-python', metavar='PYTHON', help='also score basic-pitch, which this Python has')
  parser.add_argument(
    '--peer-midi', metavar='DIR', help='also score the files NAME.mid of this folder, without instruments'
  )
  parser.add_argument(
    '--case',
    default='plain',
    metavar='CASE',
    help='plain, instruments (as with --instruments), silence (0.1 s in front), or a level: -24 dB, -36 dB, -60 dB',
  )
  parser.add_argument('--only', nargs='+', metavar='NAME', help='names of the recordings to take (default: all)')
  parser.add_argument('--each', action='store_true', help='print each recording')
  parser.add_argument('--json', metavar='FILE', help='write the scores of each recording')
  devices.add_option(parser)
  parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
  """Print the scores; returns 0, or 2 if a recording could not be scored."""
  from mrmt3.errors import UserError
  from mrmt3.evaluation import real_recordings
  from mrmt3.utils import console, files

  if args.case not in real_recordings.CASES:
    raise UserError(f'--case {args.case}: give one of {", ".join(real_recordings.CASES)}')
  if args.case != 'plain' and args.midi:
    raise UserError(f'--case {args.case} needs a model; leave --midi out')
  folder = args.folder or os.environ.get('MRMT3_REAL')
  if not folder:
    raise UserError('no recordings are named; give a folder with audio/ and ref/, or set MRMT3_REAL')
  recordings, problems = real_recordings.find_recordings(Path(folder))
  if args.only:
    unknown = sorted(set(args.only) - {recording.name for recording in recordings})
    if unknown:
      raise UserError(f'--only {unknown[0]}: no such recording; there are {", ".join(r.name for r in recordings)}')
    recordings = [recording for recording in recordings if recording.name in args.only]
  if args.json:
    files.check_writable([Path(args.json)])
  systems = _systems(args)
  rows, failed = {name: [] for name in systems}, len(problems)
  for line in problems:
    print(f'mrmt3: error: {line}', file=sys.stderr)
  for recording in recordings:
    try:
      reference = recording.read_notes()
      if not len(reference):
        raise UserError(f'{recording.name}: the reference has no notes')
      scores = {name: system(recording, reference) for name, system in systems.items()}
    except UserError as error:  # of one system: then of none, so that all have the same recordings
      failed += 1
      print(f'mrmt3: error: {error}', file=sys.stderr)
      continue
    for name, own in scores.items():
      rows[name].append({'name': recording.name, 'kind': recording.kind, **own})
  for name, own in rows.items():
    if own:
      _print(name, args.case, own, args.each)
  if args.json:
    real_recordings.write_json(Path(args.json), rows)
  if failed:
    print(f'mrmt3: error: {console.counted(failed, "recording")} could not be scored', file=sys.stderr)
  return 2 if failed else 0


def _systems(args):
  """Return name -> function of (recording, reference) that returns scores."""
  from mrmt3.evaluation import basic_pitch, real_recordings
  from mrmt3.notes import midi

  systems = {}
  if args.midi:
    systems[args.midi] = lambda recording, reference: real_recordings.score(
      reference, midi.read_midi(Path(args.midi) / f'{recording.name}.mid'), recording.kind, None
    )
  else:
    systems['mrmt3'] = _model(args)
  if args.peer_python:
    systems['basic-pitch'] = lambda recording, reference: real_recordings.score(
      reference, basic_pitch.transcribe(args.peer_python, recording.audio), recording.kind, None, False
    )
  if args.peer_midi:
    systems[args.peer_midi] = lambda recording, reference: real_recordings.score(
      reference, midi.read_midi(Path(args.peer_midi) / f'{recording.name}.mid'), recording.kind, None, False
    )
  return systems


def _model(args):
  """Return a function of (recording, reference) that transcribes with a model, and returns scores and speed."""
  import time

  from mrmt3.audio import files as audio_files
  from mrmt3.evaluation import real_recordings
  from mrmt3.inference import loading
  from mrmt3.utils import compilation_cache

  folder = loading.find_model(args.checkpoint)
  devices.choose(args.device)
  compilation_cache.enable()
  transcriber = loading.load(folder)
  transcriber.warmup()
  rate = transcriber.sample_rate
  grid = float(transcriber.spec.step_frames / transcriber.spec.spectrogram.frame_rate)

  def system(recording, reference):
    samples = real_recordings.prepared(audio_files.read_audio(recording.audio, rate), rate, args.case)
    allowed = real_recordings.instrument_names(reference) if args.case == 'instruments' else None
    begin = time.perf_counter()
    notes = transcriber.transcribe(samples, rate, instruments=allowed).notes
    took = time.perf_counter() - begin
    notes = real_recordings.shifted(notes, args.case)
    return real_recordings.score(reference, notes, recording.kind, grid) | {
      'seconds': len(samples) / rate,
      'took': took,
    }

  return system


def _print(name, case, rows, each):
  """Print the table of a system."""
  from mrmt3.evaluation import real_recordings

  print(f'{name}, {case}; development set: these recordings are looked at while models are made')
  print(f'{"":<26} {"n":>3} {"notes":>7} ' + ' '.join(f'{title:>9}' for _, title in _COLUMNS))
  if each:
    for row in rows:
      _line(row['name'], 1, row)
  for kind, means in real_recordings.mean_by_kind(rows).items():
    _line(kind, means['n'], means)
  found, there = (sum(row.get(key, 0) for row in rows) for key in ('first_found', 'first_all'))
  print(f'notes in the first 50 ms: {found} of {there} found')
  took = sum(row.get('took', 0.0) for row in rows)
  if took:
    print(f'{sum(row["seconds"] for row in rows) / took:.0f} times as fast as it sounds')


def _line(name, count, row):
  cells = (row.get(key, float('nan')) for key, _ in _COLUMNS)
  print(
    f'{name[:26]:<26} {count:>3} {row["notes"]:>7.0f} '
    + ' '.join('        -' if c != c else f'{c:>9.3f}' for c in cells)
  )
