"""Scores of musical time: beats, downbeats, metre and key of MIDI files with bars, compared with references.

- Beat and downbeat F1: within 70 ms (`mir_eval.beat.f_measure`). All beats from the first note of the reference to its
  last one count; mir_eval's usual cut of the first 5 s is not made.
- Metre: whether the time signature that holds for most of the piece is the same.
- Key: the weighted score of MIREX (`mir_eval.key`): 1 for the key, .5 for a fifth above or below, .3 for the relative
  and .2 for the parallel key. NaN if the reference has no key signature.

An estimate without a time signature has no bars: its notes are analysed (`score.analysis`).
"""

import dataclasses
import warnings
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.score.analysis import analyze
from mrmt3.score.key import Key

SCORES = ('beat', 'downbeat', 'metre', 'key')
HEADINGS = {'beat': 'beat F1', 'downbeat': 'downbeat F1', 'metre': 'metre', 'key': 'key'}
_SHORTEST = 1e-6  # s


@dataclasses.dataclass(frozen=True)
class MusicalTime:
  """The bars of a piece.

  Attributes:
    beats: times, s, increasing.
    downbeats: times, s, increasing.
    metre: (numerator, denominator) that holds longest; None without bars.
    key: its first key; None if unknown.
    span: (first onset, last onset), s.
  """

  beats: np.ndarray
  downbeats: np.ndarray
  metre: tuple[int, int] | None
  key: Key | None
  span: tuple[float, float]


def read_musical_time(path: Path, *, find_bars: bool = False) -> MusicalTime:
  """Return the bars of a MIDI file.

  Args:
    path: the file.
    find_bars: whether to look for bars in the notes if the file has no time signature.

  Raises:
    UserError: the file cannot be read, has no notes, or no time signature (unless they are looked for).
  """
  import pretty_midi

  from mrmt3.notes.midi import read_midi

  notes = read_midi(path)
  if not len(notes):
    raise UserError(f'{path} has no notes; there is nothing to score')
  span = float(notes['onset'].min()), float(notes['onset'].max())
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # read_midi has warned
    try:
      midi = pretty_midi.PrettyMIDI(str(path))
    except Exception as error:  # mido raises many types for odd files that read_midi takes
      raise UserError(f'{path}: its tempo map cannot be read ({type(error).__name__}); save it again') from error
  if not midi.time_signature_changes:
    if not find_bars:
      raise UserError(f'{path} has no time signature; a reference for --score needs bars and a tempo map')
    found = analyze(notes)
    metre = (found.beats.numerator, found.beats.denominator) if found.tempo is not None else None
    return MusicalTime(found.beats.times, found.beats.downbeats, metre, found.key, span)
  return MusicalTime(
    midi.get_beats(), midi.get_downbeats(), _longest(midi.time_signature_changes, midi.get_end_time()), _key(midi), span
  )


def _longest(changes, end):
  total = {}
  for index, change in enumerate(changes):
    until = changes[index + 1].time if index + 1 < len(changes) else end
    metre = change.numerator, change.denominator
    total[metre] = total.get(metre, 0.0) + max(until - change.time, _SHORTEST)
  return max(total, key=total.get)


def _key(midi):
  if not midi.key_signature_changes:
    return None
  number = midi.key_signature_changes[0].key_number
  return Key(number % 12, number >= 12)


def score(reference: MusicalTime, estimate: MusicalTime) -> dict[str, float]:
  """Return the scores named in `SCORES`; the key's is NaN if the reference has none."""
  import mir_eval

  names = ('C', 'C#', 'D', 'Eb', 'E', 'F', 'F#', 'G', 'Ab', 'A', 'Bb', 'B')
  low, high = reference.span[0] - 0.07, reference.span[1] + 0.07
  result = {}
  for kind in ('beat', 'downbeat'):
    rows = [getattr(one, f'{kind}s') for one in (reference, estimate)]
    wanted, found = (row[(row >= low) & (row <= high)] for row in rows)
    both = len(wanted) and len(found)
    result[kind] = mir_eval.beat.f_measure(wanted, found) if both else float(len(wanted) == len(found))
  result['metre'] = float(reference.metre == estimate.metre)
  keys = [
    one.key and f'{names[one.key.tonic]} {"minor" if one.key.is_minor else "major"}' for one in (reference, estimate)
  ]
  if keys[0] is None:
    result['key'] = float('nan')
  else:
    result['key'] = mir_eval.key.weighted_score(*keys) if keys[1] else 0.0
  return result
