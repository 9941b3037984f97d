"""Scores of beats, metre and key against a performance."""

import mir_eval
import numpy as np
from performance import Performance

KEYS = ('C', 'C#', 'D', 'Eb', 'E', 'F', 'F#', 'G', 'Ab', 'A', 'Bb', 'B')


def beat_f1(reference: np.ndarray, estimate: np.ndarray) -> float:
  """F1 of times within 70 ms (mir_eval.beat.f_measure), of all beats: the first 5 s count as well."""
  if not len(reference) or not len(estimate):
    return float(len(reference) == len(estimate))
  return mir_eval.beat.f_measure(np.sort(reference), np.sort(estimate))


def key_name(key: tuple[int, bool]) -> str:
  """Name of (tonic, whether minor) as mir_eval.key takes it."""
  return f'{KEYS[key[0]]} {"minor" if key[1] else "major"}'


def score(performance: Performance, beats, key: tuple[int, bool] | None) -> dict[str, float]:
  """Return beat and downbeat F1, whether the metre is right, and the weighted key score (nan without a known key)."""
  metre = (beats.numerator, beats.denominator) == (performance.numerator, performance.denominator)
  result = {
    'beat': beat_f1(performance.beats, beats.times),
    'downbeat': beat_f1(performance.downbeats, beats.downbeats),
    'metre': float(metre),
    'key': np.nan,
  }
  if performance.key is not None:
    result['key'] = mir_eval.key.weighted_score(key_name(performance.key), key_name(key)) if key is not None else 0.0
  return result
