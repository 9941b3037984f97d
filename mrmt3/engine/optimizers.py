"""Optimisers: optax transformations under t5x's names.

An `OptimizerDef` says whether it brings its own learning rate. t5x's optax wrapper ignores the Trainer's rate (the one
bound into the optimiser counts, the Trainer's is only logged); Adafactor without a rate of its own uses the Trainer's.
"""

import dataclasses
from collections.abc import Callable

import jax
import optax

ScheduleOrFloat = float | Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class OptimizerDef:
  """How to update parameters.

  Attributes:
    transform: optax transformation. With `uses_trainer_rate` its updates are for a learning rate of -1 (the ascent
      direction); otherwise they are added to the parameters as they come.
    uses_trainer_rate: whether the Trainer's learning rate multiplies the updates.
  """

  transform: optax.GradientTransformation
  uses_trainer_rate: bool = False

  def init(self, params):
    """Returns the optimiser's state for `params`."""
    return self.transform.init(params)

  def update(self, gradients, state, params, learning_rate: jax.Array):
    """Returns (new parameters, new state) after one step."""
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
  """AdamW with optax's arguments and defaults; MR-MT3 trains with weight_decay 0.01 and no clipping.

  Args:
    learning_rate: a number, or a schedule from step to rate.
    b1: decay of the gradient's mean.
    b2: decay of the squared gradient's mean.
    eps: added to the root of the latter.
    weight_decay: decoupled decay, multiplied by the rate.
    max_gradient_norm: clips the gradient's global norm; None for no clipping.
  """
  steps = [optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)]
  if max_gradient_norm is not None:
    steps.insert(0, optax.clip_by_global_norm(max_gradient_norm))
  return OptimizerDef(optax.chain(*steps))


def sgd(learning_rate: ScheduleOrFloat, momentum: float | None = None, nesterov: bool = False) -> OptimizerDef:
  """Stochastic gradient descent with optax's arguments."""
  return OptimizerDef(optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov))
