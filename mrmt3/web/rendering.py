"""Notes as files of each kind: MIDI, MusicXML, SVG, CSV, JSON and sound, as the command line writes them."""

import dataclasses
import io
import json

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes import export, midi
from mrmt3.notes.instruments import instruments_of, notes_of
from mrmt3.score.options import NO_TEMPO, ScoreOptions
from mrmt3.web import wire

SOUND_RATE = 44100
_BLOCK = 1 << 16  # frames; libsndfile's Vorbis encoder needs short blocks
_MAX_PEAK = 0.99
_GAIN = 0.2  # single notes at full velocity reach 0.1 to 0.3, chords less than 1 (TimGM6mb)
# kind -> (media type, suffix)
KINDS = {
  'midi': ('audio/midi', '.mid'),
  'musicxml': ('application/vnd.recordare.musicxml+xml', '.musicxml'),
  'svg': ('image/svg+xml', '.svg'),
  'csv': ('text/csv; charset=utf-8', '.csv'),
  'json': ('application/json', '.json'),
  'sound': ('audio/flac', '.flac'),
}


@dataclasses.dataclass(frozen=True)
class Request:
  """What to make of notes.

  Attributes:
    kind: of `KINDS`.
    notes: note table.
    title: of the sheet.
    seconds: length of the piece, for sound and JSON.
    score: tempo and grid.
  """

  kind: str
  notes: np.ndarray
  title: str = ''
  seconds: float = 0.0
  score: ScoreOptions = dataclasses.field(default_factory=ScoreOptions)


def render(request: Request) -> bytes:
  """Return the bytes of the file.

  Raises:
    UserError: the notes cannot be written in this way.
    ModuleNotFoundError: symusic (for sound) or verovio (for SVG) is not installed.
  """
  request.score.check()
  if request.kind == 'svg':
    import verovio  # noqa: F401 - fail before the work
  notes, score = request.notes, request.score
  if request.kind == 'csv':
    return export.csv_text(notes).encode()
  if request.kind == 'json':
    record = {'name': request.title, 'seconds': request.seconds, 'notes': wire.note_records(notes)}
    return (json.dumps(record) + '\n').encode()
  if request.kind == 'sound':
    return encode(synthesize(notes, request.seconds), 'FLAC')
  if request.kind == 'midi':
    analysis = None if score.tempo == NO_TEMPO else score.analyze(notes)
    return midi.midi_bytes(*score.midi(notes, analysis))
  sheet = score.musicxml(notes, score.analyze(notes), request.title, request.title or 'the notes')
  if request.kind == 'musicxml':
    return sheet.encode()
  from mrmt3.score import render as engraving

  return engraving.svg(sheet).encode()


def synthesize(notes: np.ndarray, seconds: float) -> np.ndarray:
  """Play notes with the soundfont of `transcribe --audio`: float32 `[n]` at 44.1 kHz.

  All instruments are scaled alike, so that they can be mixed; what is louder than full scale is clipped.
  """
  from mrmt3.audio import sonify

  sound = sonify.play_notes(notes, seconds, SOUND_RATE) * np.float32(_GAIN)
  return np.clip(sound, -_MAX_PEAK, _MAX_PEAK)


def encode(samples: np.ndarray, format_name: str) -> bytes:
  """Return samples `[n]` or `[n, channels]` at 44.1 kHz as a file in memory, 'FLAC' or 'OGG'."""
  import soundfile

  data = io.BytesIO()
  channels = 1 if samples.ndim == 1 else samples.shape[1]
  with soundfile.SoundFile(data, 'w', SOUND_RATE, channels, format=format_name) as file:
    for start in range(0, len(samples), _BLOCK):
      file.write(samples[start : start + _BLOCK])
  return data.getvalue()


def decoded_audio(path: str) -> bytes:
  """Return an audio file as mono FLAC at 44.1 kHz, for browsers that cannot read its format."""
  from mrmt3.audio import files as audio_files

  return encode(np.clip(audio_files.read_audio(path, SOUND_RATE), -_MAX_PEAK, _MAX_PEAK), 'FLAC')


def stems(notes: np.ndarray) -> list[tuple[int, bool, np.ndarray]]:
  """Return (program, is_drum, notes) of each instrument."""
  return [(program, is_drum, notes_of(notes, program, is_drum)) for program, is_drum in instruments_of(notes)]


def check_kind(kind: str) -> None:
  """Raise UserError if there are no files of this kind."""
  if kind not in KINDS:
    raise UserError(f'no output {kind!r:.40}; there are {", ".join(KINDS)}')
