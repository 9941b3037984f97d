"""Between events at steps and one row of token ids: time shifts, redundant state changes, and the way back.

All ids here are regular ids (`event_codec`). A shift is counted from the start of the segment, not from the event before
it (as MT3).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mrmt3.event_codec import SHIFT, Codec

ABSENT = -1  # in a row of event ids: nothing is written here
STATE_CHANGE_TYPES = ('velocity', 'program')


@dataclasses.dataclass(frozen=True)
class EventEncodingSpec:
  """How events of one kind become tokens, and tokens state.

  Attributes:
    onsets_only: whether targets say only what begins.
    ties: whether targets begin with a tie section.
    init_decoding_state_fn: () -> state.
    begin_decoding_segment_fn: (state) -> None, called at the start of each segment.
    decode_event_fn: (state, time s, event, codec) -> None; ValueError if the event makes no sense in this state.
    flush_decoding_state_fn: (state) -> the decoded result.
  """

  onsets_only: bool
  ties: bool
  init_decoding_state_fn: Callable[[], Any]
  begin_decoding_segment_fn: Callable[[Any], None]
  decode_event_fn: Callable[..., None]
  flush_decoding_state_fn: Callable[[Any], Any]


def run_length_encode(steps: np.ndarray, event_ids: np.ndarray, codec: Codec) -> np.ndarray:
  """Writes events in a row, with a time shift before the first event of each step.

  Args:
    steps: [events] steps since the start of the segment, not decreasing, from 0.
    event_ids: [events, ids per event] regular ids, `ABSENT` where an event has fewer.
    codec: the codec of the ids.

  Returns:
    int32 ids [tokens]. There is no shift before events at step 0; a shift longer than the codec's longest is written
    as several of that length and the rest.
  """
  # The ids of shifts are their values, because the codec numbers shifts from 0.
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
  """Returns the ids `[n]` without those that repeat the last one of their type; the state starts unset."""
  tokens = np.asarray(tokens)
  keep = np.full(len(tokens), True)
  for event_type in state_change_event_types:
    first_id, last_id = codec.event_type_range(event_type)
    changes = ((tokens >= first_id) & (tokens <= last_id)).nonzero()[0]
    states = tokens[changes]
    keep[changes[1:]] = states[1:] != states[:-1]
  return tokens[keep]


def decode_events(
  state: Any,
  tokens: Iterable[int],
  start_time: float,
  max_time: float | None,
  codec: Codec,
  decode_event_fn: Callable[..., None],
) -> tuple[int, int]:
  """Plays the ids of one segment into `state`.

  Consecutive shifts add up, and their sum is the time since the start of the segment. Any ids are accepted.

  Args:
    state: whatever `decode_event_fn` keeps; changed in place.
    tokens: regular ids [n]; those that no event has are invalid.
    start_time: start of the segment, s.
    max_time: start of the next segment, s, or None. A shift beyond it is dropped, and all that follows.
    codec: the codec of the ids.
    decode_event_fn: (state, time s, event, codec) -> None; ValueError for an event that makes no sense.

  Returns:
    (number of invalid events, which were skipped, number of dropped events).
  """

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
  """Does what `decode_events` does for a segment that starts at a step, without adding up rounding errors."""

  def time_of(steps):
    return (start_step + steps) / codec.steps_per_second

  max_time = None if max_step is None else max_step / codec.steps_per_second
  return _decode(state, tokens, time_of, max_time, codec, decode_event_fn)


def _decode(state, tokens, time_of, max_time, codec, decode_event_fn):
  tokens = np.asarray(tokens).tolist()
  events, num_classes = codec.events, codec.num_classes
  invalid_events = 0
  shifted = 0  # sum of the consecutive shifts; an unknown id among them does not end the sum
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
