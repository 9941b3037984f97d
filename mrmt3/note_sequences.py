"""From tokens to notes, and between note tables and NoteSequence protos (note_seq is only loaded for the latter).

Decoding never fails: whatever makes no sense in the place where it stands is counted and skipped (as MT3).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np

from mrmt3 import notes as note_tables
from mrmt3 import run_length_encoding, vocabularies
from mrmt3.event_codec import Codec, Event
from mrmt3.instruments import DRUM_CHANNEL
from mrmt3.run_length_encoding import EventEncodingSpec
from mrmt3.segment_tokens import FRAMES_PER_SECOND, covering_step

DEFAULT_VELOCITY = 100
DEFAULT_NOTE_DURATION = 0.01  # s; of drums, and of all notes where tokens hold no note-offs
MIN_NOTE_DURATION = 0.01  # s

START_TIMES = ('steps', 'float')


@dataclasses.dataclass
class NoteDecodingState:
  """What is known while tokens are played.

  Attributes:
    current_time: time of the last event, s; events before it are invalid.
    current_velocity: of the notes to come, 0 means that they end.
    current_program: of the notes to come.
    active_pitches: (pitch, program) of the sounding notes -> (onset s, velocity).
    tied_pitches: (pitch, program) that the tie section has named so far.
    is_tie_section: whether the segment is still in its tie section.
    notes: completed notes in the order of completion, as rows of a note table.
  """

  current_time: float = 0.0
  current_velocity: int = DEFAULT_VELOCITY
  current_program: int = 0
  active_pitches: dict[tuple[int, int], tuple[float, int]] = dataclasses.field(default_factory=dict)
  tied_pitches: set[tuple[int, int]] = dataclasses.field(default_factory=set)
  is_tie_section: bool = False
  notes: list[tuple] = dataclasses.field(default_factory=list)


def decode_note_event(state: NoteDecodingState, time: float, event: Event, codec: Codec) -> None:
  """Plays one event at `time` (s) into the state; ValueError, and no change beyond the time, if it makes no sense."""
  _advance(state, time)
  if event.type == 'pitch':
    _decode_pitch(state, event.value)
  elif event.type == 'drum':
    _add_short_note(state, event.value, program=0, is_drum=True)
  elif not _decode_state_change(state, event, codec):
    if event.type != 'tie':
      raise ValueError(f'unexpected event {event}')
    _end_tie_section(state)


def decode_note_onset_event(state: NoteDecodingState, time: float, event: Event, codec: Codec) -> None:
  """Plays one event of tokens without note-offs: every pitch is a note of `DEFAULT_NOTE_DURATION`."""
  _advance(state, time)
  if event.type in ('pitch', 'drum'):
    is_drum = event.type == 'drum'
    _add_short_note(state, event.value, program=0 if is_drum else state.current_program, is_drum=is_drum)
  elif not _decode_state_change(state, event, codec):
    raise ValueError(f'unexpected event {event}')


def _advance(state, time):
  if time < state.current_time:
    raise ValueError(f'time runs back from {state.current_time} s to {time} s')
  state.current_time = time


def _decode_state_change(state, event, codec):
  """Sets velocity or program; tells whether the event was one of these."""
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
      raise ValueError(f'tied pitch {pitch} of program {state.current_program} is not sounding')
    if key in state.tied_pitches:
      raise ValueError(f'pitch {pitch} of program {state.current_program} is tied twice')
    state.tied_pitches.add(key)
    return
  if key in state.active_pitches:
    _end_note(state, key, state.current_time)
  elif state.current_velocity == 0:
    raise ValueError(f'pitch {pitch} of program {state.current_program} ends without sounding')
  if state.current_velocity > 0:
    state.active_pitches[key] = state.current_time, state.current_velocity


def _add_short_note(state, pitch, *, program, is_drum):
  if state.current_velocity == 0:
    raise ValueError(f'pitch {pitch} begins with velocity 0')
  onset = state.current_time
  state.notes.append((onset, onset + DEFAULT_NOTE_DURATION, pitch, state.current_velocity, program, is_drum))


def _end_note(state, key, time):
  onset, velocity = state.active_pitches.pop(key)
  pitch, program = key
  state.notes.append((onset, max(time, onset + MIN_NOTE_DURATION), pitch, velocity, program, False))


def begin_tied_pitches_section(state: NoteDecodingState) -> None:
  """Begins a segment that has a tie section. Velocity, program and time go on from the segment before."""
  state.tied_pitches.clear()
  state.is_tie_section = True


def _end_tie_section(state):
  if not state.is_tie_section:
    raise ValueError('a tie outside the tie section')
  for key in [key for key in state.active_pitches if key not in state.tied_pitches]:
    _end_note(state, key, state.current_time)
  state.is_tie_section = False


def end_all_notes(state: NoteDecodingState) -> np.ndarray:
  """Ends what still sounds and returns all notes as a table, in the order of completion.

  They end together at the current time, or the shortest note's duration after the last of their onsets (as MT3).
  """
  for onset, _ in state.active_pitches.values():
    state.current_time = max(state.current_time, onset + MIN_NOTE_DURATION)
  for key in list(state.active_pitches):
    _end_note(state, key, state.current_time)
  return np.array(state.notes, note_tables.NOTE_DTYPE)


def flush_note_decoding_state(state: NoteDecodingState):
  """Ends what still sounds and returns all notes as a NoteSequence, instruments assigned. Imports note_seq."""
  return notes_to_note_sequence(end_all_notes(state))


def _begin_plain_segment(state):
  """Does nothing: a segment without a tie section leaves the state as it is."""


NoteOnsetEncodingSpec = EventEncodingSpec(
  onsets_only=True,
  ties=False,
  init_decoding_state_fn=NoteDecodingState,
  begin_decoding_segment_fn=_begin_plain_segment,
  decode_event_fn=decode_note_onset_event,
  flush_decoding_state_fn=flush_note_decoding_state,
)

NoteEncodingSpec = dataclasses.replace(NoteOnsetEncodingSpec, onsets_only=False, decode_event_fn=decode_note_event)

NoteEncodingWithTiesSpec = dataclasses.replace(
  NoteEncodingSpec, ties=True, begin_decoding_segment_fn=begin_tied_pitches_section
)


@dataclasses.dataclass
class DecodingStats:
  """What decoding had to put up with.

  Attributes:
    segments: segments decoded.
    invalid_events: tokens that made no sense and were skipped.
    dropped_events: tokens dropped because their segment was over.
    segments_without_eos: segments without an end of sequence.
  """

  segments: int = 0
  invalid_events: int = 0
  dropped_events: int = 0
  segments_without_eos: int = 0


class SegmentDecoder:
  """Turns the tokens of a piece into notes, segment after segment.

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
    """Starts a piece.

    Args:
      codec: the codec of the tokens.
      spec: what the tokens hold.
      frames_per_second: audio frames per second, exact.
      start_times: 'steps' counts segment starts in whole steps. 'float' is MT3's way, for comparison only: it puts some
        starts a step early and then loses what lies on the boundary.
      discard_without_eos: takes a segment without an end of sequence for empty (MR-MT3's way, for comparison only).
      keep_notes: False: notes that `segment` has returned are forgotten, so that endless pieces need little memory.
    """
    if start_times not in START_TIMES:
      raise ValueError(f'unknown start_times {start_times!r}: choose one of {START_TIMES}')
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
    """Takes the next segment and decodes the one before, and this one if it is known where it ends.

    Args:
      model_ids: int [tokens]; what follows the first end of sequence is ignored.
      start_frame: first audio frame of the segment, not before the last segment's.
      next_frame: first audio frame of the segment to come, where there is known to be one.

    Returns:
      The table of notes that are complete since the last call.
    """
    if start_frame < (self._pending[1] if self._pending else 0):
      raise ValueError(f'segments must come in order, got one that starts at frame {start_frame}')
    known = len(self._state.notes)
    self._decode_pending(start_frame)
    self._pending = self._regular_ids(model_ids), start_frame
    if next_frame is not None:
      self._decode_pending(next_frame)
    complete = np.array(self._state.notes[known:], note_tables.NOTE_DTYPE)
    if not self._keep_notes:
      self._state.notes.clear()
    return complete

  def finish(self) -> tuple[np.ndarray, DecodingStats]:
    """Ends the piece and returns (its notes as a sorted note table, statistics): all notes, or those not returned yet."""
    self._decode_pending(None)
    return note_tables.sort_notes(end_all_notes(self._state)), self.stats

  def _regular_ids(self, model_ids):
    ids = vocabularies.decode_ids(np.asarray(model_ids).reshape(-1), self._codec)
    length = np.count_nonzero(ids != vocabularies.DECODED_EOS_ID)
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
    """Returns the start of a segment, in steps or s."""
    if self._in_steps:
      return covering_step(frame, self._codec, self._frames_per_second)
    time = frame / float(self._frames_per_second)
    return time - time % (1 / self._codec.steps_per_second)


def decode_piece(
  segments: Iterable[np.ndarray], start_frames: Sequence[int], codec: Codec, **options
) -> tuple[np.ndarray, DecodingStats]:
  """Returns (sorted note table, statistics) of a whole piece.

  Args:
    segments: model ids [tokens] of each segment.
    start_frames: first audio frame of each, in ascending order.
    codec: the codec of the tokens.
    **options: as `SegmentDecoder` takes them.
  """
  decoder = SegmentDecoder(codec, **options)
  for model_ids, start_frame in zip(segments, start_frames, strict=True):
    decoder.segment(model_ids, start_frame)
  return decoder.finish()


def assign_instruments(note_sequence) -> None:
  """Numbers the instruments of a NoteSequence in place: programs in order of appearance, without 9, which is drums'."""
  numbers = {}
  for note in note_sequence.notes:
    if note.is_drum:
      note.instrument = DRUM_CHANNEL
    else:
      count = len(numbers)
      note.instrument = numbers.setdefault(note.program, count + (count >= DRUM_CHANNEL))


def notes_to_note_sequence(notes: np.ndarray):
  """Returns a note table as a NoteSequence with instruments assigned, notes in the order given. Imports note_seq."""
  from note_seq.protobuf import music_pb2

  note_sequence = music_pb2.NoteSequence(ticks_per_quarter=220)
  for onset, offset, pitch, velocity, program, is_drum in notes.tolist():
    note_sequence.notes.add(
      start_time=onset, end_time=offset, pitch=pitch, velocity=velocity, program=program, is_drum=is_drum
    )
  note_sequence.total_time = float(notes['offset'].max(initial=0.0))
  assign_instruments(note_sequence)
  return note_sequence


def note_sequence_to_notes(note_sequence) -> np.ndarray:
  """Returns the notes of a NoteSequence as a note table, in the order given; drums get program 0."""
  rows = [
    (note.start_time, note.end_time, note.pitch, note.velocity, 0 if note.is_drum else note.program, note.is_drum)
    for note in note_sequence.notes
  ]
  return np.array(rows, note_tables.NOTE_DTYPE)
