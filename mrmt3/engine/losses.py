"""The training loss of T5 / t5x: cross-entropy with label smoothing and z-loss, summed over weighted tokens."""

import jax
import jax.numpy as jnp


def cross_entropy_with_logits(
  logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  """Return (loss, z-loss) of each token in nats, both float `[...]`; the loss includes the z-loss.

  The loss is the Kullback-Leibler divergence from the smoothed target to the prediction (so a perfect prediction costs
  0), plus z_loss * log(Z)^2. A smoothed target has 1 - s at the label and s / (V - 1) elsewhere.

  Args:
    logits: `[..., vocabulary]`, unnormalised.
    targets: int `[...]`, the labels.
    label_smoothing: s, in [0, 1).
    z_loss: weight of the squared log-normalizer, which keeps logits from drifting.
  """
  log_z = jax.nn.logsumexp(logits, axis=-1)
  label_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  vocabulary = logits.shape[-1]
  confidence, rest = 1.0 - label_smoothing, label_smoothing / (vocabulary - 1)
  # sum_k q_k (log_z - logit_k), split into the label and the rest, so that no one-hot array is needed.
  loss = log_z - confidence * label_logit
  if label_smoothing:
    loss -= rest * (logits.sum(axis=-1) - label_logit)
    loss += confidence * jnp.log(confidence) + (vocabulary - 1) * rest * jnp.log(rest)
  z_term = z_loss * jnp.square(log_z)
  return loss + z_term, z_term
