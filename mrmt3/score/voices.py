"""Staves and voices: which hand plays a note, and which notes form one line."""

import dataclasses

import numpy as np

from mrmt3.score.quantize import UNITS

MAX_VOICES = 4  # of a staff
MIDDLE = 60  # C4
_EIGHTH = UNITS // 2
_SAME_END = _EIGHTH  # notes that begin together and end this close form a chord
_STAFF_RANGE = (45, 74)  # pitches between which the hands may part
_BALLAST = 0.35  # semitones of distance from middle C that weigh as much as one of a gap between the hands


@dataclasses.dataclass
class Chord:
  """Notes that begin and end together in one voice: rows of the quantised table by index."""

  start: int
  end: int
  rows: list[int]
  pitches: list[int]


def split_staves(table: np.ndarray) -> np.ndarray:
  """Return the staff of each note of a keyboard part, 0 for the upper one, int64 `[n]`.

  Notes that begin together are parted at their widest gap near middle C, near to where the last ones were parted.
  """
  staff = np.zeros(len(table), np.int64)
  border = float(MIDDLE)
  for start in np.unique(table['start']):
    own = np.flatnonzero(table['start'] == start)
    pitches = np.sort(table['pitch'][own]).astype(float)
    cuts = np.r_[pitches[0] - 0.5, (pitches[1:] + pitches[:-1]) / 2, pitches[-1] + 0.5]
    gaps = np.r_[4.0, np.diff(pitches), 4.0]
    cuts[0], cuts[-1] = min(pitches[0] - 0.5, border), max(pitches[-1] + 0.5, border)
    spans = np.array([max(_span(pitches[:index]), _span(pitches[index:])) for index in range(len(cuts))])
    cost = np.abs(cuts - border) * _BALLAST + np.abs(cuts - MIDDLE) * _BALLAST - gaps + 3.0 * np.maximum(spans - 14, 0)
    cut = cuts[np.argmin(cost)]
    staff[own] = table['pitch'][own] < cut
    border = float(np.clip(0.7 * border + 0.3 * cut, *_STAFF_RANGE))
  return staff


def _span(pitches):
  return pitches[-1] - pitches[0] if len(pitches) else 0.0


def split_voices(table: np.ndarray) -> list[list[Chord]]:
  """Return the voices of a staff, the highest first; no chord of a voice begins before the last one has ended.

  Note values are simplified as far as sound allows: notes that begin together and end nearly together become a chord,
  short rests are articulation and are left out, and a note is cut where all voices are busy. So the ends in the
  result are those that are written.
  """
  voices: list[list[Chord]] = []
  for chord in _chords(table):
    free = [voice for voice in voices if voice[-1].end <= chord.start]
    if not free and len(voices) == MAX_VOICES:
      longest = min((voice for voice in voices if voice[-1].start < chord.start), key=lambda voice: voice[-1].start)
      longest[-1].end = chord.start
      free = [longest]
    if free:
      best = min(free, key=lambda voice: (_distance(voice[-1], chord), -voice[-1].end))
      best.append(chord)
    else:
      voices.append([chord])
  for voice in voices:
    for index, chord in enumerate(voice):
      following = voice[index + 1].start if index + 1 < len(voice) else None
      chord.end = _written_end(chord.start, chord.end, following)
  return sorted(voices, key=lambda voice: -np.mean([max(chord.pitches) for chord in voice]))


def _written_end(start: int, end: int, following: int | None) -> int:
  """Return where a note is written to end, given where the next one of its voice begins.

  Notes last until the next one or until the end of the beat rather than leave a rest shorter than an eighth or a rest
  that begins within the beat of a short note, and do not reach a little into another beat.
  """
  room = following if following is not None else end + 4 * UNITS
  if 0 <= room - end < _EIGHTH:
    return room
  beat_end = -(-end // UNITS) * UNITS
  if start >= beat_end - UNITS or beat_end - end < _EIGHTH:
    # In its own beat, or nearly through the last one.
    return min(beat_end, room)
  if end - (beat_end - UNITS) < _EIGHTH:
    return beat_end - UNITS
  return end


def _chords(table):
  """Return the chords of a staff, by start, from the highest to the lowest."""
  found = []
  for start in np.unique(table['start']):
    rows = np.flatnonzero(table['start'] == start)
    rows = rows[np.argsort(-table['end'][rows], kind='stable')]
    groups: list[list[int]] = []
    for row in rows.tolist():
      if groups and table['end'][groups[-1][0]] - table['end'][row] <= _SAME_END:
        groups[-1].append(row)
      else:
        groups.append([row])
    for group in groups:
      pitches = table['pitch'][group].tolist()
      # Not the mean, which may lie off the grid; and no longer than until the next note of a pitch.
      end = int(np.sort(table['end'][group])[(len(group) - 1) // 2])
      end = min([end, *(_room(table, row) for row in group)])
      found.append(Chord(int(start), max(end, int(table['end'][group].min())), group, pitches))
  return sorted(found, key=lambda chord: (chord.start, -max(chord.pitches)))


def _room(table, row):
  """Return where the next note of a note's pitch begins."""
  later = table['start'][(table['pitch'] == table['pitch'][row]) & (table['start'] > table['start'][row])]
  return int(later.min(initial=np.iinfo(np.int64).max))


def _distance(before, chord):
  return abs(np.mean(before.pitches) - np.mean(chord.pitches)) + 2.0 * (chord.start - before.end) / UNITS
