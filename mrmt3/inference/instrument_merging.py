"""Merging small instruments into others: a blunt remedy for leakage, which nobody gets without asking."""

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import instruments_of
from mrmt3.notes.note_array import sort_notes, trim_overlapping_notes
from mrmt3.vocabularies import PROGRAMS_PER_MIDI_CLASS


def merge_small_instruments(notes: np.ndarray, share: float) -> np.ndarray:
  """Gives the notes of pitched instruments below a share of all pitched notes to instruments that have it.

  They go to the one of the same MIDI family (programs 0-7, 8-15, ...) with most notes, or else to the one whose median pitch
  is nearest. Where that leaves overlapping notes of one pitch, they are cut at the next onset. Drums stay as they are.

  Args:
    notes: note table.
    share: 0 (merges nothing) to below 1.

  Returns:
    a sorted note table; the same notes if no instrument, or every one, is below the share.

  Raises:
    UserError: for a share that is none.
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
  middle = {program: float(np.median(pitched['pitch'][pitched['program'] == program])) for program in programs}
  merged = notes.copy()
  for program in small:
    family = [other for other in large if other // PROGRAMS_PER_MIDI_CLASS == program // PROGRAMS_PER_MIDI_CLASS]
    if family:
      target = max(family, key=counts.get)
    else:
      target = min(large, key=lambda other, own=middle[program]: abs(middle[other] - own))
    merged['program'][(notes['program'] == program) & ~notes['is_drum']] = target
  return sort_notes(trim_overlapping_notes(merged))
