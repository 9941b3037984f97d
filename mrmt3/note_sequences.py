"""Decoding of tokens to notes. Together with the names it re-exports, this is MT3's note_sequences.

Decoding never fails: invalid events are counted and skipped (as in MT3). note_seq is imported only where a NoteSequence
proto is made.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from mrmt3 import run_length_encoding, vocabularies
from mrmt3.event_codec import Codec, Event
from mrmt3.notes import note_array as note_tables
from mrmt3.notes.note_sequence_protos import (
  DEFAULT_NOTE_DURATION,
  DEFAULT_VELOCITY,
  TrackSpec,
  add_notes,
  assign_instruments,
  extract_track,
  new_note_sequence,
  note_arrays_to_note_sequence,
  note_sequence_to_notes,
  notes_to_note_sequence,
  trim_overlapping_notes,
  validate_note_sequence,
)
from mrmt3.run_length_encoding import EventEncodingSpec
from mrmt3.special_tokens import DECODED_EOS_ID
from mrmt3.tokens.note_events import (
  NoteEncodingState,
  NoteEventData,
  note_encoding_state_to_events,
  note_event_data_to_events,
  note_sequence_to_onsets,
  note_sequence_to_onsets_and_offsets,
  note_sequence_to_onsets_and_offsets_and_programs,
)
from mrmt3.tokens.segment_targets import FRAMES_PER_SECOND, covering_step

MIN_NOTE_DURATION = 0.01  # s

START_TIMES = ('steps', 'float')

__all__ = [
  'DEFAULT_NOTE_DURATION',
  'DEFAULT_VELOCITY',
  'MIN_NOTE_DURATION',
  'START_TIMES',
  'DecodingStats',
  'NoteDecodingState',
  'NoteEncodingSpec',
  'NoteEncodingSpecType',
  'NoteEncodingState',
  'NoteEncodingWithTiesSpec',
  'NoteEventData',
  'NoteOnsetEncodingSpec',
  'SegmentDecoder',
  'TrackSpec',
  'assign_instruments',
  'begin_tied_pitches_section',
  'decode_note_event',
  'decode_note_onset_event',
  'decode_piece',
  'encoding_spec',
  'end_all_notes',
  'extract_track',
  'flush_note_decoding_state',
  'note_arrays_to_note_sequence',
  'note_encoding_state_to_events',
  'note_event_data_to_events',
  'note_sequence_to_notes',
  'note_sequence_to_onsets',
  'note_sequence_to_onsets_and_offsets',
  'note_sequence_to_onsets_and_offsets_and_programs',
  'notes_to_note_sequence',
  'trim_overlapping_notes',
  'validate_note_sequence',
]


@dataclasses.dataclass
class NoteDecodingState:
  """State of the decoder between events.

  Attributes:
    current_time: time of the last event, s; earlier events are invalid.
    current_velocity: velocity of the next pitch events; 0 means note-off.
    current_program: program of the next pitch events.
    active_pitches: (pitch, program) of the active notes -> (onset in s, velocity).
    tied_pitches: (pitch, program) pairs of the current tie section so far.
    is_tie_section: whether the current event is in the tie section.
    notes: completed notes in order of completion, as rows of a note table.
  """

  current_time: float = 0.0
  current_velocity: int = DEFAULT_VELOCITY
  current_program: int = 0
  active_pitches: dict[tuple[int, int], tuple[float, int]] = dataclasses.field(default_factory=dict)
  tied_pitches: set[tuple[int, int]] = dataclasses.field(default_factory=set)
  is_tie_section: bool = False
  notes: list[tuple] = dataclasses.field(default_factory=list)

  @functools.cached_property
  def _proto(self):
    return new_note_sequence()

  @property
  def note_sequence(self):
    """The completed notes as a NoteSequence (as in MT3): always the same object, updated. Imports note_seq."""
    add_notes(self._proto, self.notes[len(self._proto.notes) :])
    return self._proto


def decode_note_event(state: NoteDecodingState, time: float, event: Event, codec: Codec) -> None:
  """Apply an event at `time` (s) to the state; ValueError if it is invalid, when only the time changes."""
  _advance(state, time)
  if event.type == 'pitch':
    _decode_pitch(state, event.value)
  elif event.type == 'drum':
    _add_drum(state, event.value)
  elif not _decode_state_change(state, event, codec):
    if event.type != 'tie':
      raise ValueError(f'unexpected event {event}')
    _end_tie_section(state)


def decode_note_onset_event(state: NoteDecodingState, time: float, event: Event, codec: Codec) -> None:
  """Apply an event of an onsets-only encoding: each pitch is a note of `DEFAULT_NOTE_DURATION`."""
  if event.type != 'pitch':
    raise ValueError(f'unexpected event {event}')
  state.notes.append((time, time + DEFAULT_NOTE_DURATION, event.value, DEFAULT_VELOCITY, 0, False))


def _advance(state, time):
  if time < state.current_time:
    raise ValueError(f'time goes back from {state.current_time} s to {time} s')
  state.current_time = time


def _decode_state_change(state, event, codec):
  """Apply a velocity or program event; return whether the event was one of these."""
  if event.type == 'velocity':
    num_bins = vocabularies.num_velocity_bins_from_codec(codec)
    state.current_velocity = vocabularies.bin_to_velocity(event.value, num_bins)
  elif event.type == 'program':
    state.current_program = event.value
  else:
    return False
  return True


def _decode_pitch(state, pitch):
  key = pitch, state.current_program
  if state.is_tie_section:
    if key not in state.active_pitches:
      raise ValueError(f'tied pitch {pitch} of program {state.current_program} is not active')
    if key in state.tied_pitches:
      raise ValueError(f'pitch {pitch} of program {state.current_program} is tied twice')
    state.tied_pitches.add(key)
    return
  if key in state.active_pitches:
    _end_note(state, key, state.current_time)
  elif state.current_velocity == 0:
    raise ValueError(f'pitch {pitch} of program {state.current_program} ends but is not active')
  if state.current_velocity > 0:
    state.active_pitches[key] = state.current_time, state.current_velocity


def _add_drum(state, pitch):
  if state.current_velocity == 0:
    raise ValueError(f'drum {pitch} begins with velocity 0')
  onset = state.current_time
  state.notes.append((onset, onset + DEFAULT_NOTE_DURATION, pitch, state.current_velocity, 0, True))


def _end_note(state, key, time):
  onset, velocity = state.active_pitches.pop(key)
  pitch, program = key
  state.notes.append((onset, max(time, onset + MIN_NOTE_DURATION), pitch, velocity, program, False))


def begin_tied_pitches_section(state: NoteDecodingState) -> None:
  """Begin a segment that has a tie section. Velocity, program and time carry over from the previous segment."""
  state.tied_pitches.clear()
  state.is_tie_section = True


def _end_tie_section(state):
  if not state.is_tie_section:
    raise ValueError('a tie outside the tie section')
  for key in [key for key in state.active_pitches if key not in state.tied_pitches]:
    _end_note(state, key, state.current_time)
  state.is_tie_section = False


def end_all_notes(state: NoteDecodingState) -> np.ndarray:
  """End all active notes and return all notes as a note table, in order of completion.

  The active notes end at the current time, but not before `MIN_NOTE_DURATION` after the last onset (as in MT3).
  """
  for onset, _ in state.active_pitches.values():
    state.current_time = max(state.current_time, onset + MIN_NOTE_DURATION)
  for key in list(state.active_pitches):
    _end_note(state, key, state.current_time)
  return note_tables.from_tuples(state.notes)


def flush_note_decoding_state(state: NoteDecodingState):
  """End all active notes and return all notes as a NoteSequence with instruments assigned. Imports note_seq."""
  end_all_notes(state)
  assign_instruments(state.note_sequence)
  return state.note_sequence


def _begin_plain_segment(state):
  """Do nothing, since a segment without a tie section does not change the state."""


class NoteEncodingSpecType(EventEncodingSpec):
  """Functions that encode notes as events and decode events to notes."""


NoteOnsetEncodingSpec = NoteEncodingSpecType(
  init_encoding_state_fn=lambda: None,
  encode_event_fn=note_event_data_to_events,
  encoding_state_to_events_fn=None,
  init_decoding_state_fn=NoteDecodingState,
  begin_decoding_segment_fn=_begin_plain_segment,
  decode_event_fn=decode_note_onset_event,
  flush_decoding_state_fn=lambda state: state.note_sequence,
)

NoteEncodingSpec = dataclasses.replace(
  NoteOnsetEncodingSpec, decode_event_fn=decode_note_event, flush_decoding_state_fn=flush_note_decoding_state
)

NoteEncodingWithTiesSpec = dataclasses.replace(
  NoteEncodingSpec,
  init_encoding_state_fn=NoteEncodingState,
  encoding_state_to_events_fn=note_encoding_state_to_events,
  begin_decoding_segment_fn=begin_tied_pitches_section,
)


def encoding_spec(ties: bool, onsets_only: bool = False) -> NoteEncodingSpecType:
  """Return the encoding spec: with a tie section (`ties`), onsets only (`onsets_only`), or onsets and offsets.

  Raises:
    ValueError: both are set.
  """
  if onsets_only and ties:
    raise ValueError('an onsets-only encoding has no ties; set onsets_only or ties, not both')
  if onsets_only:
    return NoteOnsetEncodingSpec
  return NoteEncodingWithTiesSpec if ties else NoteEncodingSpec


@dataclasses.dataclass
class DecodingStats:
  """Counts of decoded segments and of problems in them.

  Attributes:
    segments: number of segments.
    invalid_events: number of tokens without a meaning where they stand, which are skipped. As in MT3, whose metric this
      is: ids outside the codec; a note-off of a pitch that does not sound; a drum of velocity 0; a tied pitch that does
      not sound or is tied twice; a tie section's end outside it. Not counted are notes that begin again while they
      sound.
    dropped_events: number of tokens after the end of their segment, which are dropped.
    segments_without_eos: number of segments without an end of sequence.
  """

  segments: int = 0
  invalid_events: int = 0
  dropped_events: int = 0
  segments_without_eos: int = 0


class SegmentDecoder:
  """Decodes the tokens of a piece to notes, segment by segment.

  A segment ends where the next one starts, so it is decoded when the next one is known, or at the end.
  """

  def __init__(
    self,
    codec: Codec,
    *,
    spec: EventEncodingSpec = NoteEncodingWithTiesSpec,
    frames_per_second: int | Fraction = FRAMES_PER_SECOND,
    start_times: str = 'steps',
    discard_without_eos: bool = False,
    keep_notes: bool = True,
  ):
    """Start a piece.

    Args:
      codec: the codec of the tokens.
      spec: encoding of the tokens.
      frames_per_second: audio frames per second, exact.
      start_times: 'steps' computes segment starts in whole steps. 'float' is as in MT3, for comparison only: rounding
        puts some starts a step early, and events on the boundary are lost.
      discard_without_eos: whether a segment without an end of sequence counts as empty (as in MR-MT3, for comparison
        only).
      keep_notes: whether to keep the notes that `segment` has returned; False bounds the memory for live input.

    Raises:
      ValueError: start_times is unknown.
    """
    if start_times not in START_TIMES:
      raise ValueError(f'start_times is {start_times!r}; it must be one of {START_TIMES}')
    self._codec = codec
    self._spec = spec
    self._frames_per_second = Fraction(frames_per_second)
    self._in_steps = start_times == 'steps'
    self._discard_without_eos = discard_without_eos
    self._keep_notes = keep_notes
    self._state = spec.init_decoding_state_fn()
    self._pending = None  # (regular ids, start frame) of the last segment
    self.stats = DecodingStats()

  def segment(self, model_ids: np.ndarray, start_frame: int, next_frame: int | None = None) -> np.ndarray:
    """Add the next segment; decodes the previous one, and this one if `next_frame` is given.

    Args:
      model_ids: int `[tokens]`; ids after the first end of sequence are ignored.
      start_frame: first audio frame of the segment, not before the previous segment's.
      next_frame: first audio frame of the following segment, if known.

    Returns:
      A note table of the notes completed since the last call.

    Raises:
      ValueError: the segments are not in order.
    """
    if start_frame < (self._pending[1] if self._pending else 0):
      raise ValueError(f'segment at frame {start_frame} starts before the previous one; add segments in order')
    known = len(self._state.notes)
    self._decode_pending(start_frame)
    self._pending = self._regular_ids(model_ids), start_frame
    if next_frame is not None:
      self._decode_pending(next_frame)
    complete = note_tables.from_tuples(self._state.notes[known:])
    if not self._keep_notes:
      self._state.notes.clear()
    return complete

  def finish(self) -> tuple[np.ndarray, DecodingStats]:
    """End the piece; return (sorted note table, statistics). Without keep_notes, only the remaining notes."""
    self._decode_pending(None)
    return note_tables.sort_notes(end_all_notes(self._state)), self.stats

  def _regular_ids(self, model_ids):
    ids = vocabularies.decode_ids(np.asarray(model_ids).reshape(-1), self._codec)
    length = np.count_nonzero(ids != DECODED_EOS_ID)
    self.stats.segments += 1
    if length == len(ids):
      self.stats.segments_without_eos += 1
      if self._discard_without_eos:
        return ids[:0]
    return ids[:length]

  def _decode_pending(self, next_frame):
    if self._pending is None:
      return
    tokens, frame = self._pending
    self._pending = None
    self._spec.begin_decoding_segment_fn(self._state)
    decode = run_length_encoding.decode_events_from_step if self._in_steps else run_length_encoding.decode_events
    end = None if next_frame is None else self._start(next_frame)
    invalid, dropped = decode(self._state, tokens, self._start(frame), end, self._codec, self._spec.decode_event_fn)
    self.stats.invalid_events += invalid
    self.stats.dropped_events += dropped

  def _start(self, frame):
    """Return the start of a segment, in steps or in seconds."""
    if self._in_steps:
      return covering_step(frame, self._codec, self._frames_per_second)
    time = frame / float(self._frames_per_second)
    return time - time % (1 / self._codec.steps_per_second)


def decode_piece(
  segments: Iterable[np.ndarray], start_frames: Sequence[int], codec: Codec, **options
) -> tuple[np.ndarray, DecodingStats]:
  """Decode a whole piece; return (sorted note table, statistics).

  Args:
    segments: model ids, int `[tokens]`, of each segment.
    start_frames: first audio frame of each segment, in ascending order.
    codec: the codec of the tokens.
    **options: see `SegmentDecoder`.
  """
  decoder = SegmentDecoder(codec, **options)
  for model_ids, start_frame in zip(segments, start_frames, strict=True):
    decoder.segment(model_ids, start_frame)
  return decoder.finish()
