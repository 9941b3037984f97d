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

  The factor rises as step / warmup_steps, then follows half a cosine down to total_steps, and is never below `floor`
  while falling; the rate is factor * peak. After total_steps it stays at the floor.

  Args:
    peak: the highest rate.
    warmup_steps: steps until the peak; 0 starts at it.
    total_steps: step at which the cosine reaches 0.
    floor: lowest factor, relative to the peak (the published code's `min_lr`).
    decay_steps: the last steps before total_steps, in which the rate falls; it stays at the peak until then, so that a run can
      be made longer from a checkpoint before them. None: all after the warm-up.
  """

  start = warmup_steps if decay_steps is None else max(warmup_steps, total_steps - decay_steps)

  def schedule(step) -> jax.Array:
    step = jnp.asarray(step, jnp.float32)
    progress = jnp.clip((step - start) / max(1, total_steps - start), 0.0, 1.0)
    falling = jnp.maximum(floor, 0.5 * (1.0 + jnp.cos(jnp.pi * progress)))
    return peak * jnp.where(step < warmup_steps, step / max(1, warmup_steps), falling)

  return schedule
