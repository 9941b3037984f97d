"""Scores of a transcription against a reference: note F1, instrument leakage, instrument detection.

Every function takes two note tables (`note_array.NOTE_DTYPE`), the reference first, and returns plain floats. The order
of notes does not matter. Invalid tables raise ValueError: times must be finite, not negative and in order; pitches,
programs and velocities must be in 0..127.

Conventions
-----------
- Two notes match when their pitch is the same and their onsets are within 50 ms; where offsets count, these must be
  within the larger of 50 ms and 20 % of the reference duration (mir_eval.transcription). Each note matches at most
  once. Drums have no offsets that could count.
- Precision is matches / estimated notes, recall is matches / reference notes, F1 their harmonic mean.
- An instrument is a pair (program, is_drum); all drums are one instrument, whatever their program.
- Program-aware scores use the programs in the tables, as the published ones do. Published references keep raw General
  MIDI programs, but the models predict only the 34 Slakh classes: for a fair 'full' score, map the reference first
  (`instruments.map_to_slakh_classes`).
- Several pieces: every score is computed per piece, then averaged with equal weight.

Corner cases
------------
==================  ===========  ===============  ==================  ====================
one piece with      note scores  leakage ratio    log leakage ratio   instrument detection
==================  ===========  ===============  ==================  ====================
no estimated note   0            0                ln(2 instruments)   0
no reference note   0            1 + instruments  ln(2 instruments)   0
neither             0            1                0                   1
==================  ===========  ===============  ==================  ====================

Note scores follow mir_eval: nothing there to match gives 0, in parts of a piece (drums) as well. A piece that could not
be transcribed counts as one with no estimated note, and its name is reported; no piece is ever left out of a mean.

Where this departs from published programs
------------------------------------------
- MT3 leaves drums out of onset F1 and onset + offset F1, MR-MT3 keeps them in: both are offered (`drums`).
- MR-MT3's script counts distinct raw program numbers, so that drums (program 0) and acoustic piano are one instrument:
  `counting='published'`. By default Slakh classes are counted, drums apart: `counting='slakh_classes'`. It has no
  ratio, fails where no instrument is right, and leaves failed pieces out of the mean.
"""

from typing import NamedTuple

import numpy as np

from mrmt3 import metrics_utils
from mrmt3.evaluation.leakage import (
  COUNTINGS,  # noqa: F401  part of this module's names, as all that leakage has
  instrument_detection,
  instrument_set,
  leakage_ratio,
  leaked_note_ratio,
  log_leakage_ratio,
  track_switches_per_minute,
)
from mrmt3.metrics_utils import GRANULARITIES, Scores, match_notes, scores_from_counts, validate_notes

SWEEP_TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # s, as in MT3


def onset_scores(
  reference: np.ndarray,
  estimate: np.ndarray,
  *,
  drums: bool = True,
  onset_tolerance: float = metrics_utils.ONSET_TOLERANCE,
) -> Scores:
  """Return the scores of onsets and pitches, instruments ignored; with drums as in MR-MT3, without as in MT3."""
  return _note_scores(reference, estimate, drums=drums, onset_tolerance=onset_tolerance)


def onset_offset_scores(
  reference: np.ndarray,
  estimate: np.ndarray,
  *,
  drums: bool = False,
  onset_tolerance: float = metrics_utils.ONSET_TOLERANCE,
  offset_min_tolerance: float = metrics_utils.OFFSET_MIN_TOLERANCE,
) -> Scores:
  """Return the scores of onsets, offsets and pitches, instruments ignored; by default without drums, as in MT3."""
  return _note_scores(
    reference,
    estimate,
    drums=drums,
    offsets=True,
    onset_tolerance=onset_tolerance,
    offset_min_tolerance=offset_min_tolerance,
  )


def program_scores(
  reference: np.ndarray, estimate: np.ndarray, granularity: str = 'midi_class', *, offsets: bool = False
) -> Scores:
  """Return the scores of notes on the right instrument: onsets as in MR-MT3, with `offsets` as in MT3.

  Published as a mean over instruments (program at the granularity, is_drum), precision weighted by estimated and
  recall by reference notes. In such a mean the weights cancel the denominators, so that it is the plain share of notes
  that match one of the same instrument. Granularities: 'flat' (pitched or drum), 'midi_class' (the 16 groups of 8
  programs) and 'full' (program).
  """
  return _note_scores(reference, estimate, granularity=granularity, offsets=offsets)


def mt3_program_scores(reference: np.ndarray, estimate: np.ndarray) -> tuple[Scores, dict[str, tuple[Scores, Scores]]]:
  """Return MT3's scores of notes on the right instrument.

  Returns:
    (onset scores of drums, `{granularity: (program scores with offsets, the same of pitched notes only)}`).
  """
  (ref_pitched, ref_drums), (est_pitched, est_drums) = (
    (notes[~notes['is_drum']], notes[notes['is_drum']]) for notes in (reference, estimate)
  )
  return onset_scores(ref_drums, est_drums), {
    granularity: (
      program_scores(reference, estimate, granularity, offsets=True),
      program_scores(ref_pitched, est_pitched, granularity, offsets=True),
    )
    for granularity in GRANULARITIES
  }


def velocity_scores(
  reference: np.ndarray, estimate: np.ndarray, *, drums: bool = False, offsets: bool = False
) -> Scores:
  """Return the scores of notes with a correct velocity (mir_eval.transcription_velocity), as in MT3.

  Reference velocities are scaled to 0..1 and the estimated ones fitted to them by a straight line over the matched
  notes; what is then within 0.1 counts.
  """
  reference, estimate = _prepare(reference, estimate, drums)
  if not len(reference) or not len(estimate):
    return Scores(0.0, 0.0, 0.0)
  import mir_eval

  columns = []
  for notes in (reference, estimate):
    notes = metrics_utils.lengthen_notes(notes, 1e-6)  # mir_eval refuses notes of no length
    intervals = np.stack([notes['onset'], notes['offset']], axis=1)
    columns += [intervals, mir_eval.util.midi_to_hz(notes['pitch'].astype(np.float64)), notes['velocity']]
  offset_ratio = metrics_utils.OFFSET_RATIO if offsets else None
  matched = mir_eval.transcription_velocity.match_notes(*columns, offset_ratio=offset_ratio)
  return scores_from_counts(len(matched), len(reference), len(estimate))


def frame_scores(reference: np.ndarray, estimate: np.ndarray, *, drums: bool = False) -> Scores:
  """Return the scores of active (pitch, frame) pairs at 62.5 frames/s, as in MT3.

  Notes last at least 50 ms; reference notes need a velocity above 30. Instruments are ignored.
  """
  rolls = [
    metrics_utils.get_pianoroll(metrics_utils.lengthen_notes(notes)) for notes in _prepare(reference, estimate, drums)
  ]
  return metrics_utils.frame_metrics(*rolls)


def tolerance_sweep(
  reference: np.ndarray, estimate: np.ndarray, *, lengthened: bool = False
) -> dict[float, tuple[Scores, Scores]]:
  """Return `{tolerance s: (onset scores, onset + offset scores)}` without drums, for MT3's six tolerances.

  The tolerance is that of onsets and the smallest one of offsets. `lengthened` makes notes last at least 50 ms first,
  which happens to them in MT3's program by accident: for comparison only.
  """
  if lengthened:
    reference, estimate = (metrics_utils.lengthen_notes(notes) for notes in (reference, estimate))
  return {
    tolerance: (
      onset_scores(reference, estimate, drums=False, onset_tolerance=tolerance),
      onset_offset_scores(reference, estimate, onset_tolerance=tolerance, offset_min_tolerance=tolerance),
    )
    for tolerance in SWEEP_TOLERANCES
  }


class Piece(NamedTuple):
  """What the metrics of `metric_registry` are computed from: note tables.

  Attributes:
    reference: the reference.
    estimate: the transcription.
    published_reference: the reference of the published_ scores: a Slakh track with raw programs (see
      `slakh_layout.read_published_notes`), otherwise the same as `reference`.
  """

  reference: np.ndarray
  estimate: np.ndarray
  published_reference: np.ndarray


def onset_metrics(piece: Piece) -> dict[str, float]:
  """Return `onset_scores` with drums: onset_*."""
  return _named('onset', onset_scores(piece.reference, piece.estimate))


def onset_program_metrics(piece: Piece) -> dict[str, float]:
  """Return `program_scores` of onsets in each granularity: onset_program_*."""
  result = {}
  for granularity in GRANULARITIES:
    result |= _named('onset_program', program_scores(piece.reference, piece.estimate, granularity), granularity)
  return result


def no_drums_metrics(piece: Piece) -> dict[str, float]:
  """Return the scores of pitched notes: onset_no_drums_*, onset_offset_no_drums_*."""
  return {
    **_named('onset_no_drums', onset_scores(piece.reference, piece.estimate, drums=False)),
    **_named('onset_offset_no_drums', onset_offset_scores(piece.reference, piece.estimate)),
  }


def mt3_program_metrics(piece: Piece) -> dict[str, float]:
  """Return `mt3_program_scores`: onset_offset_program_*, nondrum_onset_offset_program_*, drum_onset_*."""
  drums, programs = mt3_program_scores(piece.reference, piece.estimate)
  result = {}
  for granularity, (every, pitched) in programs.items():
    result |= _named('onset_offset_program', every, granularity)
    result |= _named('nondrum_onset_offset_program', pitched, granularity)
  return result | _named('drum_onset', drums)


def leakage_metrics(piece: Piece) -> dict[str, float]:
  """Return leakage ratios and numbers of instruments, counted in Slakh classes."""
  return _leakage_scores(piece.reference, piece.estimate, 'slakh_classes')


def instrument_detection_metrics(piece: Piece) -> dict[str, float]:
  """Return `leakage.instrument_detection`, counted in Slakh classes: instrument_detection_*."""
  return _detection_scores(piece.reference, piece.estimate, 'slakh_classes')


def published_instrument_metrics(piece: Piece) -> dict[str, float]:
  """Return the same as `leakage_metrics` and `instrument_detection_metrics`, counted in raw programs: published_*."""
  tables = piece.published_reference, piece.estimate, 'published'
  return {
    f'published_{name}': x for scores in (_leakage_scores, _detection_scores) for name, x in scores(*tables).items()
  }


def leaked_note_metrics(piece: Piece) -> dict[str, float]:
  """Return `leakage.leaked_note_ratio`."""
  return {'leaked_note_ratio': leaked_note_ratio(piece.reference, piece.estimate)}


def track_switch_metrics(piece: Piece) -> dict[str, float]:
  """Return `leakage.track_switches_per_minute`."""
  return {'track_switches_per_minute': track_switches_per_minute(piece.reference, piece.estimate)}


def mt3_suite_metrics(piece: Piece) -> dict[str, float]:
  """Return MT3's frame and velocity scores and its tolerance sweep, all without drums."""
  reference, estimate, _ = piece
  result = _named('frame', frame_scores(reference, estimate))
  result |= _named('onset_velocity', velocity_scores(reference, estimate))
  result |= _named('onset_offset_velocity', velocity_scores(reference, estimate, offsets=True))
  for tolerance, (onset, onset_offset) in tolerance_sweep(reference, estimate).items():
    result[f'onset_f1_at_{tolerance:g}s'] = onset.f1
    result[f'onset_offset_f1_at_{tolerance:g}s'] = onset_offset.f1
  return result


def _prepare(reference, estimate, drums=True):
  """Return both tables, checked, and without drums unless these are wanted."""
  validate_notes(reference, 'reference')
  validate_notes(estimate, 'estimate')
  if drums:
    return reference, estimate
  return reference[~reference['is_drum']], estimate[~estimate['is_drum']]


def _note_scores(reference, estimate, *, drums=True, **matching) -> Scores:
  """Return the scores of `match_notes` with the given arguments."""
  reference, estimate = _prepare(reference, estimate, drums)
  return scores_from_counts(len(match_notes(reference, estimate, **matching)), len(reference), len(estimate))


def _named(name: str, scores: Scores, granularity: str = 'midi_class') -> dict[str, float]:
  """Return the three scores under the names that `metric_registry.evaluate_piece` explains."""
  suffix = '' if granularity == 'midi_class' else f'_{granularity}'
  return {f'{name}_{part}{suffix}': float(score) for part, score in scores._asdict().items()}


def _leakage_scores(reference, estimate, counting):
  """Return leakage ratios and numbers of instruments, counted one way."""
  ref_set, est_set = instrument_set(reference, counting, 'reference'), instrument_set(estimate, counting, 'estimate')
  return {
    'leakage_ratio': leakage_ratio(reference, estimate, counting=counting),
    'log_leakage_ratio': log_leakage_ratio(reference, estimate, counting=counting),
    'instruments_estimate': float(len(est_set)),
    'instruments_reference': float(len(ref_set)),
  }


def _detection_scores(reference, estimate, counting):
  """Return the scores of instrument detection, counted one way."""
  return _named('instrument_detection', instrument_detection(reference, estimate, counting=counting))
