"""Scores of beats, metre and key against a performance: those of `mrmt3 evaluate --score`."""

import mir_eval
import numpy as np
from performance import Performance

from mrmt3.evaluation import musical_time
from mrmt3.evaluation.musical_time import MusicalTime
from mrmt3.score.beats import Beats
from mrmt3.score.key import Key


def beat_f1(reference: np.ndarray, estimate: np.ndarray) -> float:
  """F1 of times within 70 ms (mir_eval.beat.f_measure), of all beats: the first 5 s count as well."""
  if not len(reference) or not len(estimate):
    return float(len(reference) == len(estimate))
  return mir_eval.beat.f_measure(np.sort(reference), np.sort(estimate))


def known_key(performance: Performance) -> Key | None:
  """Return the key of a performance; None if it is not known."""
  return None if performance.key is None else Key(*performance.key)


def score(performance: Performance, beats: Beats, key: Key | None) -> dict[str, float]:
  """Return beat and downbeat F1, whether the metre is right, and the weighted key score (nan without a known key)."""
  metre = performance.numerator, performance.denominator
  return musical_time.score(
    MusicalTime(performance.beats, performance.downbeats, metre, known_key(performance)),
    MusicalTime(beats.times, beats.downbeats, (beats.numerator, beats.denominator), key),
  )
