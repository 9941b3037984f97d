"""The result of a transcription as a note table, NoteSequence, pretty_midi object or MIDI bytes."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrmt3.errors import UserError
from mrmt3.note_sequences import DecodingStats, decode_piece, encoding_spec
from mrmt3.notes.instruments import instruments_of
from mrmt3.vocabularies import build_codec

if TYPE_CHECKING:
  from mrmt3.config import ModelSpec
  from mrmt3.score.analysis import Analysis


@dataclasses.dataclass(frozen=True)
class Segment:
  """The model's output for one segment.

  Attributes:
    start: time of the first frame, s.
    tokens: int32 `[n]` model ids, up to and including EOS.
  """

  start: float
  tokens: np.ndarray


@dataclasses.dataclass(frozen=True, repr=False)
class Transcription:
  """A transcribed piece.

  Attributes:
    notes: sorted note table (`NOTE_DTYPE`).
    stats: numbers of invalid and dropped events, of segments, and of segments without EOS.
    segments: the segments that the notes were decoded from.
    seconds: duration of the audio, s.
    left_out: number of notes that none of the given instruments can play, and which are not in `notes`.
    is_silent: whether no part of the audio was louder than -65 dBFS (`audio.level.SILENT`).
    instrument_confidence: (program, is_drum) -> probability that the instrument plays, 0..1; empty if the model gives
      none.
  """

  notes: np.ndarray
  stats: DecodingStats
  segments: list[Segment]
  seconds: float = 0.0
  left_out: int = 0
  is_silent: bool = False
  instrument_confidence: Mapping[tuple[int, bool], float] = dataclasses.field(default_factory=dict)

  def __repr__(self) -> str:
    """Return a line: the numbers of notes and instruments, and the duration."""
    count = len(instruments_of(self.notes))
    return f'<Transcription: {len(self.notes)} notes, {count} instruments, {self.seconds:.1f} s>'

  def note_sequence(self):
    """Return the notes as a NoteSequence with instruments assigned; UserError without note_seq (the extra `train`)."""
    from mrmt3 import note_sequences

    try:
      return note_sequences.notes_to_note_sequence(self.notes)
    except ModuleNotFoundError as error:
      raise UserError(
        f'a NoteSequence needs {error.name}, which is not installed; install it with: pip install "mrmt3[train]"'
      ) from error

  def save(self, path: str | os.PathLike, *, tempo: str = 'none', quantize: str | None = None) -> None:
    """Write a file of the kind that its suffix names, atomically; an existing file is replaced.

    Args:
      path: .mid, .musicxml, .pdf (needs MuseScore), .svg (a sheet, needs verovio), .json, .csv, .png (piano roll), or
        .wav, .flac, .ogg and .mp3 (synthesised, needs the extra `dataset`).
      tempo: of MIDI files and sheets, 'auto', 'none' or beats per minute. Sheets always have bars.
      quantize: of MIDI files and sheets, a grid such as '1/16,triplets', or None.

    Raises:
      UserError: the suffix is unknown, the file cannot be written, or an argument makes no sense.
    """
    from mrmt3.inference import outputs
    from mrmt3.score.options import ScoreOptions

    path = Path(path)
    kind = outputs.KINDS.get(path.suffix.lower())
    if kind is None:
      raise UserError(f'cannot save {path}: the name must end in one of {", ".join(outputs.KINDS)}')
    options = ScoreOptions(tempo, quantize)
    options.check()
    outputs.write({kind: path}, self, options, path)

  def pretty_midi(self):
    """Return the notes as a `pretty_midi.PrettyMIDI` with a named track per instrument; times are not rounded."""
    from mrmt3.notes.midi import notes_to_pretty_midi

    return notes_to_pretty_midi(self.notes)

  def midi(self, tempo: str = 'none', quantize: str | None = None) -> bytes:
    """Return the bytes of a MIDI file with the notes, see `notes.midi.write_midi`.

    Args:
      tempo: 'auto' or beats per minute for a file with bars; 'none' for 120 bpm without.
      quantize: a grid such as '1/16,triplets', or None for the times as played.
    """
    from mrmt3.notes.midi import midi_bytes
    from mrmt3.score.options import NO_TEMPO, ScoreOptions

    options = ScoreOptions(tempo, quantize)
    options.check()
    analysis = options.analyze(self.notes) if tempo != NO_TEMPO else None
    return midi_bytes(*options.midi(self.notes, analysis), self.instrument_confidence)

  def score(self, tempo: str = 'auto') -> 'Analysis':
    """Return beats, bars, tempo map and key, see `score.analysis.Analysis`; `tempo` may be beats per minute."""
    from mrmt3.score.analysis import analyze

    return analyze(self.notes, tempo)

  def musicxml(self, tempo: str = 'auto', quantize: str = '1/16,triplets', title: str = '') -> str:
    """Return the notes as the text of a MusicXML file.

    Args:
      tempo: 'auto' or beats per minute.
      quantize: the finest note value, and whether there are triplets.
      title: of the piece.

    Raises:
      UserError: there is no note or no steady pulse, or an argument makes no sense.
    """
    from mrmt3.score.options import ScoreOptions

    options = ScoreOptions(tempo, quantize)
    options.check()
    return options.musicxml(self.notes, options.analyze(self.notes), title, 'the transcription')

  def cleaned(self) -> 'Transcription':
    """Return it without stuttered repeats, very short notes, and cuts at segment borders, see `score.clean`."""
    from mrmt3.score.clean import clean

    borders = np.array([segment.start for segment in self.segments])
    return dataclasses.replace(self, notes=clean(self.notes, borders))


def decode_segments(segments: Sequence[np.ndarray], spec: 'ModelSpec') -> tuple[np.ndarray, DecodingStats]:
  """Decode the tokens of a whole piece to (sorted note table, statistics).

  Args:
    segments: model ids `[n]` of consecutive segments from the start of the piece.
    spec: of the model that predicted them.
  """
  starts = range(0, len(segments) * spec.step_frames, spec.step_frames)
  encoding, frame_rate = encoding_spec(spec.ties), spec.spectrogram.frame_rate
  return decode_piece(segments, starts, build_codec(spec.vocabulary), spec=encoding, frames_per_second=frame_rate)
