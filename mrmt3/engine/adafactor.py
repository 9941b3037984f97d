"""Adafactor (Shazeer and Stern 2018) with t5x's arguments and defaults, built of optax's parts."""

from collections.abc import Mapping

import optax

from mrmt3.engine import optimizers
from mrmt3.errors import UserError


def standard_logical_factor_rules(rules: Mapping | None = None) -> Mapping | None:
  """Which logical axes to factor, as gin files name it; None, since kernels of rank 2 are factored by size alone."""
  return rules


def Adafactor(
  learning_rate: float | None = None,
  factored: bool = True,
  multiply_by_parameter_scale: bool = True,
  beta1: float | None = None,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  weight_decay_rate: float | None = None,
  min_dim_size_to_factor: int = 128,
  epsilon1: float = 1e-30,
  epsilon2: float = 1e-3,
  logical_factor_rules: Mapping | None = None,
  global_norm_clip_threshold: float | None = None,
  skip_nan_updates: bool = False,
) -> optimizers.OptimizerDef:
  """Adafactor as t5x configures it for MT3.

  Second-moment decay at step t (from 0) is 1 - (t + 1 - step_offset)^-decay_rate; epsilon1 is added to the squared
  gradient; kernels with both dimensions >= min_dim_size_to_factor are factored; the update's RMS is clipped to
  clipping_threshold, and multiplied by max(RMS(parameter), epsilon2) and the rate.

  Args:
    learning_rate: None takes the Trainer's.
    factored: whether large kernels keep row and column means instead of all second moments.
    multiply_by_parameter_scale: whether updates are relative to the parameter's size.
    beta1: decay of a momentum; None for none.
    decay_rate: the exponent of the second-moment decay.
    step_offset: steps already done when fine-tuning restarts the decay.
    clipping_threshold: largest RMS of an update; None for no clipping.
    weight_decay_rate: not supported, keep None.
    min_dim_size_to_factor: see above.
    epsilon1: see above.
    epsilon2: see above.
    logical_factor_rules: accepted for t5x's sake; rules do not apply to kernels of rank 2, and ours are.
    global_norm_clip_threshold: clips the gradient's global norm; None for no clipping.
    skip_nan_updates: not supported, keep False.

  Raises:
    UserError: for an argument that is not supported.
  """
  del logical_factor_rules
  if weight_decay_rate is not None or skip_nan_updates:
    raise UserError('adafactor.Adafactor: weight_decay_rate and skip_nan_updates are not supported; leave them out')
  steps = []
  if global_norm_clip_threshold is not None:
    steps.append(optax.clip_by_global_norm(global_norm_clip_threshold))
  steps.append(
    optax.scale_by_factored_rms(
      factored=factored,
      decay_rate=decay_rate,
      step_offset=step_offset,
      min_dim_size_to_factor=min_dim_size_to_factor,
      epsilon=epsilon1,
    )
  )
  if clipping_threshold is not None:
    steps.append(optax.clip_by_block_rms(clipping_threshold))
  if multiply_by_parameter_scale:
    steps.append(optax.scale_by_param_block_rms(epsilon2))
  if learning_rate is not None:
    steps.append(optax.scale(-learning_rate))
  if beta1 is not None:
    steps.append(optax.ema(beta1, debias=False))
  return optimizers.OptimizerDef(optax.chain(*steps), uses_trainer_rate=learning_rate is None)
