"""What goes from one segment of a piece to later ones, in numpy and in JAX alike: the carry of the chain of segments.

As MR-MT3, the tokens of the prior segment. Besides, for networks with `T5Config.copied_tokens`, how much each instrument has played so
far, and whether that segment is the one right before, so that its notes may go on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.segment_targets import empty_segment
from mrmt3.vocabularies import build_codec


class Memory(NamedTuple):
  """What each of several segments is listened to with.

  Attributes:
    tokens: int32 `[rows, memory_segments * targets_length]`, prior segments, the earliest first, each padded with 0.
    heard: int32 `[rows, NUM_CLASSES]`, how many notes of each Slakh class began in all segments that have been decoded.
    adjacent: bool `[rows]`, whether the last prior segment is the one right before.
  """

  tokens: np.ndarray
  heard: np.ndarray
  adjacent: np.ndarray

  def keywords(self, spec: ModelSpec) -> dict:
    """Returns the keyword arguments of `Transformer.encode`; none for a network that does not remember."""
    if not spec.network.remembers:
      return {}
    if not spec.network.copied_tokens:
      return {'prior_tokens': self.tokens}
    return {'prior_tokens': self.tokens, 'heard': self.heard, 'adjacent': self.adjacent}


def joined(memories) -> Memory:
  """Returns memories as one, their rows one after the other; numpy arrays."""
  return Memory(*(np.concatenate(parts) for parts in zip(*memories, strict=True)))


def empty(spec: ModelSpec, rows: int) -> Memory:
  """Returns the memory of first segments, numpy arrays: nothing came before."""
  segment = np.asarray(empty_segment(build_codec(spec.vocabulary)), np.int32)
  padded = np.pad(segment, (0, spec.targets_length - len(segment)))
  tokens = np.tile(padded, (rows, spec.network.memory_segments))
  return Memory(tokens, np.zeros((rows, NUM_CLASSES), np.int32), np.ones(rows, bool))


def of_group(spec: ModelSpec, rows: int) -> Memory:
  """Returns the memory of a piece's first `rows` segments, decoded together: what came before all but the first is not known."""
  return empty(spec, rows)._replace(adjacent=np.arange(rows) == 0)


def after(memory: Memory, tokens, spec: ModelSpec, one_piece: bool = False) -> Memory:
  """Returns the memory after further segments; the oldest prior segment is dropped.

  Args:
    memory: before them.
    tokens: int32 `[rows, <= targets_length]`, what the network says of them.
    spec: of the model.
    one_piece: whether the rows are segments of one piece that follow each other: then what is heard in any of them has been heard in
      all, and with several rows the prior segment lies further back than the one right before.
  """
  xp = np if isinstance(tokens, np.ndarray) else jnp
  kept, counted, adjacent = memory.tokens[:, spec.targets_length :], counts(tokens, spec), memory.adjacent
  if one_piece:
    counted, adjacent = counted.sum(axis=0, keepdims=True), np.full(len(tokens), len(tokens) == 1)
  return Memory(xp.concatenate([kept, as_prior(tokens, spec)], axis=1), memory.heard + counted, adjacent)


def as_prior(tokens, spec: ModelSpec):
  """Returns a segment's tokens `[rows, <= targets_length]` as one of the segments of `Memory.tokens`, `[rows, targets_length]`."""
  xp = np if isinstance(tokens, np.ndarray) else jnp
  # The published code counts the start token among the tokens of a segment.
  start = int(spec.prior_layout == 'start_token')
  tokens = tokens[:, : spec.targets_length - start]
  return xp.pad(tokens, ((0, 0), (start, spec.targets_length - start - tokens.shape[1])))


def counts(tokens, spec: ModelSpec):
  """Returns how many notes of each class begin in segments `[rows, length]`, int32 `[rows, NUM_CLASSES]`; 0 where nobody asks."""
  if not spec.network.instrument_memory:
    return np.zeros((len(tokens), NUM_CLASSES), np.int32)
  if isinstance(tokens, np.ndarray):
    return np.asarray(_counted(tokens, batched_parsing.Tokens(*spec.network.copied_tokens)))
  return batched_parsing.onset_counts(tokens, batched_parsing.Tokens(*spec.network.copied_tokens))


_counted = jax.jit(batched_parsing.onset_counts, static_argnums=1)
