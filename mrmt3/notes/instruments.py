"""Instruments: General MIDI programs, the 34 Slakh classes of MT3 and MR-MT3, and names.

An instrument is a pair (program, is_drum); all drums are one instrument. A program's Slakh class is the class with the
highest program that is not above it (Slakh2100's taxonomy, as in MT3).
"""

import numpy as np

DRUM_CHANNEL = 9  # zero-based; MIDI's "channel 10"
DRUM_COLOR = '#7f7f7f'

SLAKH_CLASSES = {
  'Acoustic Piano': 0,
  'Electric Piano': 4,
  'Chromatic Percussion': 8,
  'Organ': 16,
  'Acoustic Guitar': 24,
  'Clean Electric Guitar': 26,
  'Distorted Electric Guitar': 29,
  'Acoustic Bass': 32,
  'Electric Bass': 33,
  'Violin': 40,
  'Viola': 41,
  'Cello': 42,
  'Contrabass': 43,
  'Orchestral Harp': 46,
  'Timpani': 47,
  'String Ensemble': 48,
  'Synth Strings': 50,
  'Choir and Voice': 52,
  'Orchestral Hit': 55,
  'Trumpet': 56,
  'Trombone': 57,
  'Tuba': 58,
  'French Horn': 60,
  'Brass Section': 61,
  'Soprano/Alto Sax': 64,
  'Tenor Sax': 66,
  'Baritone Sax': 67,
  'Oboe': 68,
  'English Horn': 69,
  'Bassoon': 70,
  'Clarinet': 71,
  'Pipe': 73,
  'Synth Lead': 80,
  'Synth Pad': 88,
}

NUM_CLASSES = len(SLAKH_CLASSES)
CLASS_PROGRAMS = np.array(sorted(SLAKH_CLASSES.values()), np.int32)  # each class's program, sorted
_CLASS_NAMES = {program: name for name, program in SLAKH_CLASSES.items()}


def class_index(program):
  """Return the index 0..33 of the Slakh class of `program` (a number or an array, 0..127), in order of programs."""
  return np.searchsorted(CLASS_PROGRAMS, program, side='right') - 1


def slakh_class_program(program):
  """Return the program that represents the Slakh class of `program` (a number or an array, 0..127)."""
  mapped = CLASS_PROGRAMS[class_index(np.asarray(program))]
  return mapped if mapped.ndim else int(mapped)


def slakh_class_name(program: int) -> str:
  """Return the name of a program's Slakh class, as in `inst_class` of Slakh's metadata.yaml."""
  return _CLASS_NAMES[slakh_class_program(program)]


def map_to_slakh_classes(notes: np.ndarray) -> np.ndarray:
  """Return a copy of a note table with each program replaced by its Slakh class's program, and drums at program 0."""
  notes = notes.copy()
  notes['program'] = np.where(notes['is_drum'], 0, slakh_class_program(notes['program']))
  return notes


def instruments_of(notes: np.ndarray) -> list[tuple[int, bool]]:
  """Return the distinct (program, is_drum) of a note table: pitched ones by program, then drums as (0, True)."""
  pitched = np.unique(notes['program'][~notes['is_drum']])
  return [(int(p), False) for p in pitched] + ([(0, True)] if notes['is_drum'].any() else [])


def notes_of(notes: np.ndarray, program: int, is_drum: bool) -> np.ndarray:
  """Return the notes of one instrument of `instruments_of`; drum notes match whatever their program."""
  return notes[notes['is_drum'] if is_drum else ~notes['is_drum'] & (notes['program'] == program)]


def instrument_name(program: int, is_drum: bool) -> str:
  """Return a track name: the Slakh class that `program` represents, if any, else the General MIDI name."""
  if is_drum:
    return 'Drums'
  if program in _CLASS_NAMES:
    return _CLASS_NAMES[program]
  import pretty_midi

  return pretty_midi.program_to_instrument_name(int(program))
