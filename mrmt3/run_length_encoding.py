"""Run-length encoding of events to token ids, removal of redundant state changes, and decoding.

All ids here are regular ids (`event_codec`). A time shift counts from the start of the segment, not from the previous
event (as in MT3).

There are two ways to the tokens of a segment. Ours keeps a piece as a table of events, and encodes a segment on demand
(`tokens.segment_targets`). MT3's encodes the whole piece with single-step shifts, indexed by audio frame, and cuts
segments out of it (`encode_and_index_events` and the functions over seqio data sets below).
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from mrmt3.event_codec import SHIFT, Codec, Event
from mrmt3.utils.tensors import is_tensor

ABSENT = -1  # in a row of event ids: no token
STATE_CHANGE_TYPES = ('velocity', 'program')


@dataclasses.dataclass(frozen=True)
class EventEncodingSpec:
  """Functions for encoding values as events, and for decoding events (as in MT3).

  Attributes:
    init_encoding_state_fn: () -> encoding state; None for an encoding without state.
    encode_event_fn: (encoding state, value, codec) -> events; updates the state.
    encoding_state_to_events_fn: (encoding state) -> events at the start of a segment (the tie section), or None.
    init_decoding_state_fn: () -> decoding state.
    begin_decoding_segment_fn: (state) -> None, called at the start of each segment.
    decode_event_fn: (state, time in s, event, codec) -> None; ValueError if the event is invalid in this state.
    flush_decoding_state_fn: (state) -> the decoded result.
  """

  init_encoding_state_fn: Callable[[], Any]
  encode_event_fn: Callable[[Any, Any, Codec], Sequence[Event]]
  encoding_state_to_events_fn: Callable[[Any], Sequence[Event]] | None
  init_decoding_state_fn: Callable[[], Any]
  begin_decoding_segment_fn: Callable[[Any], None]
  decode_event_fn: Callable[..., None]
  flush_decoding_state_fn: Callable[[Any], Any]


def run_length_encode(steps: np.ndarray, event_ids: np.ndarray, codec: Codec) -> np.ndarray:
  """Encode events as token ids, with a time shift before the first event of each step.

  Args:
    steps: int `[events]`, steps since the start of the segment, not decreasing, from 0.
    event_ids: int `[events, ids per event]`, regular ids; `ABSENT` where an event has fewer.
    codec: the codec of the ids.

  Returns:
    Ids, int32 `[tokens]`. There is no shift before events at step 0. A shift above the codec's maximum is written as
    several of the maximum and the rest.
  """
  # The id of a shift is its value, since shifts have the first ids of a codec.
  longest, count = codec.max_shift_steps, len(steps)
  rows = np.empty((count, 1 + event_ids.shape[1]), np.int32)
  rows[:, 1:] = event_ids
  shift = rows[:, 0]
  shift[:] = steps
  shift[1:][steps[1:] == steps[:-1]] = ABSENT
  shift[shift == 0] = ABSENT
  tokens = rows.reshape(-1)
  long = (shift > longest).nonzero()[0]
  if len(long):
    more, rest = np.divmod(shift[long] - 1, longest)
    shift[long] = rest + 1
    tokens = np.insert(tokens, np.repeat(long * rows.shape[1], more), longest)
  return tokens[tokens != ABSENT]


def remove_redundant_state_changes(
  tokens: np.ndarray, codec: Codec, state_change_event_types: Iterable[str] = STATE_CHANGE_TYPES
) -> np.ndarray:
  """Remove state changes that repeat the previous one of their type from ids `[n]`; the state starts unset."""
  tokens = np.asarray(tokens)
  keep = np.full(len(tokens), True)
  for event_type in state_change_event_types:
    first_id, last_id = codec.event_type_range(event_type)
    changes = ((tokens >= first_id) & (tokens <= last_id)).nonzero()[0]
    states = tokens[changes]
    keep[changes[1:]] = states[1:] != states[:-1]
  return tokens[keep]


def run_length_encode_shifts(tokens: np.ndarray, codec: Codec) -> np.ndarray:
  """Convert ids `[n]` with single-step shifts to ids with shifts from the start of the row.

  Shifts after the last event are dropped.
  """
  tokens = np.asarray(tokens)
  is_shift = codec.is_shift_event_index(tokens)
  return run_length_encode(np.cumsum(is_shift)[~is_shift], tokens[~is_shift][:, None], codec)


def encode_and_index_events(
  state: Any,
  event_times: Sequence[float],
  event_values: Sequence[Any],
  encode_event_fn: Callable[[Any, Any, Codec], Sequence[Event]],
  codec: Codec,
  frame_times: Sequence[float],
  encoding_state_to_events_fn: Callable[[Any], Sequence[Event]] | None = None,
  repeat_last_state: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Encode a piece's events as ids with single-step shifts, indexed by audio frame (as in MT3).

  Args:
    state: encoding state at the start; updated in place.
    event_times: `[events]`, s, in any order; events of the same time keep their order.
    event_values: `[events]`, the values to encode.
    encode_event_fn: see `EventEncodingSpec`.
    codec: the codec.
    frame_times: `[frames]`, starts of the audio frames, s, ascending.
    encoding_state_to_events_fn: see `EventEncodingSpec`.
    repeat_last_state: the state of frames after the last event. False: the state after it. True, as in MT3: the state
      before it, in which a note that has just ended is still active.

  Returns:
    (ids `[tokens]`, index of each frame's first id `[frames]`, index after each frame's last id `[frames]`, ids of the
    states before each event `[state tokens]`, index of the first id of each frame's state `[frames]`).
  """
  order = np.argsort(event_times, kind='stable')
  steps = np.rint(np.asarray(event_times)[order] * codec.steps_per_second).astype(np.int64)

  def ids_of(events):
    return [codec.encode_event(event) for event in events]

  rows, states = [], []
  for i in order:
    if encoding_state_to_events_fn is not None:
      states.append(ids_of(encoding_state_to_events_fn(state)))
    rows.append(ids_of(encode_event_fn(state, event_values[i], codec)))

  frame_times = np.asarray(frame_times)
  last_step = steps.max(initial=0)
  # The row extends to the first step after the last frame's start.
  grid = np.arange(max(last_step, int(frame_times[-1] * codec.steps_per_second) + 2) + 1) / codec.steps_per_second
  num_shifts = max(last_step, np.searchsorted(grid, frame_times[-1], side='right'))
  frame_steps = np.maximum.accumulate(np.searchsorted(grid, frame_times, side='right') - 1).clip(0)
  if encoding_state_to_events_fn is not None and not repeat_last_state and (not rows or frame_steps[-1] > last_step):
    states.append(ids_of(encoding_state_to_events_fn(state)))

  def tokens_before(step, lengths):
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[np.searchsorted(steps, step)]

  lengths, state_lengths = [len(ids) for ids in rows], [len(ids) for ids in states] or [0] * len(rows)
  event_ids = np.array([token for ids in rows for token in ids], np.int64)
  one_step = codec.encode_event(Event(SHIFT, 1))
  ids = np.full(num_shifts + len(event_ids), one_step)
  ids[np.arange(len(event_ids)) + np.repeat(steps, lengths)] = event_ids
  starts = frame_steps + tokens_before(frame_steps, lengths)
  ends = np.append(starts[1:], len(ids))
  state_steps = np.minimum(frame_steps, last_step) if repeat_last_state else frame_steps
  state_starts = tokens_before(state_steps, state_lengths)
  return ids, starts, ends, np.array([token for part in states for token in part], np.int64), state_starts


def _over_dataset(function):
  """Turn a function over features into one over seqio data sets."""
  import seqio

  return seqio.map_over_dataset(function)


def _on_tensor(function: Callable[[np.ndarray], np.ndarray], tokens):
  """Apply a numpy function to a tensor of ids; return an int32 tensor `[n]`."""
  import tensorflow as tf

  made = tf.numpy_function(lambda ids: function(ids).astype(np.int32), [tokens], tf.int32, stateful=False)
  made.set_shape([None])
  return made


def extract_target_sequence_with_indices(ds, state_events_end_token: int | None = None):
  """Extract the targets of an audio segment from those of the piece (as in MT3; imports seqio).

  Args:
    ds: data set with targets, input_event_start_indices, input_event_end_indices and, with an end token, state_events
      and input_state_event_indices, see `encode_and_index_events`. The indices by frame are of the segment only.
    state_events_end_token: the id that ends a state (tie); None for targets without a state.
  """
  import tensorflow as tf

  def extract(features):
    first, last = features['input_event_start_indices'][0], features['input_event_end_indices'][-1]
    targets = features['targets'][first:last]
    if state_events_end_token is not None:
      states = features['state_events'][features['input_state_event_indices'][0] :]
      length = tf.argmax(states == state_events_end_token) + 1
      targets = tf.concat([states[:length], targets], axis=0)
    return {**features, 'targets': targets}

  return _over_dataset(extract)(ds)


def remove_redundant_state_changes_fn(
  codec: Codec, feature_key: str = 'targets', state_change_event_types: Sequence[str] = ()
) -> Callable:
  """Return `remove_redundant_state_changes` of a feature as a function over data sets (as in MT3; imports seqio)."""

  def remove(features):
    tokens = _on_tensor(
      lambda ids: remove_redundant_state_changes(ids, codec, state_change_event_types), features[feature_key]
    )
    return {**features, feature_key: tokens}

  return _over_dataset(remove)


def run_length_encode_shifts_fn(codec: Codec, feature_key: str = 'targets') -> Callable:
  """Return `run_length_encode_shifts` of a feature as a function over data sets (as in MT3; imports seqio)."""

  def encode(features):
    tokens = _on_tensor(lambda ids: run_length_encode_shifts(ids, codec), features[feature_key])
    return {**features, feature_key: tokens}

  return _over_dataset(encode)


def merge_run_length_encoded_targets(targets, codec: Codec):
  """Merge rows of run-length encoded ids `[tracks, length]`, padded with 0, into one row (as in MT3).

  Events are ordered by step, then by track; at step 0 the order of tracks is reversed.

  Returns:
    Ids, int32 `[n]`; a tensor if `targets` is one.
  """
  if is_tensor(targets):
    return _on_tensor(lambda rows: merge_run_length_encoded_targets(rows, codec), targets)
  targets = np.asarray(targets)
  real = np.logical_and.accumulate(targets != 0, axis=1)
  is_shift = codec.is_shift_event_index(targets)
  # The step of an event is the sum of the consecutive shifts before it.
  sums = np.cumsum(np.where(is_shift, targets, 0), axis=1)
  begins_run = is_shift & ~np.pad(is_shift, ((0, 0), (1, 0)))[:, :-1]
  steps = sums - np.maximum.accumulate(np.where(begins_run, sums - targets, 0), axis=1)
  track, position = (real & ~is_shift).nonzero()
  step = steps[track, position]
  order = np.lexsort((np.where(step > 0, track, -track), step))
  return run_length_encode(step[order], targets[track, position][order][:, None], codec)


def decode_events(
  state: Any,
  tokens: Iterable[int],
  start_time: float,
  max_time: float | None,
  codec: Codec,
  decode_event_fn: Callable[..., None],
) -> tuple[int, int]:
  """Decode the ids of a segment into `state`.

  The sum of consecutive shifts is the time since the start of the segment. Any ids are accepted.

  Args:
    state: decoding state; updated in place.
    tokens: regular ids, int `[n]`; ids without an event are invalid.
    start_time: start of the segment, s.
    max_time: start of the next segment, s, or None. A shift beyond it, and all ids after it, are dropped.
    codec: the codec of the ids.
    decode_event_fn: (state, time in s, event, codec) -> None; ValueError for an invalid event.

  Returns:
    (number of invalid events, which are skipped; number of dropped events).
  """
  start_time = float(start_time)  # a float32 would make all times float32

  def time_of(steps):
    return start_time + steps / codec.steps_per_second

  return _decode(state, tokens, time_of, max_time, codec, decode_event_fn)


def decode_events_from_step(
  state: Any,
  tokens: Iterable[int],
  start_step: int,
  max_step: int | None,
  codec: Codec,
  decode_event_fn: Callable[..., None],
) -> tuple[int, int]:
  """Same as `decode_events` for a segment that starts at a whole step, without rounding errors in the times."""

  def time_of(steps):
    return (start_step + steps) / codec.steps_per_second

  max_time = None if max_step is None else max_step / codec.steps_per_second
  return _decode(state, tokens, time_of, max_time, codec, decode_event_fn)


def _decode(state, tokens, time_of, max_time, codec, decode_event_fn):
  tokens = np.asarray(tokens).tolist()
  events, num_classes = codec.events, codec.num_classes
  invalid_events = 0
  shifted = 0  # sum of the consecutive shifts; an invalid id between them does not reset it
  time = time_of(0)
  for index, token in enumerate(tokens):
    if not 0 <= token < num_classes:
      invalid_events += 1
      continue
    event = events[token]
    if event.type == SHIFT:
      shifted += event.value
      time = time_of(shifted)
      if max_time is not None and time > max_time:
        return invalid_events, len(tokens) - index
      continue
    shifted = 0
    try:
      decode_event_fn(state, time, event, codec)
    except ValueError:
      invalid_events += 1
  return invalid_events, 0
