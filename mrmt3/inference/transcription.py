"""What a transcription is, in the forms that people use: note table, NoteSequence, pretty_midi, MIDI bytes."""

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
  """What the model said about one segment.

  Attributes:
    start: first frame's time, s.
    tokens: int32 `[n]` model ids, up to and including EOS.
  """

  start: float
  tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class Transcription:
  """A transcribed piece.

  Attributes:
    notes: sorted note table (`notes.NOTE_DTYPE`).
    stats: events that were invalid or dropped, segments, and segments that had no EOS.
    segments: what the notes were decoded from.
    seconds: length of the audio, s.
  """

  notes: np.ndarray
  stats: DecodingStats
  segments: list[Segment]
  seconds: float = 0.0

  def note_sequence(self):
    """Returns the notes as a NoteSequence, instruments assigned. Imports note_seq (the extra `train`)."""
    from mrmt3 import note_sequences

    return note_sequences.notes_to_note_sequence(self.notes)

  def pretty_midi(self):
    """Returns the notes as a `pretty_midi.PrettyMIDI` with one named instrument each, times as exact as the notes'."""
    from mrmt3.notes import midi as midi_io

    return midi_io.notes_to_pretty_midi(self.notes)

  def midi(self) -> bytes:
    """Returns the notes as a MIDI file's bytes, see `midi_io.write_midi`."""
    from mrmt3.notes import midi as midi_io

    return midi_io.midi_bytes(self.notes)


def decode_segments(segments: Sequence[np.ndarray], spec: 'ModelSpec') -> tuple[np.ndarray, DecodingStats]:
  """Returns (sorted note table, statistics) of a whole piece.

  Args:
    segments: model ids `[n]` of each segment, one after the other from the start of the piece.
    spec: of the model that they belong to.
  """
  starts = range(0, len(segments) * spec.segment_frames, spec.segment_frames)
  hold, rate = encoding_spec(spec.ties), spec.spectrogram.frame_rate
  return decode_piece(segments, starts, build_codec(spec.vocabulary), spec=hold, frames_per_second=rate)
