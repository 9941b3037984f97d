"""The beat network: notes to activations of beats and downbeats, and probabilities of metres.

A stack of dilated convolutions over frame features, with a receptive field of 80 s. It was trained on performances of
scores (`benchmarks/score/train.py`) and runs in numpy.
"""

import functools
from pathlib import Path

import numpy as np

from mrmt3.score.features import FRAME_RATE, frame_features

KERNEL = 5
DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
METRES = ((2, 4), (3, 4), (4, 4), (6, 8), (9, 8), (12, 8))
OUTPUTS = 2 + len(METRES)
WEIGHTS = Path(__file__).parent.parent / 'weights' / 'score' / 'beats.safetensors'


def activations(notes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return what the network finds in a note table.

  Returns:
    (probability of a beat `[frames]`, of a downbeat `[frames]`, mean log probability of each of `METRES`), float32;
    frames are 1 / `FRAME_RATE` s apart.
  """
  outputs = forward(weights(), frame_features(notes)[None], np)[0]
  beat, downbeat = (1 / (1 + np.exp(-outputs[:, column])) for column in (0, 1))
  return beat, downbeat, log_softmax(outputs[:, 2:].mean(axis=0))


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Return log probabilities of logits `[classes]`."""
  shifted = logits - logits.max()
  return shifted - np.log(np.exp(shifted).sum())


@functools.cache
def weights() -> dict[str, np.ndarray]:
  """Return the parameters in the package."""
  from safetensors.numpy import load_file

  return {name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items()}


def forward(params: dict[str, np.ndarray], features, xp, dropout=lambda x: x):
  """Compute logits `[batch, frames, OUTPUTS]` of features `[batch, frames, CHANNELS]`.

  Args:
    params: parameters as in `initial`.
    features: frame features.
    xp: numpy or jax.numpy.
    dropout: applied to every hidden layer in training.
  """
  x = features @ params['input/kernel'] + params['input/bias']
  for index, dilation in enumerate(DILATIONS):
    pad = dilation * (KERNEL // 2)
    padded = xp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    kernel = params[f'block{index}/kernel']
    frames = x.shape[1]
    y = sum(padded[:, tap * dilation : tap * dilation + frames] @ kernel[tap] for tap in range(KERNEL))
    y = dropout(_elu(y + params[f'block{index}/bias'], xp))
    x = x + y @ params[f'block{index}/out']
  return _elu(x, xp) @ params['output/kernel'] + params['output/bias']


def _elu(x, xp):
  return xp.where(x > 0, x, xp.exp(xp.minimum(x, 0.0)) - 1)


def initial(rng: np.random.Generator, channels: int, width: int) -> dict[str, np.ndarray]:
  """Return random parameters for `channels` features and `width` hidden channels."""

  def normal(*shape, fan):
    return (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)

  params = {'input/kernel': normal(channels, width, fan=channels), 'input/bias': np.zeros(width, np.float32)}
  for index in range(len(DILATIONS)):
    params[f'block{index}/kernel'] = normal(KERNEL, width, width, fan=KERNEL * width)
    params[f'block{index}/bias'] = np.zeros(width, np.float32)
    params[f'block{index}/out'] = 0.3 * normal(width, width, fan=width)
  return params | {'output/kernel': normal(width, OUTPUTS, fan=width), 'output/bias': np.zeros(OUTPUTS, np.float32)}


def seconds_of(frames: int) -> np.ndarray:
  """Return the times of frames, s."""
  return np.arange(frames) / FRAME_RATE
