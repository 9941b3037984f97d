import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import run_length_encoding
from mrmt3.event_codec import Codec, Event, EventRange

CODEC = Codec(10, 100, [EventRange('pitch', 0, 9), EventRange('velocity', 0, 1), EventRange('program', 0, 5)])
PITCH, VELOCITY, PROGRAM = (CODEC.event_type_range(t)[0] for t in ('pitch', 'velocity', 'program'))


def encode(steps, pitches):
  return run_length_encoding.run_length_encode(np.array(steps, int), PITCH + np.array([pitches], int).T, CODEC).tolist()


def test_shifts_count_from_the_segments_start():
  assert encode([0, 2, 2, 5], [1, 2, 3, 4]) == [PITCH + 1, 2, PITCH + 2, PITCH + 3, 5, PITCH + 4]


@pytest.mark.parametrize(
  ('step', 'shifts'), [(0, []), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (29, [10, 10, 9])]
)
def test_long_shifts_are_split(step, shifts):
  assert encode([step], [7]) == [*shifts, PITCH + 7]


def test_no_events_are_no_tokens():
  assert encode([], []) == []


def test_absent_ids_are_not_written():
  ids = np.array([[-1, PITCH], [PROGRAM, PITCH]])
  assert run_length_encoding.run_length_encode(np.array([0, 3]), ids, CODEC).tolist() == [PITCH, 3, PROGRAM, PITCH]


def test_redundant_state_changes_are_removed_per_type():
  tokens = [PROGRAM, VELOCITY, PITCH, PROGRAM, VELOCITY + 1, PITCH, 3, PROGRAM, VELOCITY + 1, PROGRAM + 1, PROGRAM]
  expected = [PROGRAM, VELOCITY, PITCH, VELOCITY + 1, PITCH, 3, PROGRAM + 1, PROGRAM]
  assert run_length_encoding.remove_redundant_state_changes(tokens, CODEC).tolist() == expected
  only_velocity = run_length_encoding.remove_redundant_state_changes(tokens, CODEC, ['velocity']).tolist()
  assert only_velocity == [t for i, t in enumerate(tokens) if i != 8]


def play(tokens, start_time=1.0, max_time=None):
  """Return (events with times, invalid, dropped); pitch 9 is refused."""
  decoded = []

  def decode(state, time, event, codec):
    assert codec is CODEC
    if event == Event('pitch', 9):
      raise ValueError('refused')
    state.append((round(time, 9), event.type, event.value))

  counts = run_length_encoding.decode_events(decoded, tokens, start_time, max_time, CODEC, decode)
  return decoded, *counts


def test_decoding_sums_consecutive_shifts_and_starts_anew_after_events():
  decoded, invalid, dropped = play([10, 4, PITCH, 2, PITCH + 1])
  assert decoded == [(1.14, 'pitch', 0), (1.02, 'pitch', 1)]
  assert (invalid, dropped) == (0, 0)


def test_unknown_ids_do_not_end_a_sum_of_shifts_but_refused_events_do():
  decoded, invalid, _ = play([10, -2, 999, 4, PITCH])
  assert decoded == [(1.14, 'pitch', 0)]
  assert invalid == 2
  decoded, invalid, _ = play([10, PITCH + 9, 4, PITCH])
  assert decoded == [(1.04, 'pitch', 0)]
  assert invalid == 1


def test_what_follows_a_shift_beyond_the_segment_is_dropped():
  decoded, invalid, dropped = play([5, PITCH, 10, 1, PITCH + 1, 2, PITCH + 2, -2], max_time=1.1)
  assert decoded == [(1.05, 'pitch', 0)]
  assert (invalid, dropped) == (0, 5)


def test_a_shift_to_the_very_end_of_the_segment_is_kept():
  assert play([10, PITCH], start_time=0.0, max_time=0.1)[2] == 0


def test_whole_steps_do_not_lose_the_boundary():
  # 30.72 s is 3072 steps of 10 ms; 30.72 % 0.01 is almost 0.01 in floating point.
  decoded = []

  def decode(state, time, event, codec):
    state.append(time)

  counts = run_length_encoding.decode_events_from_step(decoded, [10, 10, PITCH], 3052, 3072, CODEC, decode)
  assert counts == (0, 0)
  assert decoded == [30.72]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=30))
def test_events_round_trip(events):
  events.sort(key=lambda event: event[0])
  tokens = encode([step for step, _ in events], [pitch for _, pitch in events])
  decoded, invalid, dropped = play(tokens, start_time=0.0)
  assert [(round(time * 100), pitch) for time, _, pitch in decoded] == events
  assert (invalid, dropped) == (0, 0)
