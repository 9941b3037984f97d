"""The files that a transcription is written to, of any kind. Each is written atomically."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mrmt3.audio import files as audio_files
from mrmt3.notes import export, midi
from mrmt3.notes.instruments import instrument_name
from mrmt3.score import render
from mrmt3.score.analysis import Analysis
from mrmt3.score.options import NO_TEMPO, ScoreOptions
from mrmt3.utils.files import atomic_path

SHEETS = frozenset(['musicxml', 'pdf', 'svg'])  # outputs that need bars
KINDS = {
  '.mid': 'midi',
  '.midi': 'midi',
  '.musicxml': 'musicxml',
  '.xml': 'musicxml',
  '.pdf': 'pdf',
  '.svg': 'svg',
  '.json': 'json',
  '.csv': 'csv',
  '.png': 'plot',
  '.wav': 'audio',
  '.flac': 'audio',
  '.ogg': 'audio',
  '.mp3': 'audio',
}


Writer = Callable[[Path, Any, Path], None]  # (file, transcription, audio file)


def write(
  files: Mapping[str, Path | str],
  result: Any,
  score: ScoreOptions,
  audio: Path,
  writers: Mapping[str, Writer] | None = None,
) -> Analysis | None:
  """Write files of a transcription; UserError if one cannot be written.

  Args:
    files: kind (of `KINDS`, or 'performance': a MIDI file with the times as played) -> file, or '-' (JSON to stdout).
    result: the `transcription.Transcription`.
    score: whether and how MIDI files have bars.
    audio: the audio file, for titles.
    writers: kind -> what writes it, for kinds of upper layers.

  Returns:
    The musical time of the piece, if the settings or kinds ask for it.
  """
  is_asked = score.tempo != NO_TEMPO or not SHEETS.isdisjoint(files)
  analysis = score.analyze(result.notes) if is_asked else None
  notes, clock = score.midi(result.notes, analysis if score.tempo != NO_TEMPO else None)
  sheet = None
  for kind, file in files.items():
    if writers and kind in writers:
      writers[kind](file, result, audio)
    elif kind == 'midi':
      midi.write_midi(notes, file, clock, result.instrument_confidence)
    elif kind in SHEETS:
      sheet = sheet or score.musicxml(result.notes, analysis, audio.stem, audio)
      write_sheet(kind, sheet, file)
    elif kind == 'performance':
      midi.write_midi(result.notes, file, clock, result.instrument_confidence)
    elif kind == 'json':
      write_json(file, audio, result, analysis)
    elif kind == 'csv':
      export.write_csv(result.notes, file)
    elif kind == 'plot':
      from mrmt3.plots import piano_roll

      piano_roll.piano_roll(file, None, result.notes, title=audio.name, seconds=result.seconds)
    elif kind == 'audio':
      from mrmt3.audio import sonify

      audio_files.write_audio(file, sonify.play_notes(result.notes, result.seconds))
  return analysis


def write_sheet(kind: str, sheet: str, file: Path) -> None:
  """Write MusicXML text as a file of a kind in `SHEETS`."""
  if kind == 'pdf':
    render.write_pdf(sheet, file)
  elif kind == 'svg':
    render.write_svg(sheet, file)
  else:
    with atomic_path(file) as path:
      path.write_text(sheet, encoding='utf-8')


def write_json(target: Path | str, audio: Path, result: Any, analysis: Analysis | None = None) -> None:
  """Write notes, segments and statistics as JSON to a file or stdout (-)."""
  text = json.dumps(
    {
      'audio': str(audio),
      'seconds': result.seconds,
      'stats': dataclasses.asdict(result.stats),
      **({'left_out': result.left_out} if result.left_out else {}),
      **({'score': analysis.record()} if analysis is not None else {}),
      **_confidences(result.instrument_confidence),
      'notes': export.note_records(result.notes),
      'segments': [{'start': segment.start, 'tokens': segment.tokens.tolist()} for segment in result.segments],
    }
  )
  if target == '-':
    print(text)
    return
  with atomic_path(target) as path:
    path.write_text(text + '\n', encoding='utf-8')


def _confidences(instruments):
  """Return the field of JSON with the confidences of instruments by name; none if there are none."""
  if not instruments:
    return {}
  return {'instrument_confidence': {instrument_name(*key): round(value, 4) for key, value in instruments.items()}}
