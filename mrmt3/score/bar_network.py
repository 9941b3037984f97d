"""The bar network: which beats are downbeats, which metre it is, and whether the beats are beats at all.

It sees a row of beats with what the notes do in each. It was trained on performances of scores
(`benchmarks/score/train_bars.py`), on their beats and on wrong ones: twice as fast, half as fast, off the beat.
"""

import functools
from pathlib import Path

import numpy as np

from mrmt3.score import convolutions
from mrmt3.score.bar_features import beat_features

DILATIONS = (1, 2, 4, 8, 16, 32)
METRES = ((2, 4), (3, 4), (4, 4), (6, 8), (9, 8), (12, 8))
WRONG = len(METRES)  # class of beats that are none
OUTPUTS = 1 + len(METRES) + 1
WEIGHTS = Path(__file__).parent.parent / 'weights' / 'score' / 'bars.safetensors'


def analyze_beats(notes: np.ndarray, beats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return (log odds of a downbeat on each beat `[beats]`, log probabilities of `METRES` and `WRONG`).

  Args:
    notes: note table, s.
    beats: increasing times of at least two beats, s.
  """
  outputs = convolutions.forward(weights(), beat_features(notes, beats)[None], DILATIONS, np)[0]
  return outputs[:, 0], convolutions.log_softmax(outputs[:, 1:].mean(axis=0))


@functools.cache
def weights() -> dict[str, np.ndarray]:
  """Return the parameters in the package."""
  from safetensors.numpy import load_file

  return {name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items()}
