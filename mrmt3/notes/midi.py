"""MIDI files and note tables.

Reading applies the sustain pedal and takes everything on channel 10 for drums; pitch bends are ignored, and so are notes
that never end. Written files count milliseconds, and have one named track for each instrument.
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
TEMPO = 500_000  # microseconds a quarter: 120 bpm, so that a tick is 1 ms
TICKS_PER_SECOND = 1000

_SUSTAIN = 64
_PEDAL_DOWN = 64  # a sustain pedal is down from this value on
_CHANNELS = 16
_MAX_TICKS = 40_000_000  # 11 h; readers make tables as long as a file has ticks


def read_midi(path: str | os.PathLike) -> np.ndarray:
  """Returns the notes of a MIDI file as a sorted note table; drums get program 0.

  Raises:
    UserError: there is no such file, or it is not a whole MIDI file.
  """
  return read_midi_counted(path)[0]


def read_midi_counted(path: str | os.PathLike) -> tuple[np.ndarray, int]:
  """Returns (notes as of `read_midi`, how many more are struck in the file but never released or have no length)."""
  midi, notes = _parse(Path(path))
  return notes, midi.struck - len(notes)


def read_performance(path: str | os.PathLike) -> tuple[np.ndarray, list[tuple[float, int]]]:
  """Returns (notes of all tracks as they were keyed, sorted; (time s, value) of all that moves a sustain pedal).

  UserError as `read_midi`.
  """
  midi, _ = _parse(Path(path))
  tables = [_track_notes(instrument) for instrument in midi.instruments]
  pedal = [(c.time, c.value) for track in midi.instruments for c in track.control_changes if c.number == _SUSTAIN]
  return sort_notes(np.concatenate(tables)) if tables else empty_notes(), pedal


def _parse(path):
  """Returns (a `_counting_reader`'s object, its notes as `notes_from_midi_data` gives them)."""
  if path.is_dir():
    raise UserError(f'cannot read {path}: it is a folder; name a MIDI file')
  if not path.exists():
    raise UserError(f'cannot read {path}: there is no such file')
  import pretty_midi

  # Its own limit, 2.8 h of milliseconds, is shorter than what `write_midi` writes.
  pretty_midi.pretty_midi.MAX_TICK = max(pretty_midi.pretty_midi.MAX_TICK, _MAX_TICKS)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # about tempo changes on odd tracks, which are read all the same
      midi = _counting_reader()(str(path))
      return midi, notes_from_midi_data(midi)
  except PermissionError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except Exception as error:  # the parser lets out whatever it trips over
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'cannot read {path}: not a MIDI file, or a broken one ({reason}); give a .mid file') from error


@functools.cache
def _counting_reader():
  """Returns a `pretty_midi.PrettyMIDI` that counts what is struck in its file as `struck`; it drops some of it."""
  import pretty_midi

  class Reader(pretty_midi.PrettyMIDI):
    def _load_instruments(self, midi_data):
      self.struck = sum(
        message.type == 'note_on' and message.velocity > 0 for track in midi_data.tracks for message in track
      )
      super()._load_instruments(midi_data)

  return Reader


def notes_from_midi_data(midi) -> np.ndarray:
  """Returns the notes of a `pretty_midi.PrettyMIDI` as a sorted note table, sustain pedals applied track by track."""
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
  """Returns (times s, whether down) of the track's sustain pedal."""
  changes = [(c.time, c.value >= _PEDAL_DOWN) for c in instrument.control_changes if c.number == _SUSTAIN]
  return np.array([time for time, _ in changes], np.float64), np.array([down for _, down in changes], bool)


def apply_sustain(notes: np.ndarray, times: np.ndarray, is_down: np.ndarray, end: float) -> np.ndarray:
  """Returns the notes of one track as long as its pedal lets them sound (as note_seq, which MT3 uses).

  Args:
    notes: note table of the track.
    times: [changes] when the pedal moves, s.
    is_down: [changes] bool, whether it goes down then. Of changes at the same time the last to count is up.
    end: when a pedal that never comes up lets go, s; no note and no change of the pedal is later.

  A note released while the pedal is down ends when the pedal comes up, or when its pitch is struck again before. With
  the pedal down, striking a pitch again ends the note that sounds; a note left with no length is dropped.
  """
  order = np.lexsort((~is_down, times))
  times, is_down = times[order], is_down[order]
  # The pedal's state in stretch i is that after i changes; stretch 0, before the first change, is up.
  down = np.concatenate([[False], is_down])
  lifts = np.where(is_down, np.inf, times)
  lift = np.append(np.minimum.accumulate(lifts[::-1])[::-1], np.inf)  # of stretch i: the first time it is up again
  released = np.searchsorted(times, notes['offset'], side='right')
  let_go = np.where(np.isfinite(lift), lift, end)[released]
  offset = np.where(down[released], let_go, notes['offset'])

  struck_pedaled = down[np.searchsorted(times, notes['onset'], side='right')]
  cut = _next_cut(notes, struck_pedaled)
  notes = notes.copy()
  notes['offset'] = np.minimum(offset, cut)
  return notes[notes['offset'] > notes['onset']]


def _next_cut(notes, is_cut):
  """Returns the onset of the next note of the same pitch among those of `is_cut` `[n]`, infinite without one."""
  order = np.lexsort((notes['onset'], notes['pitch']))
  pitch, onset = notes['pitch'][order], notes['onset'][order]
  count = len(order)
  places = np.where(is_cut[order], np.arange(count), count)
  # The first cutting place after each note's own.
  following = np.append(np.minimum.accumulate(places[::-1])[::-1], count)[1:]
  same = np.append(pitch, -1)[following] == pitch
  cut = np.empty(count)
  cut[order] = np.where(same, np.append(onset, np.inf)[following], np.inf)
  return cut


def write_midi(notes: np.ndarray, path: str | os.PathLike) -> None:
  """Writes a note table as a MIDI file at 120 bpm, times rounded to 1 ms.

  Each instrument has a track with its name; drums play on channel 10. Beyond 15 pitched instruments, tracks go to
  further MIDI ports. A MIDI track cannot hold overlapping notes of one pitch: they are cut at the next onset.

  Raises:
    UserError: the file cannot be written.
    ValueError: a note is out of MIDI's range.
  """
  data = midi_bytes(notes)
  with atomic_path(path) as temporary:
    temporary.write_bytes(data)


def midi_bytes(notes: np.ndarray) -> bytes:
  """Returns the bytes of the file that `write_midi` writes. ValueError if a note is out of MIDI's range."""
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
  """Returns a note table as a `pretty_midi.PrettyMIDI`: a named instrument each, drums last, times as they are."""
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
  """Returns the notes with times in whole ticks, a tick or longer, programs of drums 0, and none overlapping."""
  notes = notes.copy()
  onset = np.rint(notes['onset'] * TICKS_PER_SECOND)
  offset = np.maximum(np.rint(notes['offset'] * TICKS_PER_SECOND), onset + 1)
  if not ((onset >= 0) & (offset <= _MAX_TICKS)).all():
    raise ValueError(f'a note is not within 0..{_MAX_TICKS / TICKS_PER_SECOND} s')
  for field in ('pitch', 'program', 'velocity'):
    if ((notes[field] < (field == 'velocity')) | (notes[field] > 127)).any():
      raise ValueError(f'a note has a {field} that MIDI does not know')
  notes['onset'], notes['offset'] = onset, offset
  notes['program'] = np.where(notes['is_drum'], 0, notes['program'])
  return trim_overlapping_notes(notes)


def _track(notes, program, is_drum, port, channel):
  """Returns the MIDI track of one instrument; times of `notes` are ticks."""
  import mido

  tick = np.concatenate([notes['offset'], notes['onset']]).astype(np.int64)
  pitch = np.concatenate([notes['pitch'], notes['pitch']])
  velocity = np.concatenate([np.zeros_like(notes['velocity']), notes['velocity']])
  order = np.lexsort((pitch, velocity > 0, tick))  # what ends comes before what begins
  wait = np.diff(tick[order], prepend=0)
  track = mido.MidiTrack([mido.MetaMessage('track_name', name=instruments.instrument_name(program, is_drum))])
  if port:
    track.append(mido.MetaMessage('midi_port', port=port))
  track.append(mido.Message('program_change', program=program, channel=channel))
  for t, p, v in zip(wait.tolist(), pitch[order].tolist(), velocity[order].tolist(), strict=True):
    track.append(mido.Message('note_on', note=p, velocity=v, channel=channel, time=t))
  return track
