"""The memory that one segment of a piece hands on to the next, in numpy or JAX arrays.

As in MR-MT3, the tokens of the prior segments. Besides, for networks that ask for it, how many notes each instrument
has played so far, and whether the prior segment is the adjacent one, so that its notes may continue.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens.segment_targets import empty_segment


class Memory(NamedTuple):
  """What each of several segments is conditioned on.

  Attributes:
    tokens: int32 `[rows, prior segments * targets_length]`, prior segments, the earliest first, each padded with 0.
    class_counts: int32 `[rows, NUM_CLASSES]`, how many notes of each Slakh class began in all decoded segments.
    adjacent: bool `[rows]`, whether the last prior segment is the one right before.
  """

  tokens: np.ndarray
  class_counts: np.ndarray
  adjacent: np.ndarray


def joined(memories) -> Memory:
  """Return memories as one, their rows one after the other; numpy arrays."""
  return Memory(*(np.concatenate(parts) for parts in zip(*memories, strict=True)))


def empty(spec: ModelSpec, rows: int) -> Memory:
  """Return the memory of first segments, numpy arrays: nothing came before."""
  segment = np.asarray(empty_segment(spec.codec), np.int32)
  padded = np.pad(segment, (0, spec.targets_length - len(segment)))
  tokens = np.tile(padded, (rows, spec.network.num_prior_segments))
  return Memory(tokens, np.zeros((rows, NUM_CLASSES), np.int32), np.ones(rows, bool))


def of_group(spec: ModelSpec, rows: int) -> Memory:
  """Return the memory of a piece's first `rows` segments, decoded together: all but the first have an unknown past."""
  return empty(spec, rows)._replace(adjacent=np.arange(rows) == 0)


def after(memory: Memory, tokens, spec: ModelSpec, one_piece: bool = False) -> Memory:
  """Return the memory after further segments; the oldest prior segment is dropped.

  Args:
    memory: before them.
    tokens: int32 `[rows, <= targets_length]`, what the network emitted for them.
    spec: of the model.
    one_piece: whether the rows are consecutive segments of one piece: then notes of any of them count for all, and with
      several rows the prior segment is not the adjacent one.
  """
  xp = np if isinstance(tokens, np.ndarray) else jnp
  kept, counted, adjacent = memory.tokens[:, spec.targets_length :], class_counts(tokens, spec), memory.adjacent
  if one_piece:
    counted, adjacent = counted.sum(axis=0, keepdims=True), np.full(len(tokens), len(tokens) == 1)
  return Memory(xp.concatenate([kept, as_prior(tokens, spec)], axis=1), memory.class_counts + counted, adjacent)


def as_prior(tokens, spec: ModelSpec):
  """Return a segment's tokens `[rows, <= targets_length]` as one of the segments of `Memory.tokens`."""
  xp = np if isinstance(tokens, np.ndarray) else jnp
  # The published code counts the start token among the tokens of a segment.
  start = int(spec.prior_layout == 'start_token')
  tokens = tokens[:, : spec.targets_length - start]
  return xp.pad(tokens, ((0, 0), (start, spec.targets_length - start - tokens.shape[1])))


def class_counts(tokens, spec: ModelSpec):
  """Count the notes of each class that begin in segments `[rows, length]`, int32 `[rows, NUM_CLASSES]`."""
  if isinstance(tokens, np.ndarray) and spec.network.counts_classes:
    return np.asarray(_counted(tokens, spec=spec))
  return spec.network.class_counts(tokens, spec.token_ids)


@functools.partial(jax.jit, static_argnames='spec')
def _counted(tokens, *, spec):
  return spec.network.class_counts(tokens, spec.token_ids)
