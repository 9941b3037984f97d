"""Instruments that should not be there: leakage, instrument detection, and where notes change their instrument.

Every function takes two note tables (`notes.NOTE_DTYPE`), the reference first; the order of notes plays no part, and a
table that cannot be scored is a ValueError. What counts as an instrument is `counting`:

- 'slakh_classes', the default: (program of the Slakh class, is_drum), on both sides; all drums are one instrument.
- 'published': distinct raw program numbers, drums by theirs, as MR-MT3's script counts. Drums written with program 0 and
  acoustic piano are then one instrument, and a reference keeps programs that the model cannot say.

Published (arXiv 2403.10024): the ratio and detection. The other three are ours; they show where the ratio is blind: one
instrument missing and one too many leave it at 1.
"""

import math
from typing import NamedTuple

import numpy as np

from mrmt3 import metrics_utils
from mrmt3.metrics_utils import Scores, match_notes, scores_from_counts, validate_notes
from mrmt3.notes.instruments import instruments_of, map_to_slakh_classes
from mrmt3.notes.note_array import sort_notes

COUNTINGS = ('slakh_classes', 'published')
_NONE = 0.5  # how many instruments none is taken for in a logarithm


def instrument_set(notes: np.ndarray, counting: str = 'slakh_classes', name: str = 'the table') -> set:
  """Returns the distinct instruments that play in a note table.

  'slakh_classes': (program of the Slakh class, is_drum), drums being (0, True). 'published': raw program numbers, drums
  among them by theirs. `name` is what errors call the table.
  """
  validate_notes(notes, name)
  if counting == 'slakh_classes':
    return set(instruments_of(map_to_slakh_classes(notes)))
  if counting == 'published':
    return set(np.unique(notes['program']).tolist())
  raise ValueError(f'counting must be one of {", ".join(COUNTINGS)}, not {counting!r}')


def leakage_ratio(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> float:
  """Returns the number of instruments in the estimate over that in the reference (MR-MT3's phi), 0 or more.

  1 is right, above 1 notes have leaked to instruments that do not play, below 1 instruments are missing. A reference
  without notes has nothing to divide by: then every estimated instrument counts as one leaked, 1 + their number.
  """
  num_reference, num_estimate = (len(notes) for notes in _instrument_sets(reference, estimate, counting))
  return num_estimate / num_reference if num_reference else 1.0 + num_estimate


def log_leakage_ratio(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> float:
  """Returns |ln(instruments in the estimate / instruments in the reference)|, 0 or more, 0 is right.

  The mean of the ratio hides errors, for a piece with twice the instruments and one with half of them do not cancel out
  here: both give ln 2. None counts as half an instrument, so that every piece has a finite value, and an empty estimate
  one that is worse than any other with too few.
  """
  counts = [max(len(instruments), _NONE) for instruments in _instrument_sets(reference, estimate, counting)]
  return abs(math.log(counts[1] / counts[0]))


def instrument_detection(reference: np.ndarray, estimate: np.ndarray, *, counting: str = 'slakh_classes') -> Scores:
  """Returns the scores of the set of instruments that play (MR-MT3): all 1 if neither has any."""
  ref_set, est_set = _instrument_sets(reference, estimate, counting)
  if not ref_set and not est_set:
    return Scores(1.0, 1.0, 1.0)
  return scores_from_counts(len(ref_set & est_set), len(ref_set), len(est_set))


def leaked_note_ratio(reference: np.ndarray, estimate: np.ndarray) -> float:
  """Returns the share, 0..1, of estimated notes that are right but for their instrument (Slakh class or drums).

  Notes are first matched within their instrument; a note that is left over and then matches a reference note left over
  has leaked. So two instruments in unison are not taken for leakage, nor is a note written twice, for the right instrument and for
  another. No estimated note: 0.
  """
  pairs = pair_own_instrument_first(*slakh_tables(reference, estimate))
  return np.count_nonzero(~pairs.same) / len(estimate) if len(estimate) else 0.0


def track_switches_per_minute(reference: np.ndarray, estimate: np.ndarray) -> float:
  """Returns how often a minute the matched notes of one reference instrument go over to another in the estimate.

  The matched notes of each reference instrument (Slakh class or drums) are taken by onset, then pitch; a switch is one
  whose estimated instrument differs from the one before. The piece lasts until the reference's last offset. 0 if the
  reference has no note. Notes that do not match play no part, so that who finds few notes has few switches.
  """
  reference, estimate = slakh_tables(reference, estimate)
  if not len(reference):
    return 0.0
  pairs = pair_own_instrument_first(reference, estimate).indices
  notes = reference[pairs[:, 0]]
  tracks = metrics_utils.map_programs(notes, 'full')
  heard_as = metrics_utils.map_programs(estimate[pairs[:, 1]], 'full')
  order = np.lexsort((notes['pitch'], notes['onset'], tracks))
  tracks, heard_as = tracks[order], heard_as[order]
  switches = np.count_nonzero((tracks[1:] == tracks[:-1]) & (heard_as[1:] != heard_as[:-1]))
  seconds = reference['offset'].max()
  return switches * 60 / seconds if seconds else 0.0


class Pairs(NamedTuple):
  """Matched notes, int64 `[matches, 2]`, and whether their instruments are the same, bool `[matches]`."""

  indices: np.ndarray
  same: np.ndarray


def pair_own_instrument_first(reference: np.ndarray, estimate: np.ndarray) -> Pairs:
  """Matches notes within their instrument, then what is left over across instruments; see `slakh_tables`."""
  own = match_notes(reference, estimate, granularity='full')
  ref_left, est_left = metrics_utils.unmatched(own, len(reference), len(estimate))
  other = match_notes(reference[ref_left], estimate[est_left])
  other = np.stack([ref_left[other[:, 0]], est_left[other[:, 1]]], axis=1)
  return Pairs(np.concatenate([own, other]), np.arange(len(own) + len(other)) < len(own))


def slakh_tables(reference: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns both tables, checked, in Slakh classes; sorted, for which notes are paired may depend on their order."""
  validate_notes(reference, 'reference')
  validate_notes(estimate, 'estimate')
  return tuple(sort_notes(map_to_slakh_classes(notes)) for notes in (reference, estimate))


def _instrument_sets(reference, estimate, counting):
  return instrument_set(reference, counting, 'reference'), instrument_set(estimate, counting, 'estimate')
