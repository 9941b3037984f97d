"""Learning-rate schedules beyond t5x's named factors."""

import jax
import jax.numpy as jnp


def warmup_cosine(peak: float = 2e-4, warmup_steps: int = 64_500, total_steps: int = 1_031_200, floor: float = 1e-4):
  """Return MR-MT3's schedule, step -> learning rate.

  The rate is peak * factor. The factor rises linearly from 0 to 1 over warmup_steps, then follows half a cosine to 0 at
  total_steps, but never falls below `floor`. After total_steps it stays at the floor.

  Args:
    peak: the highest rate.
    warmup_steps: steps until the peak; 0 starts at it.
    total_steps: step at which the cosine reaches 0.
    floor: lowest factor, relative to the peak (the published code's `min_lr`).
  """

  def schedule(step) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - warmup_steps) / max(1, total_steps - warmup_steps), 0.0, 1.0)
    falling = jnp.maximum(floor, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)))
    return peak * jnp.where(step < warmup_steps, step / max(1, warmup_steps), falling)

  return schedule
