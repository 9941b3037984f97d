"""Optimizers: optax transformations under t5x's names.

As in t5x, an optax optimizer has its own learning rate, and the Trainer's is only logged. Adafactor without a learning
rate of its own uses the Trainer's.
"""

import dataclasses
from collections.abc import Callable

import jax
import optax

ScheduleOrFloat = float | Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class OptimizerDef:
  """An optimizer.

  Attributes:
    transform: optax transformation. Its updates are added to the parameters; with `uses_trainer_rate` they are first
      multiplied by minus the Trainer's learning rate.
    uses_trainer_rate: whether the Trainer's learning rate applies.
  """

  transform: optax.GradientTransformation
  uses_trainer_rate: bool = False

  def init(self, params):
    """Return the initial optimizer state for `params`."""
    return self.transform.init(params)

  def update(self, gradients, state, params, learning_rate: jax.Array):
    """Return (new parameters, new state) after one step."""
    updates, state = self.transform.update(gradients, state, params)
    if self.uses_trainer_rate:
      updates = jax.tree.map(lambda update: -learning_rate * update, updates)
    return optax.apply_updates(params, updates), state


def adamw(
  learning_rate: ScheduleOrFloat,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-4,
  max_gradient_norm: float | None = None,
) -> OptimizerDef:
  """AdamW with optax's arguments and defaults; MR-MT3 uses weight_decay 0.01 and no clipping.

  Args:
    learning_rate: a number, or a schedule, step -> learning rate.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    max_gradient_norm: clips the gradient's global norm; None for no clipping.
  """
  steps = [optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)]
  if max_gradient_norm is not None:
    steps.insert(0, optax.clip_by_global_norm(max_gradient_norm))
  return OptimizerDef(optax.chain(*steps))


def sgd(learning_rate: ScheduleOrFloat, momentum: float | None = None, nesterov: bool = False) -> OptimizerDef:
  """Stochastic gradient descent with optax's arguments."""
  return OptimizerDef(optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))
