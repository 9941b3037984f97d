"""Note events of NoteSequence protos and their codec events, as in MT3's note_sequences.

These are the functions that `run_length_encoding.encode_and_index_events` takes as arguments. Training encodes note
arrays directly (`segment_targets`) and gets the same tokens. No proto library is imported: protos are only read.
"""

import dataclasses
from collections.abc import Sequence

from mrmt3 import vocabularies
from mrmt3.event_codec import Codec, Event


@dataclasses.dataclass
class NoteEventData:
  """A note-on or note-off.

  Attributes:
    pitch: MIDI pitch; for drums the drum key.
    velocity: MIDI velocity, 0 for a note-off; None if only onsets are encoded.
    program: MIDI program; None if no programs are encoded.
    is_drum: whether the note is a drum hit.
    instrument: not encoded.
  """

  pitch: int
  velocity: int | None = None
  program: int | None = None
  is_drum: bool | None = None
  instrument: int | None = None


TimedEvents = tuple[Sequence[float], Sequence[NoteEventData]]


def note_sequence_to_onsets(ns) -> TimedEvents:
  """Return (times in s, events) of all onsets, sorted by pitch, drums included. Events have only a pitch."""
  notes = sorted(ns.notes, key=lambda note: note.pitch)
  return [note.start_time for note in notes], [NoteEventData(note.pitch) for note in notes]


def note_sequence_to_onsets_and_offsets(ns) -> TimedEvents:
  """Return (times in s, events): all offsets sorted by pitch, then all onsets sorted by pitch, without programs."""
  notes = sorted(ns.notes, key=lambda note: note.pitch)
  times = [note.end_time for note in notes] + [note.start_time for note in notes]
  return times, [
    NoteEventData(note.pitch, velocity)
    for is_onset in (0, 1)
    for note in notes
    for velocity in [note.velocity * is_onset]
  ]


def note_sequence_to_onsets_and_offsets_and_programs(ns) -> TimedEvents:
  """Return (times in s, events): offsets of pitched notes, then all onsets, each by (is_drum, program, pitch)."""
  notes = sorted(ns.notes, key=lambda note: (note.is_drum, note.program, note.pitch))
  pitched = [note for note in notes if not note.is_drum]
  times = [note.end_time for note in pitched] + [note.start_time for note in notes]
  offsets = [NoteEventData(note.pitch, 0, note.program, False) for note in pitched]
  return times, offsets + [NoteEventData(note.pitch, note.velocity, note.program, note.is_drum) for note in notes]


@dataclasses.dataclass
class NoteEncodingState:
  """The notes that sound while events are encoded.

  Attributes:
    active_pitches: (pitch, program) -> velocity bin of the last event; 0 if the note has ended.
  """

  active_pitches: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)


def note_event_data_to_events(state: NoteEncodingState | None, value: NoteEventData, codec: Codec) -> list[Event]:
  """Return the codec events of a note event: program, velocity, pitch | velocity, drum | velocity, pitch | pitch."""
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
  """Return a tie section: program and pitch of each sounding note, sorted by program and pitch, then the tie."""
  sounding = sorted((program, pitch) for (pitch, program), velocity_bin in state.active_pitches.items() if velocity_bin)
  named = [event for program, pitch in sounding for event in (Event('program', program), Event('pitch', pitch))]
  return [*named, Event('tie', 0)]
