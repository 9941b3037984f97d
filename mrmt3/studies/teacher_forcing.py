"""Teacher forcing: the loss of each given token, and the share of its cross-attention on the memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.config import ModelSpec
from mrmt3.engine.losses import cross_entropy_with_logits
from mrmt3.inference.memory import Memory

ROWS = 8  # segments per batch


@functools.partial(jax.jit, static_argnames='spec')
def _score(params, inputs, context, targets, *, spec: ModelSpec):
  """Return (loss `[rows, length]`, share of cross-attention on the memory `[layers, rows, length]`)."""
  config = spec.network
  memory, shares = config.num_memory_frames, []

  def watch(next_function, args, kwargs, context):
    module = context.module
    if (
      memory
      and not config.decoupled_frames
      and module.name == 'encoder_decoder_attention'
      and context.method_name == '__call__'
    ):
      x, frames = args[:2]
      queries = module.query(x).reshape(*x.shape[:2], module.num_heads, module.head_dim)
      keys, _ = module.keys_values(frames)
      weights = jax.nn.softmax(jnp.einsum('bqhd,bhkd->bhqk', queries, keys).astype(jnp.float32))
      shares.append(weights[..., -memory:].sum(axis=-1).mean(axis=1))
    return next_function(*args, **kwargs)

  def both(network):
    encoded = network.encode(inputs, enable_dropout=False, **context)
    shifted = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
    return network.decode(encoded, None, shifted, targets, enable_dropout=False)

  with nn.intercept_methods(watch):
    logits = spec.module().apply({'params': params}, method=both)
  loss, _ = cross_entropy_with_logits(logits, targets)
  return loss, jnp.stack(shares) if shares else jnp.zeros((0, *targets.shape))


def score(
  params, spec: ModelSpec, inputs: np.ndarray, held: Memory, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return the loss of each token and its attention on the memory.

  Args:
    params: the network's parameters.
    spec: the model's spec.
    inputs: log-mel frames `[segments, frames, mel]`.
    held: the memory, one row per segment; ignored by a network without memory.
    targets: int32 `[segments, length]`, padded with 0.

  Returns:
    (negative log-probability of each token in nats, float32 `[segments, length]`; share of the cross-attention on the
    memory frames, mean over heads, within 0..1, float32 `[layers, segments, length]`, with 0 layers for a network
    without memory or with decoupled cross-attention). Values at padding are undefined.
  """
  losses, shares = [], []
  for start in range(0, len(inputs), ROWS):
    parts = (inputs, spec.network.encoder_context(held), targets)
    count = len(inputs[start : start + ROWS])
    parts = jax.tree.map(functools.partial(_rows, start=start), parts)
    loss, share = _score(params, *parts, spec=spec)
    losses.append(np.asarray(loss)[:count])
    shares.append(np.asarray(share)[:, :count])
  return np.concatenate(losses), np.concatenate(shares, axis=1)


def _rows(x, start):
  """Return ROWS rows of an array from `start`, padded with zero rows."""
  rows = np.asarray(x)[start : start + ROWS]
  return np.pad(rows, ((0, ROWS - len(rows)), *[(0, 0)] * (rows.ndim - 1)))
