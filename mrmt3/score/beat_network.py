"""The beat network: notes to the probability of a beat in each frame.

A stack of dilated convolutions over frame features, with a receptive field of 80 s. It was trained on performances of
scores (`benchmarks/score/train.py`) and runs in numpy.
"""

import numpy as np

from mrmt3.score import convolutions, weights
from mrmt3.score.features import frame_features
from mrmt3.score.metres import METRES

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OUTPUTS = 2 + len(METRES)  # a beat, a downbeat, and the metres; the last two help in training


def beat_activation(notes: np.ndarray) -> np.ndarray:
  """Return the probability of a beat in each frame of a note table, float32 `[frames]` at `features.FRAME_RATE`."""
  outputs = convolutions.forward(weights.load('beats'), frame_features(notes)[None], DILATIONS, np)[0]
  return 1 / (1 + np.exp(-outputs[:, 0]))
