"""Learning-rate schedules beyond t5x's named factors."""

import jax
import jax.numpy as jnp


def warmup_cosine(
  peak: float = 2e-4,
  warmup_steps: int = 64_500,
  total_steps: int = 1_031_200,
  floor: float = 1e-4,
  decay_steps: int | None = None,
):
  """Returns MR-MT3's schedule, step -> learning rate.

  The rate is peak * factor. The factor rises linearly from 0 to 1 over warmup_steps, then follows half a cosine to 0 at
  total_steps, but never falls below `floor`. After total_steps it stays at the floor.

  Args:
    peak: the highest rate.
    warmup_steps: steps until the peak; 0 starts at it.
    total_steps: step at which the cosine reaches 0.
    floor: lowest factor, relative to the peak (the published code's `min_lr`).
    decay_steps: length of the decay before total_steps; the rate stays at the peak until then, so that a run can be
      extended from a checkpoint before the decay. None: the decay starts after the warm-up.
  """

  start = warmup_steps if decay_steps is None else max(warmup_steps, total_steps - decay_steps)

  def schedule(step) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - start) / max(1, total_steps - start), 0.0, 1.0)
    falling = jnp.maximum(floor, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)))
    return peak * jnp.where(step < warmup_steps, step / max(1, warmup_steps), falling)

  return schedule
