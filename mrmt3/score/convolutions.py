"""A stack of dilated convolutions that runs in numpy, and in jax.numpy for training."""

import numpy as np

KERNEL = 5


def forward(params: dict[str, np.ndarray], features, dilations: tuple[int, ...], xp, dropout=lambda x: x):
  """Compute logits `[batch, steps, outputs]` of features `[batch, steps, channels]`.

  Args:
    params: parameters as in `initial`.
    features: float32.
    dilations: of each block.
    xp: numpy or jax.numpy.
    dropout: applied to every hidden layer in training.
  """
  x = features @ params['input/kernel'] + params['input/bias']
  for index, dilation in enumerate(dilations):
    pad = dilation * (KERNEL // 2)
    padded = xp.pad(x, ((0, 0), (pad, pad), (0, 0)))
    kernel = params[f'block{index}/kernel']
    steps = x.shape[1]
    y = sum(padded[:, tap * dilation : tap * dilation + steps] @ kernel[tap] for tap in range(KERNEL))
    y = dropout(_elu(y + params[f'block{index}/bias'], xp))
    x = x + y @ params[f'block{index}/out']
  return _elu(x, xp) @ params['output/kernel'] + params['output/bias']


def _elu(x, xp):
  return xp.where(x > 0, x, xp.exp(xp.minimum(x, 0.0)) - 1)


def initial(rng: np.random.Generator, channels: int, width: int, blocks: int, outputs: int) -> dict[str, np.ndarray]:
  """Return random parameters."""

  def normal(*shape, fan):
    return (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)

  params = {'input/kernel': normal(channels, width, fan=channels), 'input/bias': np.zeros(width, np.float32)}
  for index in range(blocks):
    params[f'block{index}/kernel'] = normal(KERNEL, width, width, fan=KERNEL * width)
    params[f'block{index}/bias'] = np.zeros(width, np.float32)
    params[f'block{index}/out'] = 0.3 * normal(width, width, fan=width)
  return params | {'output/kernel': normal(width, outputs, fan=width), 'output/bias': np.zeros(outputs, np.float32)}


def log_softmax(logits: np.ndarray) -> np.ndarray:
  """Return log probabilities of logits `[classes]`."""
  shifted = logits - logits.max()
  return shifted - np.log(np.exp(shifted).sum())
