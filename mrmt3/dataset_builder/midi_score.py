"""Tolerant MIDI parser: any MIDI file as a score, with written programs and a separate drum part.

Unlike `notes.midi`, it takes what it can get of damaged files, and keeps positions in quarters. Only note-on, note-off,
program, sustain pedal, tempo and metre events are used.
"""

import itertools

import numpy as np

from mrmt3.dataset_builder.score import BAR_DTYPE, SCORE_NOTE_DTYPE, Score, tidy_part
from mrmt3.errors import UserError
from mrmt3.notes.instruments import DRUM_CHANNEL
from mrmt3.notes.midi_file import CONTROL, SUSTAIN, parse_midi
from mrmt3.notes.midi_notes import PEDAL_DOWN, drums_at, key_presses, merge_tracks, programs_at
from mrmt3.notes.note_array import empty_notes
from mrmt3.notes.pedals import apply_sustain

MAX_BYTES = 8_000_000
MAX_EVENTS = 1_000_000
MAX_QUARTERS = 8_000.0  # later notes are dropped
_MAX_GAP = 48.0  # quarters without a note; after a longer gap, another piece begins
_MAX_NOTE = 64.0  # quarters
_DRUM_PITCHES = (27, 87)  # of General MIDI and its common extension
_FIRST_NOISE = 112  # programs from here on are percussion and sound effects
_MAX_PARTS = 64
_MAX_NUMERATOR = 32  # of a time signature
_MELODIC = 16  # in place of channel 10 where the file makes it melodic
_MIN_TEMPO, _MAX_TEMPO = 40.0, 220.0  # quarters per minute, plausible range


class MidiEvents:
  """The events of a MIDI file, in ticks.

  Attributes:
    ticks_per_quarter: resolution.
    notes: int64 rows (track, voice, channel, program, pitch, velocity, start, end), end after start; a voice is a
      channel and all that share its pedal. The channel is `DRUM_CHANNEL` for drums, and for no other notes.
    pedals: int64 rows (voice, tick, is_down) of the sustain pedal, without drums.
    tempos: (tick, microseconds per quarter).
    metres: (tick, numerator, denominator).
  """

  def __init__(self, data: bytes):
    """Parse the bytes of a file; ValueError if it is not a MIDI file, or too large."""
    if len(data) > MAX_BYTES:
      raise ValueError(f'{len(data) / 1e6:.0f} MB are too many for a MIDI file (at most {MAX_BYTES / 1e6:.0f} MB)')
    try:
      midi = parse_midi(data)
    except ValueError as error:
      raise ValueError(f'not a MIDI file ({error})') from error
    if midi.format == 2:
      raise ValueError('it has independent patterns (format 2), not one piece')
    self.ticks_per_quarter = midi.ticks_per_quarter or midi.ticks_per_second / 2
    order, voice = merge_tracks(midi, [])
    events = midi.events[order]
    starts, ends = key_presses(events, voice, [])
    if len(starts) > MAX_EVENTS:
      raise ValueError(f'it has more than {MAX_EVENTS} notes')
    presses = events[starts]
    is_drum = drums_at(events, starts)
    channel = np.where(
      is_drum, DRUM_CHANNEL, np.where(presses['channel'] == DRUM_CHANNEL, _MELODIC, presses['channel'])
    )
    notes = np.stack(
      [
        *(presses['track'], voice[starts], channel, programs_at(events, voice, starts)),
        *(presses['number'], presses['value'], presses['tick'], ends),
      ],
      axis=1,
    ).astype(np.int64)
    self.notes = _cut_at_next(notes)
    is_pedal = (events['kind'] == CONTROL) & (events['number'] == SUSTAIN) & ~np.isin(voice, voice[starts[is_drum]])
    self.pedals = np.stack([voice, events['tick'], events['value'] >= PEDAL_DOWN], axis=1)[is_pedal]
    self.tempos = [tuple(row[1:]) for row in midi.tempos.tolist()]
    self.metres = [tuple(row[1:]) for row in midi.metres.tolist() if row[2] <= _MAX_NUMERATOR and row[3] <= 32]


def _cut_at_next(notes):
  """End each note when its pitch is struck again, and drop those without an end or length; drum hits have a length."""
  track, voice, channel, _, pitch, _, start, end = notes.T
  order = np.lexsort((np.arange(len(notes)), start, pitch, voice, track))
  same = np.ones(max(len(notes) - 1, 0), bool)
  for column in (track, voice, pitch):
    same &= column[order][1:] == column[order][:-1]
  never = np.iinfo(np.int64).max
  following = np.full(len(notes), never)
  following[order[:-1]] = np.where(same, start[order][1:], never)
  end = np.minimum(np.where(end < 0, never, end), following)
  is_drum = channel == DRUM_CHANNEL
  notes[:, -1] = np.where(is_drum & ((end == never) | (end <= start)), start + 1, end)
  return notes[(notes[:, -1] > start) & (notes[:, -1] < never)]


def read_midi_score(data: bytes, name: str) -> Score:
  """Parse the bytes of a MIDI file as a score; UserError if it has no music.

  Of a file with long silences, the section with the most notes is used. Programs 112 and above (noises) are dropped.
  """
  try:
    events = MidiEvents(data)
  except ValueError as error:
    raise UserError(f'cannot read {name}: {error}; remove it or replace it with a valid MIDI file') from error
  notes = _table(events)
  notes = notes[(notes['program'] < _FIRST_NOISE) | notes['is_drum']]
  if not len(notes) or notes['is_drum'].all():
    raise UserError(f'cannot use {name}: it has no notes for pitched instruments; remove it')
  notes, begin, end = _busiest_section(notes)
  metres = [(tick / events.ticks_per_quarter, *metre) for tick, *metre in events.metres]
  bars = _bars(metres, begin, end)
  if not len(bars):
    raise UserError(f'cannot use {name}: its time signatures give no bars; remove it')
  shift = bars['start'][0]
  bars['start'] -= shift
  notes['start'] -= shift
  tempo = _tempo(events, begin, end)
  # Implausible tempo (a wrong resolution): scale the quarters by a power of 2 until it is plausible.
  factor = 2.0 ** -np.round(np.log2(tempo / 90.0)) if not _MIN_TEMPO <= tempo <= _MAX_TEMPO else 1.0
  for table in (notes, bars):
    table['start'] *= factor
    table['length'] *= factor
  parts, programs = _parts(notes[~notes['is_drum']])
  drums = notes[notes['is_drum']]
  low, high = _DRUM_PITCHES
  drums = _as_part(drums[(drums['pitch'] >= low) & (drums['pitch'] <= high)])
  tempo = float(np.clip(tempo * factor, _MIN_TEMPO, _MAX_TEMPO))
  return Score(name, parts, bars, programs=programs, drums=drums if len(drums) else None, tempo=tempo)


_TABLE_DTYPE = np.dtype(
  [
    *SCORE_NOTE_DTYPE.descr,
    *((name, np.int64) for name in ('track', 'voice', 'channel', 'program')),
    ('is_drum', np.bool_),
  ]
)


def _table(events):
  """Return all notes in quarters with the sustain pedal applied, sorted by start."""
  rows = events.notes
  table = np.zeros(len(rows), _TABLE_DTYPE)
  for column, field in enumerate(('track', 'voice', 'channel', 'program', 'pitch', 'velocity')):
    table[field] = rows[:, column]
  table['is_drum'] = table['channel'] == DRUM_CHANNEL
  table['start'] = rows[:, 6] / events.ticks_per_quarter
  table['length'] = (rows[:, 7] - rows[:, 6]) / events.ticks_per_quarter
  table = table[table['start'] < MAX_QUARTERS]
  # A pedal acts on its channel in every track, but striking a pitch again only ends notes of its own track.
  pedaled = table[np.isin(table['voice'], events.pedals[:, 0])]
  for track, voice in np.unique(np.stack([pedaled['track'], pedaled['voice']], axis=1), axis=0):
    own = (table['track'] == track) & (table['voice'] == voice)
    pedals = events.pedals[events.pedals[:, 0] == voice]
    table = np.concatenate([table[~own], _pedaled(table[own], pedals, events)])
  table['length'] = np.minimum(table['length'], _MAX_NOTE)
  return table[np.lexsort((table['pitch'], table['track'], table['start']))]


def _pedaled(table, pedals, events):
  times = pedals[:, 1] / events.ticks_per_quarter
  ends = table['start'] + table['length']
  notes = empty_notes(len(table))
  notes['onset'], notes['offset'], notes['pitch'] = table['start'], ends, table['pitch']
  notes['velocity'] = np.arange(len(table))  # row index of each note
  notes = apply_sustain(notes, times, pedals[:, 2].astype(bool), float(max(times.max(), ends.max())))
  table = table[notes['velocity']]
  table['length'] = notes['offset'] - notes['onset']
  return table


def _busiest_section(notes):
  """Return the section between long silences with the most pitched notes, and its begin and end in quarters."""
  ends = np.maximum.accumulate(notes['start'] + notes['length'])
  cuts = np.flatnonzero(notes['start'][1:] - ends[:-1] > _MAX_GAP) + 1
  edges = np.r_[0, cuts, len(notes)]
  best = int(np.argmax([np.sum(~notes['is_drum'][a:b]) for a, b in itertools.pairwise(edges)]))
  chosen = notes[edges[best] : edges[best + 1]].copy()
  return chosen, float(chosen['start'][0]), float((chosen['start'] + chosen['length']).max())


def _bars(metres, begin, end):
  """Return the bars from the one that contains `begin` to the one that contains `end`; 4/4 by default."""
  changes = {0.0: (4, 4), **{at: metre for at, *metre in metres}}
  starts = sorted(at for at in changes if at < end)
  rows = []
  for at, following in zip(starts, [*starts[1:], end], strict=True):
    numerator, denominator = changes[at]
    whole = 4.0 * numerator / denominator
    first = at + max(0.0, (begin - at) // whole) * whole
    for start in np.arange(first, following, whole):
      length = whole if following == end else min(whole, following - start)
      if start + length > begin and length > 1e-3:
        rows.append((start, length, numerator, denominator))
  return np.array(rows, BAR_DTYPE)


def _tempo(events, begin, end):
  """Return the mean tempo between two positions, quarters per minute."""
  changes = sorted((tick / events.ticks_per_quarter, micros) for tick, micros in events.tempos if micros > 0)
  at = np.array([0.0, *(place for place, _ in changes)])
  micros = np.array([500_000.0, *(value for _, value in changes)])
  lengths = np.diff(np.clip(np.r_[at, np.inf], begin, end))
  return 60e6 * max(end - begin, 1e-9) / max(float(np.sum(lengths * micros)), 1e-3)


def _parts(notes):
  """Return the parts, one for each track, channel and program, and their programs."""
  keys = np.stack([notes['track'], notes['channel'], notes['program']], axis=1)
  if len(np.unique(keys, axis=0)) > _MAX_PARTS:
    keys[:, :2] = 0  # too many tracks: one part per program
  unique_keys, key_index = np.unique(keys, axis=0, return_inverse=True)
  tables, programs = [], []
  for index, (_, _, program) in enumerate(unique_keys):
    part = _as_part(notes[key_index.ravel() == index])
    if len(part):
      tables.append(part)
      programs.append(int(program))
  return tuple(tables), tuple(programs)


def _as_part(notes):
  return tidy_part(notes[list(SCORE_NOTE_DTYPE.names)].astype(SCORE_NOTE_DTYPE))
