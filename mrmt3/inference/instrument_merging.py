"""Merging of small instruments into related ones, an optional remedy for instrument leakage."""

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import instruments_of
from mrmt3.notes.note_array import sort_notes, trim_overlapping_notes
from mrmt3.vocabularies import PROGRAMS_PER_MIDI_CLASS


def merge_small_instruments(notes: np.ndarray, share: float) -> np.ndarray:
  """Assign the notes of pitched instruments below a share of all pitched notes to larger instruments.

  The target is the largest instrument of the same MIDI family (programs 0-7, 8-15, ...), or else the one with the
  nearest median pitch. Overlapping notes of one pitch are cut at the next onset. Drums are unchanged.

  Args:
    notes: note table.
    share: 0 (merges nothing) to below 1.

  Returns:
    a sorted note table; `notes` itself if no instrument, or every one, is below the share.

  Raises:
    UserError: `share` is out of range.
  """
  if not 0 <= share < 1:
    raise UserError(f'the share is {share}; it must be 0 or more and below 1, such as 0.02')
  pitched = notes[~notes['is_drum']]
  programs = [program for program, is_drum in instruments_of(notes) if not is_drum]
  counts = {program: int((pitched['program'] == program).sum()) for program in programs}
  large = [program for program in programs if counts[program] >= share * len(pitched)]
  small = [program for program in programs if program not in large]
  if not large or not small:
    return notes
  median_pitch = {program: float(np.median(pitched['pitch'][pitched['program'] == program])) for program in programs}
  merged = notes.copy()
  for program in small:
    family = [other for other in large if other // PROGRAMS_PER_MIDI_CLASS == program // PROGRAMS_PER_MIDI_CLASS]
    if family:
      target = max(family, key=counts.get)
    else:
      target = min(large, key=lambda other, own=median_pitch[program]: abs(median_pitch[other] - own))
    merged['program'][(notes['program'] == program) & ~notes['is_drum']] = target
  return sort_notes(trim_overlapping_notes(merged))
