"""The result of a transcription as a note table, NoteSequence, pretty_midi object or MIDI bytes."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mrmt3.note_sequences import DecodingStats, decode_piece, encoding_spec
from mrmt3.vocabularies import build_codec

if TYPE_CHECKING:
  from mrmt3.config import ModelSpec


@dataclasses.dataclass(frozen=True)
class Segment:
  """The model's output for one segment.

  Attributes:
    start: time of the first frame, s.
    tokens: int32 `[n]` model ids, up to and including EOS.
  """

  start: float
  tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Transcription:
  """A transcribed piece.

  Attributes:
    notes: sorted note table (`NOTE_DTYPE`).
    stats: numbers of invalid and dropped events, of segments, and of segments without EOS.
    segments: the segments that the notes were decoded from.
    seconds: duration of the audio, s.
    left_out: number of notes that none of the given instruments can play, and which are not in `notes`.
    is_silent: whether no part of the audio was louder than -65 dBFS (`audio.level.SILENT`).
  """

  notes: np.ndarray
  stats: DecodingStats
  segments: list[Segment]
  seconds: float = 0.0
  left_out: int = 0
  is_silent: bool = False

  def note_sequence(self):
    """Return the notes as a NoteSequence with instruments assigned. Imports note_seq (the extra `train`)."""
    from mrmt3 import note_sequences

    return note_sequences.notes_to_note_sequence(self.notes)

  def pretty_midi(self):
    """Return the notes as a `pretty_midi.PrettyMIDI` with a named track per instrument; times are not rounded."""
    from mrmt3.notes.midi import notes_to_pretty_midi

    return notes_to_pretty_midi(self.notes)

  def midi(self) -> bytes:
    """Return the bytes of a MIDI file with the notes, see `notes.midi.write_midi`."""
    from mrmt3.notes.midi import midi_bytes

    return midi_bytes(self.notes)


def decode_segments(segments: Sequence[np.ndarray], spec: 'ModelSpec') -> tuple[np.ndarray, DecodingStats]:
  """Decode the tokens of a whole piece to (sorted note table, statistics).

  Args:
    segments: model ids `[n]` of consecutive segments from the start of the piece.
    spec: of the model that predicted them.
  """
  starts = range(0, len(segments) * spec.step_frames, spec.step_frames)
  encoding, frame_rate = encoding_spec(spec.ties), spec.spectrogram.frame_rate
  return decode_piece(segments, starts, build_codec(spec.vocabulary), spec=encoding, frames_per_second=frame_rate)
