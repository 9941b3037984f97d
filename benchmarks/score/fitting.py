"""The loop that trains the beat network and the bar network."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
from safetensors.numpy import save_file


def channel_dropout(key: jax.Array, layers: int, rate: float) -> Callable:
  """Return a function that drops channels of `[batch, steps, channels]`, to be used once in each of `layers` layers."""
  keys = iter(jax.random.split(key, layers))

  def dropout(x):
    keep = jax.random.bernoulli(next(keys), 1 - rate, (x.shape[0], 1, x.shape[2]))
    return x * keep / (1 - rate)

  return dropout


def fit(
  params: dict[str, np.ndarray],
  loss_fn: Callable,
  next_batch: Callable[[int], tuple[np.ndarray, ...]],
  output: Path,
  *,
  steps: int,
  rate: float,
  last_rate: float,
  weight_decay: float,
  report_every: int,
  save_every: int,
) -> None:
  """Train parameters and write them as float16.

  Args:
    params: parameters to start from, by name.
    loss_fn: (params, key, *batch) -> loss.
    next_batch: step number from 1 -> arrays.
    output: safetensors file.
    steps: number of steps.
    rate: highest learning rate, after 200 steps.
    last_rate: learning rate at the end of a cosine decay.
    weight_decay: of AdamW.
    report_every: steps between lines.
    save_every: steps between writes.
  """
  schedule = optax.warmup_cosine_decay_schedule(0.0, rate, 200, steps, last_rate)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=weight_decay))
  state = optimizer.init(params)

  @jax.jit
  def step(params, state, key, *batch):
    loss, gradients = jax.value_and_grad(loss_fn)(params, key, *batch)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss

  begin, losses, key = time.time(), [], jax.random.PRNGKey(0)
  output.parent.mkdir(parents=True, exist_ok=True)
  for number in range(1, steps + 1):
    key, own = jax.random.split(key)
    params, state, loss = step(params, state, own, *next_batch(number))
    losses.append(loss)
    if number % report_every == 0:
      print(f'step {number}: loss {np.mean(losses[-report_every:]):.4f}, {time.time() - begin:.0f} s', flush=True)
    if number % save_every == 0 or number == steps:
      save_file({name: np.asarray(value, np.float16) for name, value in params.items()}, output)
