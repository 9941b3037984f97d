"""MIDI files to note tables and back.

Reading applies the sustain pedal and treats channel 10 as drums. Pitch bends and notes without a note-off are ignored.
Written files have a resolution of 1 ms and one named track per instrument.
"""

import functools
import io
import os
import warnings
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes import instruments
from mrmt3.notes.note_array import NOTE_DTYPE, empty_notes, sort_notes, trim_overlapping_notes
from mrmt3.utils.files import atomic_path

TICKS_PER_QUARTER = 500
TEMPO = 500_000  # microseconds per quarter: 120 bpm, so that a tick is 1 ms
TICKS_PER_SECOND = 1000

_SUSTAIN = 64
_PEDAL_DOWN = 64  # the pedal is down at this value and above
_CHANNELS = 16
_MAX_TICKS = 40_000_000  # 11 h; readers allocate memory in proportion to a file's ticks


def read_midi(path: str | os.PathLike) -> np.ndarray:
  """Read a MIDI file as a sorted note table; drums get program 0.

  Raises:
    UserError: the file is missing, or is not a complete MIDI file.
  """
  return read_midi_counted(path)[0]


def read_midi_counted(path: str | os.PathLike) -> tuple[np.ndarray, int]:
  """Return (notes as from `read_midi`, number of note-ons without a note-off or with no length)."""
  midi, notes = _parse(Path(path))
  return notes, midi.note_ons - len(notes)


def read_performance(path: str | os.PathLike) -> tuple[np.ndarray, list[tuple[float, int]]]:
  """Return (all notes as played, sorted, without the pedal applied; (time s, value) of every sustain pedal change).

  Raises UserError as `read_midi` does.
  """
  midi, _ = _parse(Path(path))
  tables = [_track_notes(instrument) for instrument in midi.instruments]
  pedal = [(c.time, c.value) for track in midi.instruments for c in track.control_changes if c.number == _SUSTAIN]
  return sort_notes(np.concatenate(tables)) if tables else empty_notes(), pedal


def _parse(path):
  """Return (a PrettyMIDI with its number of note-ons, its notes as from `notes_from_midi_data`)."""
  if path.is_dir():
    raise UserError(f'cannot read {path}: it is a folder; name a MIDI file')
  if not path.exists():
    raise UserError(f'cannot read {path}: there is no such file')
  import pretty_midi

  # pretty_midi's own limit, 2.8 h at 1 ms, is below what `write_midi` writes.
  pretty_midi.pretty_midi.MAX_TICK = max(pretty_midi.pretty_midi.MAX_TICK, _MAX_TICKS)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # tempo changes outside the first track are read as well
      midi = _counting_pretty_midi()(str(path))
      return midi, notes_from_midi_data(midi)
  except PermissionError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except Exception as error:  # the parser raises many types of errors
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'cannot read {path}: not a valid MIDI file ({reason}); give a .mid file') from error


@functools.cache
def _counting_pretty_midi():
  """Return a PrettyMIDI class that counts the file's note-ons as `note_ons`; pretty_midi drops some of them."""
  import pretty_midi

  class CountingPrettyMIDI(pretty_midi.PrettyMIDI):
    def _load_instruments(self, midi_data):
      self.note_ons = sum(
        message.type == 'note_on' and message.velocity > 0 for track in midi_data.tracks for message in track
      )
      super()._load_instruments(midi_data)

  return CountingPrettyMIDI


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
  return np.array(rows, NOTE_DTYPE)


def _pedal(instrument):
  """Return (times s, bool is_down) of a track's sustain pedal changes."""
  changes = [(c.time, c.value >= _PEDAL_DOWN) for c in instrument.control_changes if c.number == _SUSTAIN]
  return np.array([time for time, _ in changes], np.float64), np.array([down for _, down in changes], bool)


def apply_sustain(notes: np.ndarray, times: np.ndarray, is_down: np.ndarray, end: float) -> np.ndarray:
  """Extend the notes of one track by its sustain pedal (as in note_seq, which MT3 uses).

  A note released while the pedal is down ends when the pedal goes up or its pitch is struck again, whichever is first.
  While the pedal is down, striking a pitch ends its sounding note. Notes without length are dropped.

  Args:
    notes: note table of the track.
    times: `[changes]` of the pedal, s.
    is_down: `[changes]` bool, whether the pedal goes down. If changes coincide, going up comes last.
    end: when a pedal that never goes up is released, s; no note or pedal change is later.

  Returns:
    the new note table.
  """
  order = np.lexsort((~is_down, times))
  times, is_down = times[order], is_down[order]
  # Interval i follows i pedal changes; the pedal is up in interval 0.
  down = np.concatenate([[False], is_down])
  lifts = np.where(is_down, np.inf, times)
  lift = np.append(np.minimum.accumulate(lifts[::-1])[::-1], np.inf)  # for interval i: when the pedal goes up next
  released = np.searchsorted(times, notes['offset'], side='right')
  pedal_up = np.where(np.isfinite(lift), lift, end)[released]
  offset = np.where(down[released], pedal_up, notes['offset'])

  onset_pedaled = down[np.searchsorted(times, notes['onset'], side='right')]
  cut = _next_cut(notes, onset_pedaled)
  notes = notes.copy()
  notes['offset'] = np.minimum(offset, cut)
  return notes[notes['offset'] > notes['onset']]


def _next_cut(notes, is_cut):
  """Return the onset of the next note of the same pitch with `is_cut` (bool `[n]`), infinity if there is none."""
  order = np.lexsort((notes['onset'], notes['pitch']))
  pitch, onset = notes['pitch'][order], notes['onset'][order]
  count = len(order)
  places = np.where(is_cut[order], np.arange(count), count)
  # The next cutting note after each note.
  following = np.append(np.minimum.accumulate(places[::-1])[::-1], count)[1:]
  same = np.append(pitch, -1)[following] == pitch
  cut = np.empty(count)
  cut[order] = np.where(same, np.append(onset, np.inf)[following], np.inf)
  return cut


def write_midi(notes: np.ndarray, path: str | os.PathLike) -> None:
  """Write a note table as a MIDI file at 120 bpm; times are rounded to 1 ms.

  Each instrument has a named track, drums on channel 10. More than 15 pitched instruments use further MIDI ports.
  A MIDI track cannot hold overlapping notes of one pitch: they are cut at the next onset.

  Raises:
    UserError: the file cannot be written.
    ValueError: a note is out of MIDI's range.
  """
  data = midi_bytes(notes)
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)


def midi_bytes(notes: np.ndarray) -> bytes:
  """Return the bytes of the file that `write_midi` writes; ValueError if a note is out of MIDI's range."""
  import mido

  midi = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
  midi.tracks.append(mido.MidiTrack([mido.MetaMessage('set_tempo', tempo=TEMPO)]))
  notes = _in_ticks(notes)
  pitched = 0
  for program, is_drum in instruments.instruments_of(notes):
    port, channel = 0, instruments.DRUM_CHANNEL
    if not is_drum:
      port, channel = divmod(pitched, _CHANNELS - 1)
      channel += channel >= instruments.DRUM_CHANNEL
      pitched += 1
    own = instruments.notes_of(notes, program, is_drum)
    midi.tracks.append(_track(own, program, is_drum, port, channel))
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


def _in_ticks(notes):
  """Round note times to whole ticks, at least one long, set drums to program 0, and cut overlapping notes."""
  notes = notes.copy()
  onset = np.rint(notes['onset'] * TICKS_PER_SECOND)
  offset = np.maximum(np.rint(notes['offset'] * TICKS_PER_SECOND), onset + 1)
  if not ((onset >= 0) & (offset <= _MAX_TICKS)).all():
    raise ValueError(f'a note is outside 0..{_MAX_TICKS / TICKS_PER_SECOND} s, the range of a MIDI file')
  for field in ('pitch', 'program', 'velocity'):
    if ((notes[field] < (field == 'velocity')) | (notes[field] > 127)).any():
      raise ValueError(f'a note has a {field} outside {int(field == "velocity")}..127, the range of MIDI')
  notes['onset'], notes['offset'] = onset, offset
  notes['program'] = np.where(notes['is_drum'], 0, notes['program'])
  return trim_overlapping_notes(notes)


def _track(notes, program, is_drum, port, channel):
  """Return the MIDI track of one instrument; times of `notes` are in ticks."""
  import mido

  tick = np.concatenate([notes['offset'], notes['onset']]).astype(np.int64)
  pitch = np.concatenate([notes['pitch'], notes['pitch']])
  velocity = np.concatenate([np.zeros_like(notes['velocity']), notes['velocity']])
  order = np.lexsort((pitch, velocity > 0, tick))  # note-offs before note-ons of the same tick
  wait = np.diff(tick[order], prepend=0)
  track = mido.MidiTrack([mido.MetaMessage('track_name', name=instruments.instrument_name(program, is_drum))])
  if port:
    track.append(mido.MetaMessage('midi_port', port=port))
  track.append(mido.Message('program_change', program=program, channel=channel))
  for t, p, v in zip(wait.tolist(), pitch[order].tolist(), velocity[order].tolist(), strict=True):
    track.append(mido.Message('note_on', note=p, velocity=v, channel=channel, time=t))
  return track
