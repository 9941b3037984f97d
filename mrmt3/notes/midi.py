"""MIDI files to note tables and back.

Reading applies the pedals and treats channel 10 as drums, unless GS, XG or GM2 messages choose others. Pitch bends and
pitched notes without a note-off are ignored. Written files have a resolution of 1 ms and a named track an instrument.
"""

import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.errors import DataWarning, UserError
from mrmt3.notes import instruments
from mrmt3.notes.midi_bars import MidiBars, midi_bars
from mrmt3.notes.midi_clock import MidiClock
from mrmt3.notes.midi_file import MAX_BYTES, SUSTAIN, describe, parse_midi
from mrmt3.notes.midi_notes import PEDAL_DOWN, midi_notes
from mrmt3.notes.note_array import empty_notes, from_tuples, sort_notes, trim_overlapping_notes
from mrmt3.notes.pedals import apply_sustain
from mrmt3.utils.files import atomic_path

TICKS_PER_QUARTER = 500
TEMPO = 500_000  # microseconds per quarter: 120 bpm, so that a tick is 1 ms
TICKS_PER_SECOND = 1000

_CHANNELS = 16
_MAX_TICKS = 40_000_000  # 11 h; readers allocate memory in proportion to a file's ticks


def read_midi(path: str | os.PathLike) -> np.ndarray:
  """Read a MIDI file as a sorted note table; drums get program 0.

  Files that violate the standard are read if possible, with a `DataWarning` that names what is odd and how many notes
  are lost.

  Raises:
    UserError: the file is missing, is not a MIDI file, or too much of it is missing.
  """
  return _read(path)[1].notes


def read_midi_counted(path: str | os.PathLike) -> tuple[np.ndarray, int]:
  """Return (notes as from `read_midi`, number of note-ons without a note-off or with no length).

  Warns and raises as `read_midi` does.
  """
  content = _read(path)[1]
  return content.notes, content.lost_notes


def read_midi_bars(path: str | os.PathLike) -> tuple[np.ndarray, MidiBars | None]:
  """Return (notes as from `read_midi`, the file's bars); see `midi_bars.midi_bars`. Warns and raises as `read_midi`."""
  midi, content = _read(path)
  try:
    return content.notes, midi_bars(midi)
  except ValueError as error:
    raise UserError(f'cannot read the bars of {path}: {error}; save it again') from error


def read_performance(path: str | os.PathLike) -> tuple[np.ndarray, list[tuple[float, int]]]:
  """Return (all notes as played, sorted, without the pedal applied; (time s, value) of every sustain pedal change).

  Warns and raises as `read_midi` does.
  """
  content = _read(path)[1]
  return sort_notes(content.played), content.pedal


def _read(path):
  """Return the `MidiFile` and the `MidiNotes` of a file, after a warning about what is odd."""
  path = Path(path)
  if path.is_dir():
    raise UserError(f'cannot read {path}: it is a folder; name a MIDI file')
  if not path.exists():
    raise UserError(f'cannot read {path}: there is no such file')
  if not path.is_file():
    raise UserError(f'cannot read {path}: it is neither a file nor a folder')
  try:
    with open(path, 'rb') as file:
      data = file.read(MAX_BYTES + 1)
    midi = parse_midi(data)
    if midi.damage:
      raise ValueError(midi.damage)
    content = midi_notes(midi)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'cannot read {path}: not a valid MIDI file ({error}); give a .mid file') from error
  _warn(path, content)
  return midi, content


def _warn(path, content):
  count, oddities = content.lost_notes, content.oddities
  lost = [f'{count} note{"s are" if count > 1 else " is"} lost (never released, or without length)'] if count else []
  if lost or oddities:
    warning = DataWarning(f'{path}: {describe([*lost, *oddities])}', count, tuple(oddities))
    warnings.warn(warning, stacklevel=4)


def notes_from_midi_data(midi) -> np.ndarray:
  """Convert a `pretty_midi.PrettyMIDI` to a sorted note table, with each track's sustain pedal applied to it."""
  tracks = [_track_notes(instrument) for instrument in midi.instruments]
  if not tracks:
    return empty_notes()
  pedals = [_pedal(instrument) for instrument in midi.instruments]
  end = max(time.max(initial=0.0) for time in (*(notes['offset'] for notes in tracks), *(times for times, _ in pedals)))
  pedaled = [
    notes if instrument.is_drum else apply_sustain(notes, *pedal, end)
    for notes, pedal, instrument in zip(tracks, pedals, midi.instruments, strict=True)
  ]
  return sort_notes(np.concatenate(pedaled))


def _track_notes(instrument):
  program = 0 if instrument.is_drum else instrument.program
  rows = [(n.start, n.end, n.pitch, n.velocity, program, instrument.is_drum) for n in instrument.notes]
  return from_tuples(rows)


def _pedal(instrument):
  """Return (times s, bool is_down) of a track's sustain pedal changes."""
  changes = [(c.time, c.value >= PEDAL_DOWN) for c in instrument.control_changes if c.number == SUSTAIN]
  return np.array([time for time, _ in changes], np.float64), np.array([down for _, down in changes], bool)


def write_midi(
  notes: np.ndarray,
  path: str | os.PathLike,
  clock: MidiClock | None = None,
  confidence: Mapping[tuple[int, bool], float] | None = None,
) -> None:
  """Write a note table as a MIDI file, at 120 bpm with times rounded to 1 ms, or with a tempo map.

  Each instrument has a named track, drums on channel 10. More than 15 pitched instruments use further MIDI ports.
  A MIDI track cannot hold overlapping notes of one pitch: they are cut at the next onset.

  Args:
    notes: the notes, s.
    path: the file.
    clock: tempos and signatures; notes keep their times, rounded to its ticks. None: 120 bpm without signatures.
    confidence: of instruments, (program, is_drum) -> 0..1, written into their tracks as a text 'confidence 0.83'.

  Raises:
    UserError: the file cannot be written.
    ValueError: a note is out of MIDI's range.
  """
  data = midi_bytes(notes, clock, confidence)
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)


def midi_bytes(
  notes: np.ndarray, clock: MidiClock | None = None, confidence: Mapping[tuple[int, bool], float] | None = None
) -> bytes:
  """Return the bytes of the file that `write_midi` writes; ValueError if a note is out of MIDI's range."""
  import mido

  midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER if clock is None else clock.ticks_per_quarter)
  midi.tracks.append(mido.MidiTrack([mido.MetaMessage('set_tempo', tempo=TEMPO)]) if clock is None else clock.track())
  notes = _in_ticks(notes, clock)
  pitched = 0
  for program, is_drum in instruments.instruments_of(notes):
    port, channel = 0, instruments.DRUM_CHANNEL
    if not is_drum:
      port, channel = divmod(pitched, _CHANNELS - 1)
      channel += channel >= instruments.DRUM_CHANNEL
      pitched += 1
    own = instruments.notes_of(notes, program, is_drum)
    midi.tracks.append(_track(own, program, is_drum, port, channel, (confidence or {}).get((program, is_drum))))
  data = io.BytesIO()
  midi.save(file=data)
  return data.getvalue()


def notes_to_pretty_midi(notes: np.ndarray):
  """Convert a note table to a `pretty_midi.PrettyMIDI` with a named track per instrument, drums last."""
  import pretty_midi

  midi = pretty_midi.PrettyMIDI()
  for program, is_drum in instruments.instruments_of(notes):
    own = instruments.notes_of(notes, program, is_drum)
    track = pretty_midi.Instrument(program, is_drum, instruments.instrument_name(program, is_drum))
    columns = (own[name].tolist() for name in ('velocity', 'pitch', 'onset', 'offset'))
    track.notes = [pretty_midi.Note(*note) for note in zip(*columns, strict=True)]
    midi.instruments.append(track)
  return midi


def _in_ticks(notes, clock):
  """Round note times to whole ticks, at least one long, set drums to program 0, and cut overlapping notes."""
  notes = notes.copy()
  to_ticks = clock.to_ticks if clock is not None else lambda seconds: seconds * TICKS_PER_SECOND
  onset = np.rint(to_ticks(notes['onset']))
  offset = np.maximum(np.rint(to_ticks(notes['offset'])), onset + 1)
  if not ((notes['onset'] >= 0) & (notes['offset'] <= _MAX_TICKS / TICKS_PER_SECOND)).all():
    raise ValueError(f'a note is outside 0..{_MAX_TICKS / TICKS_PER_SECOND} s, the range of a MIDI file')
  for field in ('pitch', 'program', 'velocity'):
    if ((notes[field] < (field == 'velocity')) | (notes[field] > 127)).any():
      raise ValueError(f'a note has a {field} outside {int(field == "velocity")}..127, the range of MIDI')
  notes['onset'], notes['offset'] = onset, offset
  notes['program'] = np.where(notes['is_drum'], 0, notes['program'])
  return trim_overlapping_notes(notes)


def _track(notes, program, is_drum, port, channel, confidence):
  """Return the MIDI track of one instrument; times of `notes` are in ticks."""
  import mido

  tick = np.concatenate([notes['offset'], notes['onset']]).astype(np.int64)
  pitch = np.concatenate([notes['pitch'], notes['pitch']])
  velocity = np.concatenate([np.zeros_like(notes['velocity']), notes['velocity']])
  order = np.lexsort((pitch, velocity > 0, tick))  # note-offs before note-ons of the same tick
  wait = np.diff(tick[order], prepend=0)
  track = mido.MidiTrack([mido.MetaMessage('track_name', name=instruments.instrument_name(program, is_drum))])
  if confidence is not None:
    track.append(mido.MetaMessage('text', text=f'confidence {confidence:.2f}'))
  if port:
    track.append(mido.MetaMessage('midi_port', port=port))
  track.append(mido.Message('program_change', program=program, channel=channel))
  for t, p, v in zip(wait.tolist(), pitch[order].tolist(), velocity[order].tolist(), strict=True):
    track.append(mido.Message('note_on', note=p, velocity=v, channel=channel, time=t))
  return track
