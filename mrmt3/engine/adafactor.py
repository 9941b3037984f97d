"""Adafactor (Shazeer and Stern 2018) with t5x's arguments and defaults, composed of optax transformations."""

from collections.abc import Mapping

import optax

from mrmt3.engine import optimizers
from mrmt3.errors import UserError


def standard_logical_factor_rules(rules: Mapping | None = None) -> Mapping | None:
  """Return the logical axes to factor, as in t5x; None by default, since rank-2 kernels are factored by size alone."""
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

  The second-moment decay at step t (from 0) is 1 - (t + 1 - step_offset)^-decay_rate. epsilon1 is added to the squared
  gradient. Kernels with both dimensions >= min_dim_size_to_factor are factored. The update's RMS is clipped to
  clipping_threshold; the update is then multiplied by max(RMS(parameter), epsilon2) and the learning rate.

  Args:
    learning_rate: the learning rate; None uses the Trainer's.
    factored: whether large kernels keep row and column means instead of all second moments.
    multiply_by_parameter_scale: whether updates are relative to the parameter's RMS.
    beta1: decay of the momentum; None for no momentum.
    decay_rate: exponent of the second-moment decay.
    step_offset: steps done before fine-tuning, which restarts the decay.
    clipping_threshold: largest RMS of an update; None for no clipping.
    weight_decay_rate: not supported, keep None.
    min_dim_size_to_factor: see above.
    epsilon1: see above.
    epsilon2: see above.
    logical_factor_rules: accepted for compatibility with t5x and ignored, since all our kernels have rank 2.
    global_norm_clip_threshold: clips the gradient's global norm; None for no clipping.
    skip_nan_updates: not supported, keep False.

  Raises:
    UserError: an unsupported argument is set.
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
