"""NoteSequence protos: tracks, trimming, instrument numbers, and conversion to and from note tables (as in MT3).

Functions that take a proto do not import note_seq (which takes 2 s); functions that create one do.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from mrmt3.notes import note_array as note_tables
from mrmt3.notes.instruments import DRUM_CHANNEL

DEFAULT_VELOCITY = 100
DEFAULT_NOTE_DURATION = 0.01  # s; of drums, and of all notes if the tokens have no note-offs
TICKS_PER_QUARTER = 220


@dataclasses.dataclass
class TrackSpec:
  """A track that is scored separately: its name, program, and whether it is drums."""

  name: str
  program: int = 0
  is_drum: bool = False


def new_note_sequence():
  """Return an empty NoteSequence. Imports note_seq."""
  from note_seq.protobuf import music_pb2

  return music_pb2.NoteSequence(ticks_per_quarter=TICKS_PER_QUARTER)


def add_notes(ns, rows: Iterable[tuple]) -> None:
  """Add rows of a note table to a NoteSequence and extend its total_time."""
  for onset, offset, pitch, velocity, program, is_drum in rows:
    ns.notes.add(start_time=onset, end_time=offset, pitch=pitch, velocity=velocity, program=program, is_drum=is_drum)
    ns.total_time = max(ns.total_time, offset)


def extract_track(ns, program: int, is_drum: bool):
  """Return a new NoteSequence with the notes of this program and is_drum."""
  track = type(ns)(ticks_per_quarter=TICKS_PER_QUARTER)
  track.notes.extend(note for note in ns.notes if note.program == program and note.is_drum == is_drum)
  track.total_time = max((note.end_time for note in track.notes), default=0.0)
  return track


def trim_overlapping_notes(ns):
  """Return a copy whose notes are cut at the next onset of their pitch, program and is_drum; empty notes are dropped.

  `notes.note_array.trim_overlapping_notes` does the same for a note table.
  """
  offset, kept = note_tables.trimmed_offsets(note_sequence_to_notes(ns, drum_programs=True))
  trimmed = type(ns)()
  trimmed.CopyFrom(ns)
  del trimmed.notes[:]
  for index in kept.nonzero()[0]:
    note = trimmed.notes.add()
    note.CopyFrom(ns.notes[index])
    note.end_time = offset[index]
  return trimmed


def assign_instruments(ns) -> None:
  """Number the instruments of a NoteSequence in place, by first appearance; 9 is reserved for drums."""
  numbers = {}
  for note in ns.notes:
    if note.is_drum:
      note.instrument = DRUM_CHANNEL
    else:
      count = len(numbers)
      note.instrument = numbers.setdefault(note.program, count + (count >= DRUM_CHANNEL))


def validate_note_sequence(ns) -> None:
  """Raise ValueError for a note that does not end after its onset, or has velocity 0."""
  for note in ns.notes:
    if note.start_time >= note.end_time:
      raise ValueError(f'a note of pitch {note.pitch} has onset {note.start_time} s and offset {note.end_time} s')
    if note.velocity == 0:
      raise ValueError(f'the note of pitch {note.pitch} at {note.start_time} s has velocity 0')


def note_arrays_to_note_sequence(
  onset_times: Sequence[float],
  pitches: Sequence[int],
  offset_times: Sequence[float] | None = None,
  velocities: Sequence[int] | None = None,
  programs: Sequence[int] | None = None,
  is_drums: Sequence[bool] | None = None,
):
  """Return a NoteSequence with instruments assigned. Imports note_seq.

  Args:
    onset_times: `[n]` s.
    pitches: `[n]`.
    offset_times: `[n]` s; None: `DEFAULT_NOTE_DURATION` after the onset.
    velocities: `[n]`; None: `DEFAULT_VELOCITY`.
    programs: `[n]`; None: 0.
    is_drums: `[n]`; None: no drums.
  """
  ns = new_note_sequence()
  if offset_times is None:
    offset_times = [onset + DEFAULT_NOTE_DURATION for onset in onset_times]
  defaults = ((velocities, DEFAULT_VELOCITY), (programs, 0), (is_drums, False))
  more = (itertools.repeat(default) if values is None else values for values, default in defaults)
  add_notes(ns, zip(onset_times, offset_times, pitches, *more, strict=False))
  assign_instruments(ns)
  return ns


def notes_to_note_sequence(notes: np.ndarray):
  """Convert a note table to a NoteSequence with instruments assigned, keeping the order. Imports note_seq."""
  ns = new_note_sequence()
  add_notes(ns, note_tables.labels_of(notes).tolist())
  assign_instruments(ns)
  return ns


def note_sequence_to_notes(note_sequence, drum_programs: bool = False) -> np.ndarray:
  """Convert a NoteSequence to a note table, keeping the order; drums get program 0 unless `drum_programs`."""
  rows = [
    (note.start_time, note.end_time, note.pitch, note.velocity, note.program, note.is_drum)
    for note in note_sequence.notes
  ]
  notes = note_tables.from_tuples(rows)
  if not drum_programs:
    notes['program'][notes['is_drum']] = 0
  return notes
