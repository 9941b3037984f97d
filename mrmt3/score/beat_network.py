"""The beat network: notes to activations of beats and downbeats, and probabilities of metres.

A stack of dilated convolutions over frame features, with a receptive field of 80 s. It was trained on performances of
scores (`benchmarks/score/train.py`) and runs in numpy.
"""

import functools
from pathlib import Path

import numpy as np

from mrmt3.score import convolutions
from mrmt3.score.features import frame_features

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
METRES = ((2, 4), (3, 4), (4, 4), (6, 8), (9, 8), (12, 8))
OUTPUTS = 2 + len(METRES)
WEIGHTS = Path(__file__).parent.parent / 'weights' / 'score' / 'beats.safetensors'


def activations(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return what the network finds in a note table.

  Returns:
    (probability of a beat `[frames]`, of a downbeat `[frames]`, mean log probability of each of `METRES`), float32;
    frames are 1 / `features.FRAME_RATE` s apart.
  """
  outputs = convolutions.forward(weights(), frame_features(notes)[None], DILATIONS, np)[0]
  beat, downbeat = (1 / (1 + np.exp(-outputs[:, column])) for column in (0, 1))
  return beat, downbeat, convolutions.log_softmax(outputs[:, 2:].mean(axis=0))


@functools.cache
def weights() -> dict[str, np.ndarray]:
  """Return the parameters in the package."""
  from safetensors.numpy import load_file

  return {name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items()}
