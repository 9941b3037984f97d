"""Notes as timed events, and events as tokens say them, for NoteSequence protos (as MT3's note_sequences).

These are the parts that `run_length_encoding.encode_and_index_events` is given. Training goes another way, straight from
note tables (`segment_tokens`), with the same tokens. No proto library is imported: protos are only read.
"""

import dataclasses
from collections.abc import Sequence

from mrmt3 import vocabularies
from mrmt3.event_codec import Codec, Event


@dataclasses.dataclass
class NoteEventData:
  """Something that happens to a note.

  Attributes:
    pitch: MIDI pitch, for drums the drum's.
    velocity: MIDI velocity, 0 for a note-off; None where only onsets are written.
    program: MIDI program; None where none is written.
    is_drum: whether it is a drum.
    instrument: not written.
  """

  pitch: int
  velocity: int | None = None
  program: int | None = None
  is_drum: bool | None = None
  instrument: int | None = None


TimedEvents = tuple[Sequence[float], Sequence[NoteEventData]]


def note_sequence_to_onsets(ns) -> TimedEvents:
  """Returns (times in s, events) of the onsets of a NoteSequence, by pitch: pitches and nothing else, of drums as well."""
  notes = sorted(ns.notes, key=lambda note: note.pitch)
  return [note.start_time for note in notes], [NoteEventData(note.pitch) for note in notes]


def note_sequence_to_onsets_and_offsets(ns) -> TimedEvents:
  """Returns (times in s, events) of a NoteSequence: all offsets by pitch, then all onsets by pitch, without programs."""
  notes = sorted(ns.notes, key=lambda note: note.pitch)
  times = [note.end_time for note in notes] + [note.start_time for note in notes]
  return times, [
    NoteEventData(note.pitch, velocity)
    for is_onset in (0, 1)
    for note in notes
    for velocity in [note.velocity * is_onset]
  ]


def note_sequence_to_onsets_and_offsets_and_programs(ns) -> TimedEvents:
  """Returns (times in s, events): the offsets of what is not a drum, then all onsets, each by (is_drum, program, pitch)."""
  notes = sorted(ns.notes, key=lambda note: (note.is_drum, note.program, note.pitch))
  pitched = [note for note in notes if not note.is_drum]
  times = [note.end_time for note in pitched] + [note.start_time for note in notes]
  offsets = [NoteEventData(note.pitch, 0, note.program, False) for note in pitched]
  return times, offsets + [NoteEventData(note.pitch, note.velocity, note.program, note.is_drum) for note in notes]


@dataclasses.dataclass
class NoteEncodingState:
  """What sounds while events are written.

  Attributes:
    active_pitches: (pitch, program) -> velocity bin of the last event, 0 for what has ended.
  """

  active_pitches: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)


def note_event_data_to_events(state: NoteEncodingState | None, value: NoteEventData, codec: Codec) -> list[Event]:
  """Returns the events that say what happens: program, velocity, pitch | velocity, drum | velocity, pitch | pitch."""
  if value.velocity is None:
    return [Event('pitch', value.pitch)]
  velocity_bin = vocabularies.velocity_to_bin(value.velocity, vocabularies.num_velocity_bins_from_codec(codec))
  velocity = Event('velocity', velocity_bin)
  if value.program is not None and value.is_drum:
    return [velocity, Event('drum', value.pitch)]
  if state is not None:
    state.active_pitches[value.pitch, int(value.program or 0)] = velocity_bin
  program = [] if value.program is None else [Event('program', value.program)]
  return [*program, velocity, Event('pitch', value.pitch)]


def note_encoding_state_to_events(state: NoteEncodingState) -> list[Event]:
  """Returns a tie section: program and pitch of what sounds, by program and pitch, then the tie."""
  sounding = sorted((program, pitch) for (pitch, program), velocity_bin in state.active_pitches.items() if velocity_bin)
  named = [event for program, pitch in sounding for event in (Event('program', program), Event('pitch', pitch))]
  return [*named, Event('tie', 0)]
