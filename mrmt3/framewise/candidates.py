"""Note candidates: events that the note heads propose, in the order in which tokens are written."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens.batched_parsing import NUM_PITCHES

ON, DRUM, OFF = range(3)  # a kind's group: its number // NUM_PITCHES
TIE = 3  # the group of notes that continue from the segment before
MAX_TIES = 32  # per segment

_ROUNDS = 3  # of weighting classes by shares and counting the shares
_LEAST = 1e-20  # added to a class's probability, so that the only allowed class can be chosen however unlikely
_RARE = 0.01  # share of all notes that is split evenly over the classes


class NoteCandidates(NamedTuple):
  """Events that may be written as tokens, in token order.

  Attributes:
    frames: `[batch, n]`, the encoder frame of each.
    groups: `[batch, n]`, ON, DRUM, OFF or TIE.
    pitches: `[batch, n]`, 0 .. 127.
    scores: float32 `[batch, n]`, logits of being real.
    classes: float32 `[batch, n, NUM_CLASSES]`, probability of each Slakh class; 0 for drums.
  """

  frames: jax.Array
  groups: jax.Array
  pitches: jax.Array
  scores: jax.Array
  classes: jax.Array


def in_token_order(candidates: NoteCandidates) -> NoteCandidates:
  """Return candidates in the order of `ExampleConfig.rounded_order`: frame, then group, class and pitch."""
  rank = jnp.asarray(np.argsort([TIE, OFF, ON, DRUM]))[candidates.groups]
  classes = jnp.where(candidates.groups == DRUM, 0, candidates.classes.argmax(axis=-1))
  keys = ((candidates.frames * 4 + rank) * NUM_CLASSES + classes) * NUM_PITCHES + candidates.pitches
  order = jnp.argsort(keys, axis=-1)
  return NoteCandidates(
    *(jnp.take_along_axis(x, order, axis=-1) for x in candidates[:-1]),
    jnp.take_along_axis(candidates.classes, order[..., None], axis=1),
  )


def restrict_classes(candidates: NoteCandidates, allowed: jax.Array) -> NoteCandidates:
  """Return candidates, in token order, whose classes are allowed ones in proportion to their probabilities.

  Args:
    candidates: of one segment per row. The class of a note that continues is known, so it stays without a class if it
      is not allowed.
    allowed: bool `[NUM_CLASSES]`.
  """
  least = jnp.where((candidates.groups == ON) | (candidates.groups == OFF), _LEAST, 0.0)[..., None]
  classes = (candidates.classes + least) * allowed
  total = classes.sum(axis=-1, keepdims=True)
  return in_token_order(candidates._replace(classes=jnp.where(total > 0, classes / jnp.maximum(total, _LEAST), 0.0)))


def weigh_candidates(
  candidates: NoteCandidates, class_counts: jax.Array | None, strength: float, threshold: float
) -> NoteCandidates:
  """Return candidates with their classes weighted by the instruments so far (`weigh_classes`), in token order.

  Args:
    candidates: of one segment per row.
    class_counts: `[batch, NUM_CLASSES]`, notes of each class in the segments before; None: none.
    strength: as in `weigh_classes`.
    threshold: an onset counts as a note if its probability is at least this; 0: it counts as much as it is likely.
  """
  certain = jax.nn.sigmoid(candidates.scores)
  counted = jnp.where(certain >= threshold, 1.0, 0.0) if threshold else certain
  counted = jnp.where(candidates.groups == ON, counted, 0.0)
  return in_token_order(candidates._replace(classes=weigh_classes(candidates.classes, counted, class_counts, strength)))


def weigh_classes(classes: jax.Array, counted: jax.Array, class_counts: jax.Array | None, strength: float) -> jax.Array:
  """Weight the class probabilities of notes by each class's share of the notes so far.

  An instrument that has played much is the likelier one to play a note than one that has not: each probability is
  multiplied by the `strength`-th power of the class's share. The segment's own notes count too, as they are weighted.

  Args:
    classes: float `[batch, n, NUM_CLASSES]`, of single notes; those of drums are 0 and stay 0.
    counted: float `[batch, n]`, how much each note counts.
    class_counts: `[batch, NUM_CLASSES]`, notes of each class before this segment; None: none.
    strength: 1 is Bayes' rule, if all classes are equally frequent in training.

  Returns:
    Of the shape of `classes`.
  """
  before = 0.0 if class_counts is None else class_counts.astype(jnp.float32)
  weighted = classes
  for _ in range(_ROUNDS):
    shares = before + jnp.einsum('bn,bnc->bc', counted, weighted)
    shares = shares / (shares.sum(axis=-1, keepdims=True) + 1e-6)
    shares = (shares + _RARE / NUM_CLASSES) / (1.0 + _RARE)
    weighted = classes * jax.lax.stop_gradient(shares**strength)[:, None]
    weighted = weighted / (weighted.sum(axis=-1, keepdims=True) + 1e-9)
  return weighted


def logit(probability: jax.Array) -> jax.Array:
  """Return the logit of a probability, which is kept off 0 and 1."""
  return jax.scipy.special.logit(jnp.clip(probability, 1e-6, 1 - 1e-4))
