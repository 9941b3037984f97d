"""Notes as JSON: what the API sends, and what the page sends back after edits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes import export
from mrmt3.notes.note_array import NOTE_DTYPE, empty_notes, sort_notes

MAX_NOTES = 200_000
MAX_SECONDS = 40_000.0  # the range of a MIDI file at 1 ms a tick
# field -> (lowest, highest) value of a note in a request
_INTEGERS = {'pitch': (0, 127), 'velocity': (1, 127), 'program': (0, 127)}


def note_records(notes: np.ndarray) -> list[dict]:
  """Convert a note table to the dicts of `notes.export.note_records`; JSON can hold all of their values."""
  return export.note_records(notes)


def notes_from_records(records: Any) -> np.ndarray:
  """Convert the `notes` of a request to a sorted note table; fields that a table lacks are ignored.

  Raises:
    UserError: it is not a list of notes, or a value is out of range.
  """
  if not isinstance(records, list):
    raise UserError('notes: a list of objects is needed, as in the notes of a job')
  if len(records) > MAX_NOTES:
    raise UserError(f'notes: {len(records)} notes are too many; send at most {MAX_NOTES}')
  notes = empty_notes(len(records))
  for index, record in enumerate(records):
    notes[index] = _row(index, record)
  return sort_notes(notes)


def _row(index, record):
  if not isinstance(record, Mapping):
    raise UserError(f'notes[{index}]: an object is needed, not {type(record).__name__}')
  onset = _number(index, record, 'onset', 0.0, MAX_SECONDS)
  offset = _number(index, record, 'offset', 0.0, MAX_SECONDS)
  if offset <= onset:
    raise UserError(f'notes[{index}]: the offset {offset:g} is not after the onset {onset:g}')
  is_drum = record.get('is_drum', False)
  if not isinstance(is_drum, bool):
    raise UserError(f'notes[{index}].is_drum: true or false is needed')
  numbers = {name: _number(index, record, name, *limits) for name, limits in _INTEGERS.items()}
  for name, value in numbers.items():
    if value != int(value):
      raise UserError(f'notes[{index}].{name} is {value:g}; it must be a whole number')
  confidence = 0.0  # not known
  if record.get('confidence') is not None:
    confidence = _number(index, record, 'confidence', 0.0, 1.0)
  row = {'onset': onset, 'offset': offset, 'is_drum': is_drum, 'confidence': confidence, **numbers}
  return tuple(row[name] for name in NOTE_DTYPE.names)


def _number(index, record, name, low, high):
  value = record.get(name, 100 if name == 'velocity' else None)
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise UserError(f'notes[{index}].{name}: a number is needed')
  if not low <= value <= high:  # NaN fails as well
    raise UserError(f'notes[{index}].{name} is {value!s:.20}; it must lie in {low:g} .. {high:g}')
  return value
