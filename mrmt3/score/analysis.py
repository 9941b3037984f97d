"""Musical time of a piece: beats, bars, tempo and key, from its notes."""

import dataclasses

import numpy as np

from mrmt3.errors import UserError
from mrmt3.score import beats as beat_tracking
from mrmt3.score.beats import Beats
from mrmt3.score.key import Key, find_key
from mrmt3.score.tempo_map import TempoMap

MIN_TEMPO, MAX_TEMPO = 20.0, 400.0  # beats per minute that `--tempo` takes


@dataclasses.dataclass(frozen=True)
class Analysis:
  """Beats, bars and key of a piece.

  Attributes:
    beats: the beats, with their confidence.
    tempo: the tempo map; None without a pulse.
    key: the key; None without pitched notes.
  """

  beats: Beats
  tempo: TempoMap | None
  key: Key | None

  def summary(self) -> str:
    """Describe it in a few words: '3/4, 92 bpm, A minor'."""
    if self.tempo is None:
      return f'no steady pulse (confidence {self.beats.confidence:.2f})'
    words = [
      f'{self.beats.numerator}/{self.beats.denominator}',
      f'{self.tempo.beats_per_minute:.0f} bpm',
    ]
    return ', '.join([*words, str(self.key)] if self.key else words)

  def record(self) -> dict:
    """Return it as plain numbers and lists, times in s, for JSON."""
    beats = self.beats
    record = {'confidence': round(beats.confidence, 3)}
    if self.tempo is not None:
      record |= {
        'time_signature': f'{beats.numerator}/{beats.denominator}',
        'beats_per_minute': round(self.tempo.beats_per_minute, 2),
        'beats': np.round(beats.times, 4).tolist(),
        'downbeats': np.round(beats.downbeats, 4).tolist(),
      }
    if self.key is not None:
      record |= {'key': str(self.key), 'key_confidence': round(self.key.confidence, 3)}
    return record


def analyze(notes: np.ndarray, tempo: str = 'auto') -> Analysis:
  """Find the musical time of a note table.

  Args:
    notes: note table, s.
    tempo: 'auto', or a constant number of beats per minute, such as '120'.

  Raises:
    UserError: the tempo is neither.
  """
  found = beat_tracking.find_beats(notes) if tempo == 'auto' else beat_tracking.beats_at(notes, parse_tempo(tempo))
  has_bars = len(found.times) >= 2 and (found.places == 0).any()
  return Analysis(found, TempoMap.from_beats(found) if has_bars else None, find_key(notes))


def parse_tempo(text: str) -> float:
  """Return the beats per minute that a text names; UserError if it is no plausible tempo."""
  try:
    tempo = float(text)
  except ValueError:
    tempo = np.nan
  if not MIN_TEMPO <= tempo <= MAX_TEMPO:
    raise UserError(
      f'--tempo {text}: not a tempo; give auto, none, or beats per minute from {MIN_TEMPO:.0f} to {MAX_TEMPO:.0f}'
    )
  return tempo
