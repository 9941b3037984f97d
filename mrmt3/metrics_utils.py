"""What the metrics are built from: checked note tables, note matching, piano rolls, predictions put back together.

Notes match as in mir_eval.transcription (see `match_notes`). MIDI pitches are whole semitones, 100 cents apart, so its
tolerance of 50 cents means the same pitch. That lets sorting find the few candidates of each note, where mir_eval
compares every note with every other one; the number of matches is the same.
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
FRAMES_PER_SECOND = 62.5  # of piano rolls, as MT3
MIN_DURATION = 0.05  # s, of notes in piano rolls, as MT3
VELOCITY_THRESHOLD = 30  # quieter reference frames are not scored, as MT3

_DISTANCE_DECIMALS = 4  # mir_eval rounds distances before it compares them, so that 0.05 s apart is still a match
GRANULARITIES = tuple(PROGRAM_GRANULARITIES)


class Scores(NamedTuple):
  """Precision, recall and F1 (their harmonic mean), each 0..1, 1 is best."""

  precision: float
  recall: float
  f1: float


def scores_from_counts(matches: int, reference: int, estimate: int) -> Scores:
  """Returns the scores of `matches` among `reference` true and `estimate` claimed items; 0 where nothing can match."""
  precision = matches / estimate if estimate else 0.0
  recall = matches / reference if reference else 0.0
  return Scores(precision, recall, 2 * matches / (reference + estimate) if matches else 0.0)


def validate_notes(notes: np.ndarray, name: str) -> None:
  """Raises ValueError, saying what is wrong with the table called `name`, unless it can be scored."""
  if not isinstance(notes, np.ndarray) or notes.dtype != NOTE_DTYPE or notes.ndim != 1:
    raise ValueError(f'{name} is not a note table: make one by notes.as_notes')
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
  """Returns each note's instrument as one number, int32 `[n]`: its mapped program, or 128 for every drum.

  Granularities, as MT3: 'flat' (all programs are 0), 'midi_class' (down to a multiple of 8) and 'full' (kept).
  """
  if granularity not in PROGRAM_GRANULARITIES:
    raise ValueError(f'granularity must be one of {", ".join(GRANULARITIES)}, not {granularity!r}')
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
  """Pairs as many notes as possible, each at most once, and returns int64 indices `[matches, 2]` (reference, estimate).

  Two notes can be paired when they have the same pitch and their onsets are within `onset_tolerance` s. With a
  `granularity` they also need the same instrument (`map_programs`); without one instruments play no part. With
  `offsets` the offsets, too, must be within the larger of `offset_min_tolerance` s and `offset_ratio` of the
  reference note's duration, except for two drum notes, whose lengths mean nothing. Pairs are ordered by reference.

  Raises ValueError for a tolerance that is below 0 or not finite.
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
  """Returns an int64 `[n]` that is equal for notes which onsets alone can keep apart."""
  instruments = 0 if granularity is None else map_programs(notes, granularity).astype(np.int64)
  return instruments * 128 + notes['pitch']


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return np.around(np.abs(a - b), _DISTANCE_DECIMALS)


def _onset_candidates(ref_keys, ref_onsets, est_keys, est_onsets, tolerance):
  """Returns indices (reference, estimate) of all pairs with equal keys and onsets within (a bit over) the tolerance."""
  reach = tolerance + 10.0**-_DISTANCE_DECIMALS
  # One axis for keys and times: keys lie so far apart that a window round an onset never touches the next key.
  span = 2 * reach + 1 + max(ref_onsets.max(initial=0), est_onsets.max(initial=0))
  ref_axis, est_axis = ref_keys * span + ref_onsets, est_keys * span + est_onsets
  order = np.argsort(est_axis, kind='stable')
  first = np.searchsorted(est_axis[order], ref_axis - reach)
  counts = np.searchsorted(est_axis[order], ref_axis + reach, side='right') - first
  ref_index = np.repeat(np.arange(len(ref_keys)), counts)
  within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  return ref_index, order[np.repeat(first, counts) + within]


def _largest_matching(ref_index, est_index, num_reference, num_estimate):
  """Returns a largest choice of the pairs in which no index occurs twice, int64 `[matches, 2]`."""
  if not len(ref_index):
    return np.zeros((0, 2), np.int64)
  from scipy.sparse import csr_array
  from scipy.sparse.csgraph import maximum_bipartite_matching

  pairs = csr_array((np.ones(len(ref_index), np.int8), (ref_index, est_index)), shape=(num_reference, num_estimate))
  partners = maximum_bipartite_matching(pairs, perm_type='column')
  matched = np.flatnonzero(partners >= 0)
  return np.stack([matched, partners[matched]], axis=1).astype(np.int64)


def unmatched(pairs: np.ndarray, num_reference: int, num_estimate: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of the reference and of the estimated notes that `pairs` (of `match_notes`) leaves over."""
  return (
    np.setdiff1d(np.arange(num_reference), pairs[:, 0]),
    np.setdiff1d(np.arange(num_estimate), pairs[:, 1]),
  )


def lengthen_notes(notes: np.ndarray, min_duration: float = MIN_DURATION) -> np.ndarray:
  """Returns a copy of the table in which every note lasts at least `min_duration` s."""
  notes = notes.copy()
  notes['offset'] = np.maximum(notes['offset'], notes['onset'] + min_duration)
  return notes


def get_pianoroll(notes: np.ndarray, frames_per_second: float = FRAMES_PER_SECOND) -> np.ndarray:
  """Returns the summed velocities that sound, int64 `[128 pitches, frames]`, as pretty_midi's get_piano_roll.

  A note sounds from the frame of its onset up to, not including, that of its offset (times rounded down). The roll
  ends with the last offset. Lengthen short notes first (`lengthen_notes`), as MT3 does, or they may vanish.
  """
  start = (notes['onset'] * frames_per_second).astype(np.int64)
  stop = (notes['offset'] * frames_per_second).astype(np.int64)
  changes = np.zeros((128, stop.max(initial=0) + 1), np.int64)
  np.add.at(changes, (notes['pitch'], start), notes['velocity'])
  np.subtract.at(changes, (notes['pitch'], stop), notes['velocity'])
  return np.cumsum(changes, axis=1)[:, :-1]


def table_pianoroll(notes: np.ndarray, frames_per_second: float, is_drum: bool) -> np.ndarray:
  """Returns MT3's piano roll of a note table, float64 `[128 pitches, frames]`.

  Every note lasts 50 ms at least; with `is_drum` all last exactly 50 ms, without it drums only make the roll longer.
  """
  if is_drum:
    notes = notes.copy()
    notes['offset'] = notes['onset'] + MIN_DURATION
  else:
    notes = lengthen_notes(notes)
    notes['velocity'][notes['is_drum']] = 0
  return get_pianoroll(notes, frames_per_second).astype(np.float64)


def get_prettymidi_pianoroll(ns, fps: float, is_drum: bool) -> np.ndarray:
  """Returns `table_pianoroll` of a NoteSequence; unlike MT3's, the NoteSequence stays as it is."""
  return table_pianoroll(note_sequence_to_notes(ns), fps, is_drum)


def frame_metrics(
  ref_pianoroll: np.ndarray, est_pianoroll: np.ndarray, velocity_threshold: float = VELOCITY_THRESHOLD
) -> Scores:
  """Returns the scores of sounding (pitch, frame) cells of two piano rolls `[128, frames]`, as MT3.

  Reference cells count when louder than `velocity_threshold`, estimated ones whenever they sound. The shorter roll
  goes on in silence.
  """
  reference, estimate = ref_pianoroll > velocity_threshold, est_pianoroll > 0
  shared = min(reference.shape[1], estimate.shape[1])
  matches = np.count_nonzero(reference[:, :shared] & estimate[:, :shared])
  return scores_from_counts(matches, np.count_nonzero(reference), np.count_nonzero(estimate))


def event_predictions_to_notes(
  predictions: Iterable[Mapping[str, Any]], codec: Codec, *, frames_per_second: float = 125, **options
) -> tuple[np.ndarray, DecodingStats]:
  """Returns (sorted note table, decoding statistics) of the segments of one piece, given in any order.

  Each prediction has 'start_time' (s, of its first frame) and 'est_tokens' (model ids `[tokens]`); `options` go to
  `note_sequences.decode_piece`. As MT3's event_predictions_to_ns, but for the note table.
  """
  ordered = sorted(predictions, key=lambda prediction: prediction['start_time'])
  start_frames = [round(float(prediction['start_time']) * frames_per_second) for prediction in ordered]
  tokens = [np.asarray(prediction['est_tokens']) for prediction in ordered]
  return decode_piece(tokens, start_frames, codec, frames_per_second=Fraction(frames_per_second), **options)


def combine_predictions_by_id(
  predictions: Iterable[Mapping[str, Any]], combine_predictions_fn: Callable[[list[Mapping[str, Any]]], Any]
) -> dict[Any, Any]:
  """Returns `{unique_id: combine_predictions_fn(its predictions)}`; predictions are mappings with a 'unique_id'."""
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
  """Decodes the segments of a piece one after the other (as MT3).

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
  """Puts the segments of a piece together as a NoteSequence (as MT3; imports note_seq).

  Args:
    predictions: segments in any order, each with start_time (s), est_tokens (regular ids `[tokens]`) and raw_inputs
      (samples `[n]`).
    codec: the codec of the tokens.
    encoding_spec: what the tokens hold.

  Returns:
    {raw_inputs, start_times, est_ns, est_invalid_events, est_dropped_events}, the first two in order of time.
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
  """Returns `{unique_id: event_predictions_to_ns of its segments}`; ValueError unless the pieces are those expected."""
  expected = set(unique_ids)
  combine = functools.partial(event_predictions_to_ns, codec=codec, encoding_spec=encoding_spec)
  pieces = combine_predictions_by_id(predictions, combine)
  if pieces.keys() != expected:
    raise ValueError(f'pieces {sorted(expected)} do not go with predictions of pieces {sorted(pieces)}')
  return pieces
