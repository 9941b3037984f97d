"""The bar network: which beats are downbeats, which metre it is, and whether the beats are beats at all.

It sees a row of beats with what the notes do in each. It was trained on performances of scores
(`benchmarks/score/train_bars.py`), on their beats and on wrong ones: twice as fast, half as fast, off the beat.
"""

import numpy as np

from mrmt3.score import convolutions, weights
from mrmt3.score.bar_features import beat_features
from mrmt3.score.metres import METRES

DILATIONS = (1, 2, 4, 8, 16, 32)
WRONG = len(METRES)  # class of beats that are none
OUTPUTS = 1 + len(METRES) + 1


def analyze_beats(notes: np.ndarray, beats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (log odds of a downbeat on each beat `[beats]`, log probabilities of `METRES` and `WRONG`).

  Args:
    notes: note table, s.
    beats: increasing times of at least two beats, s.
  """
  outputs = convolutions.forward(weights.load('bars'), beat_features(notes, beats)[None], DILATIONS, np)[0]
  return outputs[:, 0], convolutions.log_softmax(outputs[:, 1:].mean(axis=0))
