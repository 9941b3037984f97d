"""Building blocks of the metrics: validation and matching of notes, piano rolls, and pieces from segment predictions.

Notes match as in mir_eval.transcription (see `match_notes`). MIDI pitches are 100 cents apart, so mir_eval's pitch
tolerance of 50 cents means equal pitch. Candidates are therefore found by sorting, while mir_eval compares every pair
of notes; the number of matches is the same.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mrmt3 import run_length_encoding
from mrmt3.event_codec import Codec
from mrmt3.note_sequences import DecodingStats, NoteEncodingSpecType, decode_piece
from mrmt3.notes.note_array import NOTE_DTYPE
from mrmt3.notes.note_sequence_protos import note_sequence_to_notes
from mrmt3.vocabularies import PROGRAM_GRANULARITIES

ONSET_TOLERANCE = 0.05  # s
OFFSET_RATIO = 0.2  # of the reference note's duration
OFFSET_MIN_TOLERANCE = 0.05  # s
FRAMES_PER_SECOND = 62.5  # of piano rolls, as in MT3
MIN_DURATION = 0.05  # s, of notes in piano rolls, as in MT3
VELOCITY_THRESHOLD = 30  # reference frames up to this velocity are not scored, as in MT3

_DISTANCE_DECIMALS = 4  # mir_eval rounds distances before it compares them, so that a distance of 0.05 s is a match
GRANULARITIES = tuple(PROGRAM_GRANULARITIES)


class Scores(NamedTuple):
  """Precision, recall and F1 (their harmonic mean), each in 0..1; 1 is best."""

  precision: float
  recall: float
  f1: float


def scores_from_counts(matches: int, reference: int, estimate: int) -> Scores:
  """Return the scores from the numbers of matches, reference items and estimated items; 0 where there are none."""
  precision = matches / estimate if estimate else 0.0
  recall = matches / reference if reference else 0.0
  return Scores(precision, recall, 2 * matches / (reference + estimate) if matches else 0.0)


def validate_notes(notes: np.ndarray, name: str) -> None:
  """Raise ValueError if a note table cannot be scored; `name` is its name in the message."""
  if not isinstance(notes, np.ndarray) or notes.dtype != NOTE_DTYPE or notes.ndim != 1:
    raise ValueError(f'{name} is not a note table; make one with note_array.as_notes')
  for wrong, what in (
    (~np.isfinite(notes['onset']) | ~np.isfinite(notes['offset']), 'a time that is not finite'),
    (notes['onset'] < 0, 'an onset before 0 s'),
    (notes['offset'] < notes['onset'], 'an offset before its onset'),
    ((notes['pitch'] < 0) | (notes['pitch'] > 127), 'a pitch outside 0..127'),
    ((notes['program'] < 0) | (notes['program'] > 127), 'a program outside 0..127'),
    ((notes['velocity'] < 0) | (notes['velocity'] > 127), 'a velocity outside 0..127'),
  ):
    if wrong.any():
      raise ValueError(f'{name} has {what}: note {int(np.argmax(wrong))}')


def map_programs(notes: np.ndarray, granularity: str) -> np.ndarray:
  """Return each note's instrument as a number, int32 `[n]`: its mapped program, or 128 for drums.

  Granularities, as in MT3: 'flat' (program 0), 'midi_class' (program rounded down to a multiple of 8) and 'full' (the
  program itself). ValueError for others.
  """
  if granularity not in PROGRAM_GRANULARITIES:
    raise ValueError(f'granularity is {granularity!r}; it must be one of {", ".join(GRANULARITIES)}')
  programs = PROGRAM_GRANULARITIES[granularity].program_map_fn(notes['program'])
  return np.where(notes['is_drum'], 128, programs).astype(np.int32)


def match_notes(
  reference: np.ndarray,
  estimate: np.ndarray,
  *,
  granularity: str | None = None,
  offsets: bool = False,
  onset_tolerance: float = ONSET_TOLERANCE,
  offset_ratio: float = OFFSET_RATIO,
  offset_min_tolerance: float = OFFSET_MIN_TOLERANCE,
) -> np.ndarray:
  """Return a maximum matching of notes, int64 `[matches, 2]`: indices (reference, estimate), ordered by reference.

  Two notes can match if their pitches are equal and their onsets are within `onset_tolerance` s. Each note matches at
  most once.

  Args:
    reference: note table.
    estimate: note table.
    granularity: matching notes must also have the same instrument at this granularity (`map_programs`); None ignores
      instruments.
    offsets: whether the offsets must match too: within the larger of `offset_min_tolerance` s and `offset_ratio` of the
      reference note's duration. Two drum notes match in any case, since their durations have no meaning.
    onset_tolerance: s.
    offset_ratio: see `offsets`.
    offset_min_tolerance: s, see `offsets`.

  Raises:
    ValueError: a tolerance is negative or not finite, or the granularity is unknown.
  """
  for name, value in (
    ('onset_tolerance', onset_tolerance),
    ('offset_ratio', offset_ratio),
    ('offset_min_tolerance', offset_min_tolerance),
  ):
    if not 0 <= value < np.inf:
      raise ValueError(f'{name} is {value}; it must be a number of at least 0')
  ref_index, est_index = _onset_candidates(
    _match_keys(reference, granularity),
    reference['onset'],
    _match_keys(estimate, granularity),
    estimate['onset'],
    onset_tolerance,
  )
  ref, est = reference[ref_index], estimate[est_index]
  fits = _distance(ref['onset'], est['onset']) <= onset_tolerance
  if offsets:
    tolerance = np.maximum(offset_ratio * (ref['offset'] - ref['onset']), offset_min_tolerance)
    fits &= (_distance(ref['offset'], est['offset']) <= tolerance) | (ref['is_drum'] & est['is_drum'])
  return _largest_matching(ref_index[fits], est_index[fits], len(reference), len(estimate))


def _match_keys(notes: np.ndarray, granularity: str | None) -> np.ndarray:
  """Return keys, int64 `[n]`; only notes with equal keys can match."""
  instruments = 0 if granularity is None else map_programs(notes, granularity).astype(np.int64)
  return instruments * 128 + notes['pitch']


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.around(np.abs(a - b), _DISTANCE_DECIMALS)


def _onset_candidates(ref_keys, ref_onsets, est_keys, est_onsets, tolerance):
  """Return indices (reference, estimate) of all pairs with equal keys and onsets within about the tolerance."""
  reach = tolerance + 10.0**-_DISTANCE_DECIMALS
  # Put keys and times on one axis. Keys are so far apart that the window of an onset never overlaps the next key.
  span = 2 * reach + 1 + max(ref_onsets.max(initial=0), est_onsets.max(initial=0))
  ref_axis, est_axis = ref_keys * span + ref_onsets, est_keys * span + est_onsets
  order = np.argsort(est_axis, kind='stable')
  first = np.searchsorted(est_axis[order], ref_axis - reach)
  counts = np.searchsorted(est_axis[order], ref_axis + reach, side='right') - first
  ref_index = np.repeat(np.arange(len(ref_keys)), counts)
  within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  return ref_index, order[np.repeat(first, counts) + within]


def _largest_matching(ref_index, est_index, num_reference, num_estimate):
  """Return a maximum matching among the pairs, int64 `[matches, 2]`."""
  if not len(ref_index):
    return np.zeros((0, 2), np.int64)
  from scipy.sparse import csr_array
  from scipy.sparse.csgraph import maximum_bipartite_matching

  pairs = csr_array((np.ones(len(ref_index), np.int8), (ref_index, est_index)), shape=(num_reference, num_estimate))
  partners = maximum_bipartite_matching(pairs, perm_type='column')
  matched = np.flatnonzero(partners >= 0)
  return np.stack([matched, partners[matched]], axis=1).astype(np.int64)


def unmatched(pairs: np.ndarray, num_reference: int, num_estimate: int) -> tuple[np.ndarray, np.ndarray]:
  """Return the indices of the reference notes and the estimated notes that are not in `pairs` (of `match_notes`)."""
  return (
    np.setdiff1d(np.arange(num_reference), pairs[:, 0]),
    np.setdiff1d(np.arange(num_estimate), pairs[:, 1]),
  )


def lengthen_notes(notes: np.ndarray, min_duration: float = MIN_DURATION) -> np.ndarray:
  """Return a copy of the table in which each note lasts at least `min_duration` s."""
  notes = notes.copy()
  notes['offset'] = np.maximum(notes['offset'], notes['onset'] + min_duration)
  return notes


def get_pianoroll(notes: np.ndarray, frames_per_second: float = FRAMES_PER_SECOND) -> np.ndarray:
  """Return a piano roll of summed velocities, int64 `[128 pitches, frames]`, as in pretty_midi's get_piano_roll.

  A note is active from the frame of its onset until that of its offset (exclusive); times are rounded down. The roll
  ends with the last offset. Notes shorter than a frame may be lost: call `lengthen_notes` first, as in MT3.
  """
  start = (notes['onset'] * frames_per_second).astype(np.int64)
  stop = (notes['offset'] * frames_per_second).astype(np.int64)
  changes = np.zeros((128, stop.max(initial=0) + 1), np.int64)
  np.add.at(changes, (notes['pitch'], start), notes['velocity'])
  np.subtract.at(changes, (notes['pitch'], stop), notes['velocity'])
  return np.cumsum(changes, axis=1)[:, :-1]


def table_pianoroll(notes: np.ndarray, frames_per_second: float, is_drum: bool) -> np.ndarray:
  """Return MT3's piano roll of a note table, float64 `[128 pitches, frames]`.

  Notes last at least 50 ms. With `is_drum` all notes last exactly 50 ms; without it drum notes have velocity 0.
  """
  if is_drum:
    notes = notes.copy()
    notes['offset'] = notes['onset'] + MIN_DURATION
  else:
    notes = lengthen_notes(notes)
    notes['velocity'][notes['is_drum']] = 0
  return get_pianoroll(notes, frames_per_second).astype(np.float64)


def get_prettymidi_pianoroll(ns, fps: float, is_drum: bool) -> np.ndarray:
  """Return `table_pianoroll` of a NoteSequence; unlike in MT3, the NoteSequence is not modified."""
  return table_pianoroll(note_sequence_to_notes(ns), fps, is_drum)


def frame_metrics(
  ref_pianoroll: np.ndarray, est_pianoroll: np.ndarray, velocity_threshold: float = VELOCITY_THRESHOLD
) -> Scores:
  """Return the scores of active (pitch, frame) pairs of two piano rolls `[128, frames]`, as in MT3.

  A reference frame is active above `velocity_threshold`, an estimated one above 0. The shorter roll is padded with
  silence.
  """
  reference, estimate = ref_pianoroll > velocity_threshold, est_pianoroll > 0
  shared = min(reference.shape[1], estimate.shape[1])
  matches = np.count_nonzero(reference[:, :shared] & estimate[:, :shared])
  return scores_from_counts(matches, np.count_nonzero(reference), np.count_nonzero(estimate))


def event_predictions_to_notes(
  predictions: Iterable[Mapping[str, Any]], codec: Codec, *, frames_per_second: float = 125, **options
) -> tuple[np.ndarray, DecodingStats]:
  """Decode the segments of a piece to a sorted note table and decoding statistics.

  This is MT3's event_predictions_to_ns for note tables.

  Args:
    predictions: segments in any order, each with 'start_time' (s, of its first frame) and 'est_tokens' (model ids, int
      `[tokens]`).
    codec: the codec of the tokens.
    frames_per_second: frame rate of the start times.
    **options: see `note_sequences.decode_piece`.
  """
  ordered = sorted(predictions, key=lambda prediction: prediction['start_time'])
  start_frames = [round(float(prediction['start_time']) * frames_per_second) for prediction in ordered]
  tokens = [np.asarray(prediction['est_tokens']) for prediction in ordered]
  return decode_piece(tokens, start_frames, codec, frames_per_second=Fraction(frames_per_second), **options)


def combine_predictions_by_id(
  predictions: Iterable[Mapping[str, Any]], combine_predictions_fn: Callable[[list[Mapping[str, Any]]], Any]
) -> dict[Any, Any]:
  """Return `{unique_id: combine_predictions_fn(its predictions)}`; predictions are mappings with a 'unique_id'."""
  groups = collections.defaultdict(list)
  for prediction in predictions:
    groups[prediction['unique_id']].append(prediction)
  return {unique_id: combine_predictions_fn(group) for unique_id, group in groups.items()}


def decode_and_combine_predictions(
  predictions: Iterable[Mapping[str, Any]],
  init_state_fn: Callable[[], Any],
  begin_segment_fn: Callable[[Any], None],
  decode_tokens_fn: Callable[[Any, Any, float, float | None], tuple[int, int]],
  flush_state_fn: Callable[[Any], Any],
) -> tuple[Any, int, int]:
  """Decode the segments of a piece one after another (as in MT3).

  Args:
    predictions: segments in any order, each with start_time (s) and est_tokens.
    init_state_fn: () -> decoding state.
    begin_segment_fn: (state) -> None, called at the start of each segment.
    decode_tokens_fn: (state, tokens, start s, start of the next segment s or None) -> (invalid events, dropped events).
    flush_state_fn: (state) -> result.

  Returns:
    (result, invalid events, dropped events).
  """
  ordered = sorted(predictions, key=lambda prediction: prediction['start_time'])
  ends = [prediction['start_time'] for prediction in ordered[1:]] + [None]
  state, invalid, dropped = init_state_fn(), 0, 0
  for prediction, end in zip(ordered, ends, strict=True):
    begin_segment_fn(state)
    counts = decode_tokens_fn(state, prediction['est_tokens'], prediction['start_time'], end)
    invalid, dropped = invalid + counts[0], dropped + counts[1]
  return flush_state_fn(state), invalid, dropped


def event_predictions_to_ns(
  predictions: Iterable[Mapping[str, Any]], codec: Codec, encoding_spec: NoteEncodingSpecType
) -> dict[str, Any]:
  """Decode the segments of a piece to a NoteSequence (as in MT3; imports note_seq).

  Args:
    predictions: segments in any order, each with start_time (s), est_tokens (regular ids `[tokens]`) and raw_inputs
      (samples `[n]`).
    codec: the codec of the tokens.
    encoding_spec: encoding of the tokens.

  Returns:
    {raw_inputs, start_times, est_ns, est_invalid_events, est_dropped_events}; the first two are ordered by time.
  """
  ordered = sorted(predictions, key=lambda prediction: prediction['start_time'])
  ns, invalid, dropped = decode_and_combine_predictions(
    ordered,
    encoding_spec.init_decoding_state_fn,
    encoding_spec.begin_decoding_segment_fn,
    lambda state, tokens, start, end: run_length_encoding.decode_events(
      state, tokens, start, end, codec, encoding_spec.decode_event_fn
    ),
    encoding_spec.flush_decoding_state_fn,
  )
  return {
    'raw_inputs': np.concatenate([prediction['raw_inputs'] for prediction in ordered], axis=0),
    'start_times': [prediction['start_time'] for prediction in ordered],
    'est_ns': ns,
    'est_invalid_events': invalid,
    'est_dropped_events': dropped,
  }


def predicted_pieces(
  predictions: Iterable[Mapping[str, Any]], unique_ids: Iterable[Any], codec: Codec, encoding_spec: NoteEncodingSpecType
) -> dict[Any, dict[str, Any]]:
  """Return {unique_id: event_predictions_to_ns of its segments}; ValueError if the pieces are not `unique_ids`."""
  expected = set(unique_ids)
  combine = functools.partial(event_predictions_to_ns, codec=codec, encoding_spec=encoding_spec)
  pieces = combine_predictions_by_id(predictions, combine)
  if pieces.keys() != expected:
    raise ValueError(f'the targets are of pieces {sorted(expected)}, but the predictions of pieces {sorted(pieces)}')
  return pieces
