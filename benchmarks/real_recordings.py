"""Measures a model where songs start, at segment borders, at low levels, and with the instruments named.

  python benchmarks/real_recordings.py --slakh demo/data --recordings ../shared/real

For songs in the Slakh2100 layout and for recordings with reference notes (audio/NAME.*, ref/NAME.mid) it prints

- the mean onset F1 and class F1 (the F1 of notes with the right Slakh class),
- how many of the reference notes in the first 50 ms are found,
- the share of the pitched notes that end within 15 ms of a segment border, and of a multiple of 2 s,
- the multiple of real time,

as it is, with `--instruments` given the reference's instruments, with silence in front, and at lower levels.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.data import slakh_layout
from mrmt3.evaluation import note_scores
from mrmt3.inference import loading
from mrmt3.inference import transcriber as inference
from mrmt3.metrics_utils import match_notes
from mrmt3.notes import instruments, midi

CASES = ('plain', 'instruments', 'silence', '-24 dB', '-36 dB', '-60 dB')
FIRST = 0.05  # s, how far into a song its first notes lie
SILENCE = 0.1  # s
BORDER = 0.015  # s
OLD_BORDERS = 2.0  # s between the borders of segments without context


def read_slakh(folder: str, split: str) -> list[tuple[str, np.ndarray, Path]]:
  """Return (name, reference notes, audio file) of each track of a data set."""
  tracks = slakh_layout.find_tracks(folder, split)
  return [(track.path.name, slakh_layout.read_notes(track), track.audio_path) for track in tracks]


def read_recordings(folder: str) -> list[tuple[str, np.ndarray, Path]]:
  """Return (name, reference notes, audio file) of each recording."""
  files = sorted((Path(folder) / 'audio').iterdir())
  return [(file.stem, midi.read_midi(Path(folder) / 'ref' / f'{file.stem}.mid'), file) for file in files]


def names_of(notes: np.ndarray) -> list[str]:
  """Return the instruments of notes as `--instruments` takes them."""
  names = [
    'drums' if is_drum else instruments.slakh_class_name(program)
    for program, is_drum in instruments.instruments_of(notes)
  ]
  return sorted(set(names))


def end_at(notes: np.ndarray, period: float) -> float:
  """Return the share of the pitched notes that end near a multiple of `period`, s."""
  ends = notes['offset'][~notes['is_drum']]
  near = np.abs(ends - period * np.round(ends / period)) <= BORDER
  return float(near.mean()) if len(near) else 0.0


def first_notes(reference: np.ndarray, found: np.ndarray) -> tuple[int, int]:
  """Return how many of the notes that begin in the first 50 ms are found, and how many there are."""
  first = reference[reference['onset'] < FIRST]
  return sum(bool(len(match_notes(first[k : k + 1], found))) for k in range(len(first))), len(first)


def measure(transcriber: inference.Transcriber, pieces: list, case: str) -> dict:
  """Transcribe the pieces in one of `CASES`; return a row of numbers by name."""
  rate, rows, took, seconds, found_first, all_first = transcriber.sample_rate, [], 0.0, 0.0, 0, 0
  for name, reference, file in pieces:
    samples = audio_files.read_audio(file, rate)
    shift = SILENCE if case == 'silence' else 0.0
    samples = np.concatenate([np.zeros(round(shift * rate), np.float32), samples])
    if case.endswith('dB'):
      samples = samples * np.float32(10 ** (float(case.split()[0]) / 20))
    options = {'instruments': names_of(reference)} if case == 'instruments' else {}
    start = time.perf_counter()
    notes = transcriber.transcribe(samples, **options).notes.copy()
    took, seconds = took + time.perf_counter() - start, seconds + len(samples) / rate
    border = float(transcriber.spec.step_frames / transcriber.spec.spectrogram.frame_rate)
    ends = end_at(notes, border), end_at(notes, OLD_BORDERS)
    for field in ('onset', 'offset'):
      notes[field] = np.maximum(notes[field] - shift, 0)
    classes = [instruments.map_to_slakh_classes(table) for table in (reference, notes)]
    scores = (
      note_scores.onset_scores(reference, notes),
      note_scores.program_scores(*classes, 'full'),
      note_scores.onset_offset_scores(reference, notes),
    )
    first = first_notes(reference, notes)
    found_first, all_first = found_first + first[0], all_first + first[1]
    pitched = int((~notes['is_drum']).sum())
    rows.append((name, len(notes), *(score.f1 for score in scores), *ends, pitched))
  return {'rows': rows, 'first': (found_first, all_first), 'speed': seconds / took}


def main() -> None:
  """Measure, and print a table for each group of pieces."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--checkpoint', help='checkpoint to transcribe with (default: the bundled model)')
  parser.add_argument('--slakh', help='data set in the Slakh2100 layout, such as the data folder of `mrmt3 demo`')
  parser.add_argument('--split', default='test', help='its split (default: test)')
  parser.add_argument('--recordings', help='folder with audio/ and ref/')
  parser.add_argument('--only', nargs='+', help='names of the pieces to transcribe (default: all)')
  parser.add_argument('--cases', nargs='+', default=list(CASES), choices=CASES, help='what to measure (default: all)')
  parser.add_argument('--decoding', nargs='+', default=[], metavar='NAME=N', help='change fields of DecodingConfig')
  parser.add_argument('--each', action='store_true', help='print each piece')
  args = parser.parse_args()
  params, spec, _ = orbax_checkpoints.restore_params(loading.find_model(args.checkpoint))
  fields = dict(x.split('=') for x in args.decoding)
  changes = {name: type(getattr(spec.decoding, name))(int(value)) for name, value in fields.items()}
  spec = dataclasses.replace(spec, decoding=dataclasses.replace(spec.decoding, **changes))
  transcriber = inference.Transcriber(params, spec)
  groups = {}
  if args.slakh:
    groups['songs'] = read_slakh(args.slakh, args.split)
  if args.recordings:
    groups['recordings'] = read_recordings(args.recordings)
  transcriber.transcribe(np.zeros(3 * transcriber.sample_rate, np.float32))  # compiles
  print(spec.decoding)
  heads = ('onset F1', 'class F1', 'offset F1', 'at border', 'at 2 s', 'first 50 ms', 'x real time')
  for group, pieces in groups.items():
    pieces = [piece for piece in pieces if args.only is None or piece[0] in args.only]
    print(f'{group}: {len(pieces)}\n{"":<36} {"notes":>6} ' + ' '.join(f'{head:>11}' for head in heads))
    for case in args.cases:
      result = measure(transcriber, pieces, case)
      rows, first = result['rows'], '{} of {}'.format(*result['first'])
      if args.each:
        for name, count, *numbers, _ in rows:
          print(f'  {name[:34]:<34} {count:>6} ' + ' '.join(f'{number:>11.3f}' for number in numbers), flush=True)
      table = np.array([row[1:] for row in rows], float)
      weights = table[:, -1]  # shares are those of all notes
      numbers = [*table[:, 1:4].mean(axis=0), *(table[:, 4:6] * weights[:, None]).sum(axis=0) / max(1, weights.sum())]
      print(
        f'{case:<36} {int(table[:, 0].sum()):>6} '
        + ' '.join(f'{number:>11.3f}' for number in numbers)
        + f' {first:>11} {result["speed"]:>11.1f}',
        flush=True,
      )


if __name__ == '__main__':
  main()
