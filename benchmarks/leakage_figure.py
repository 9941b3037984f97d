"""Plots an example of instrument leakage: `python benchmarks/leakage_figure.py OUT.png`, the figure of docs/metrics.md.

It shows a synthetic piece for piano, bass and violin, and a transcription as it is typical of a model without memory:
the instrument of a line changes from segment to segment (2 s).
"""

import sys

import numpy as np

from mrmt3.errors import UserError
from mrmt3.evaluation import metric_registry
from mrmt3.notes.instruments import instrument_name, instruments_of
from mrmt3.notes.note_array import as_notes
from mrmt3.plots import piano_roll

PIANO, BASS, VIOLIN, CELLO, VIOLA, GUITAR = 0, 32, 40, 42, 41, 24
_SEGMENT = 2.0  # s, about a segment of MT3
_MELODY = (76, 79, 81, 79, 76, 74, 72, 74, 76, 79, 84, 83, 81, 79, 77, 79)
_CHORDS = ((60, 64, 67), (57, 60, 64), (53, 57, 60), (55, 59, 62))


def piece() -> np.ndarray:
  """Return the reference, a note array of eight seconds."""
  rows = [(0.5 * place, 0.5 * place + 0.45, pitch, 90, VIOLIN, 0) for place, pitch in enumerate(_MELODY)]
  for place, chord in enumerate(_CHORDS):
    rows += [(2.0 * place, 2.0 * place + 1.8, pitch, 70, PIANO, 0) for pitch in chord]
    rows += [(2.0 * place + beat, 2.0 * place + beat + 0.9, chord[0] - 24, 80, BASS, 0) for beat in (0.0, 1.0)]
  return as_notes(rows)


def leaked(notes: np.ndarray) -> np.ndarray:
  """Return a transcription with correct notes whose instruments change from segment to segment."""
  notes = notes.copy()
  predicted = {
    VIOLIN: (VIOLIN, VIOLA, VIOLIN, CELLO),
    PIANO: (PIANO, PIANO, GUITAR, PIANO),
    BASS: (BASS, BASS, BASS, PIANO),
  }
  segment = (notes['onset'] // _SEGMENT).astype(int)
  notes['program'] = [predicted[int(program)][place] for program, place in zip(notes['program'], segment, strict=True)]
  return notes


def describe() -> str:
  """Return the scores of the example, one per line."""
  reference, estimate = piece(), leaked(piece())
  scores = metric_registry.evaluate_piece(reference, estimate)
  instruments = ', '.join(instrument_name(*instrument) for instrument in instruments_of(estimate))
  names = (
    'onset_f1',
    'onset_program_f1',
    'onset_program_f1_full',
    'leakage_ratio',
    'log_leakage_ratio',
    'instrument_detection_f1',
    'leaked_note_ratio',
    'track_switches_per_minute',
  )
  return '\n'.join([f'predicted: {instruments}', *(f'{name} {scores[name]:.3f}' for name in names)])


def main(argv: list[str]) -> int:
  """Write the figure and print its scores; return the exit code."""
  if len(argv) != 1:
    print('mrmt3: error: usage: python benchmarks/leakage_figure.py OUT.png', file=sys.stderr)
    return 2
  try:
    piano_roll.piano_roll(
      argv[0], piece(), leaked(piece()), title='Every note is right, and yet three instruments have become six'
    )
  except UserError as error:
    print(f'mrmt3: error: {error}', file=sys.stderr)
    return 2
  print(describe())
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
