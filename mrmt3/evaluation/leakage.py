"""Instrument leakage, instrument detection and track switches.

Every function takes two note tables (`note_array.NOTE_DTYPE`), the reference first. The order of notes does not matter.
An invalid table raises ValueError. `counting` defines an instrument:

- 'slakh_classes' (default): (program of the Slakh class, is_drum) in both tables; all drums are one instrument.
- 'published': distinct raw program numbers, for drums too, as in MR-MT3's script. Drums with program 0 and acoustic
  piano are then one instrument, and the reference keeps programs that the model cannot predict.

The leakage ratio and instrument detection are from MR-MT3 (arXiv 2403.10024). The other scores are ours. They cover
errors that the ratio misses: it stays 1 if one instrument is missing and another one is added.
"""

import math
from typing import NamedTuple

import numpy as np

from mrmt3 import metrics_utils
from mrmt3.metrics_utils import Scores, match_notes, scores_from_counts, validate_notes
from mrmt3.notes.instruments import instruments_of, map_to_slakh_classes
from mrmt3.notes.note_array import sort_notes

COUNTINGS = ('slakh_classes', 'published')
_NONE = 0.5  # replaces a count of 0 in a logarithm


def instrument_set(notes: np.ndarray, counting: str = 'slakh_classes', name: str = 'the table') -> set:
  """Return the distinct instruments in a note table.

  Args:
    notes: note table.
    counting: 'slakh_classes' gives (program of the Slakh class, is_drum), with (0, True) for drums; 'published' gives
      raw program numbers, for drums too.
    name: name of the table in error messages.

  Raises:
    ValueError: the table is invalid, or `counting` is unknown.
  """
  validate_notes(notes, name)
  if counting == 'slakh_classes':
    return set(instruments_of(map_to_slakh_classes(notes)))
  if counting == 'published':
    return set(np.unique(notes['program']).tolist())
  raise ValueError(f'counting must be one of {", ".join(COUNTINGS)}, not {counting!r}')


def leakage_ratio(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> float:
  """Return the number of estimated instruments divided by that of reference instruments (phi in MR-MT3).

  1 is best. Above 1 notes have leaked to instruments that do not play; below 1 instruments are missing. If the
  reference has no notes, the ratio is 1 + the number of estimated instruments.
  """
  num_reference, num_estimate = (len(notes) for notes in _instrument_sets(reference, estimate, counting))
  return num_estimate / num_reference if num_reference else 1.0 + num_estimate


def log_leakage_ratio(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> float:
  """Return |ln(estimated instruments / reference instruments)|; 0 is best.

  In a mean over pieces, too many and too few instruments do not cancel out as in the ratio: twice as many and half as
  many both give ln 2. No instrument counts as half an instrument, so that every piece has a finite value and an empty
  estimate is the worst one with too few instruments.
  """
  counts = [max(len(instruments), _NONE) for instruments in _instrument_sets(reference, estimate, counting)]
  return abs(math.log(counts[1] / counts[0]))


def instrument_detection(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> Scores:
  """Return precision, recall and F1 of the set of instruments, as in MR-MT3; all 1 if both sets are empty."""
  ref_set, est_set = _instrument_sets(reference, estimate, counting)
  if not ref_set and not est_set:
    return Scores(1.0, 1.0, 1.0)
  return scores_from_counts(len(ref_set & est_set), len(ref_set), len(est_set))


def leaked_note_ratio(reference: np.ndarray, estimate: np.ndarray) -> float:
  """Return the share (0 to 1) of estimated notes that are correct except for the instrument (Slakh class or drums).

  Notes are first matched within their instrument. An estimated note left over that then matches a reference note left
  over has leaked. Unisons of two instruments are therefore no leakage, and neither is a note that is predicted twice,
  for the right instrument and for another one. The ratio is 0 if there are no estimated notes.
  """
  pairs = pair_own_instrument_first(*slakh_tables(reference, estimate))
  return np.count_nonzero(~pairs.same) / len(estimate) if len(estimate) else 0.0


def track_switches_per_minute(reference: np.ndarray, estimate: np.ndarray) -> float:
  """Return how often per minute a reference instrument's matched notes change their estimated instrument.

  The matched notes of each reference instrument (Slakh class or drums) are ordered by onset, then pitch. A switch is a
  note whose estimated instrument differs from that of the note before. The duration is the reference's last offset; the
  rate is 0 if there is none. Unmatched notes are ignored, so an estimate with few matches has few switches.
  """
  reference, estimate = slakh_tables(reference, estimate)
  if not len(reference):
    return 0.0
  pairs = pair_own_instrument_first(reference, estimate).indices
  notes = reference[pairs[:, 0]]
  tracks = metrics_utils.map_programs(notes, 'full')
  est_tracks = metrics_utils.map_programs(estimate[pairs[:, 1]], 'full')
  order = np.lexsort((notes['pitch'], notes['onset'], tracks))
  tracks, est_tracks = tracks[order], est_tracks[order]
  switches = np.count_nonzero((tracks[1:] == tracks[:-1]) & (est_tracks[1:] != est_tracks[:-1]))
  seconds = reference['offset'].max()
  return switches * 60 / seconds if seconds else 0.0


class Pairs(NamedTuple):
  """Matched notes, int64 `[matches, 2]`, and whether their instruments are the same, bool `[matches]`."""

  indices: np.ndarray
  same: np.ndarray


def pair_own_instrument_first(reference: np.ndarray, estimate: np.ndarray) -> Pairs:
  """Match notes within their instrument, then the notes left over across instruments.

  Args:
    reference: note table in Slakh classes, see `slakh_tables`.
    estimate: note table in Slakh classes.
  """
  own = match_notes(reference, estimate, granularity='full')
  ref_left, est_left = metrics_utils.unmatched(own, len(reference), len(estimate))
  other = match_notes(reference[ref_left], estimate[est_left])
  other = np.stack([ref_left[other[:, 0]], est_left[other[:, 1]]], axis=1)
  return Pairs(np.concatenate([own, other]), np.arange(len(own) + len(other)) < len(own))


def slakh_tables(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Validate both tables and map them to Slakh classes.

  They are sorted as well, since the pairs that matching finds can depend on the order of notes.
  """
  validate_notes(reference, 'reference')
  validate_notes(estimate, 'estimate')
  return tuple(sort_notes(map_to_slakh_classes(notes)) for notes in (reference, estimate))


def _instrument_sets(reference, estimate, counting):
  return instrument_set(reference, counting, 'reference'), instrument_set(estimate, counting, 'estimate')
