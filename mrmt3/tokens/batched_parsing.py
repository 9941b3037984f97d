"""Parse batches of token sequences into notes, inside jitted functions as well.

Works on numpy and JAX arrays: which notes begin and end with each token, which sound at the end of a segment, and how
many notes of each Slakh class begin.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.notes.instruments import NUM_CLASSES, class_index
from mrmt3.tokens.event_state import event_state
from mrmt3.tokens.token_ids import TokenIds

NUM_PITCHES = 128
DRUM_ROW = NUM_CLASSES  # the row of drums, behind those of the Slakh classes


class TokenNotes(NamedTuple):
  """Per token, `[batch, tokens]` each.

  Attributes:
    time: int, steps since the segment's start.
    row: int, the Slakh class's number, or DRUM_ROW.
    pitch: int, 0 .. 127.
    onset: bool, whether it begins a note, a drum's too.
    starts: bool, whether a pitched note sounds from here on, be it tied.
    ends: bool, whether it ends one.
  """

  time: jax.Array
  row: jax.Array
  pitch: jax.Array
  onset: jax.Array
  starts: jax.Array
  ends: jax.Array


def read(tokens: jax.Array, ids: TokenIds) -> TokenNotes:
  """Parse the tokens of segments, int model ids `[batch, tokens]`, padded with 0."""
  tokens = jnp.asarray(tokens)

  def is_any(pair):
    return (tokens >= pair[0]) & (tokens <= pair[1])

  is_pitch, is_drum = is_any(ids.pitch), is_any(ids.drum)
  last = event_state(tokens, ids.state)
  # Values, 0 before the first token of a kind.
  time, velocity, program, _ = (jnp.maximum(last[..., k] - first, 0) for k, (first, _) in enumerate(ids[:4]))
  after_ties, loud = last[..., 3] > 0, velocity > 0
  own = jnp.where(is_drum, tokens - ids.drum[0], tokens - ids.pitch[0])
  return TokenNotes(
    time=time,
    row=jnp.where(is_drum, DRUM_ROW, jnp.asarray(class_index(np.arange(NUM_PITCHES)))[program]),
    pitch=jnp.clip(own, 0, NUM_PITCHES - 1),
    onset=after_ties & (is_drum | (is_pitch & loud)),
    starts=is_pitch & (loud | ~after_ties),
    ends=is_pitch & after_ties & ~loud,
  )


def held(tokens: jax.Array, ids: TokenIds) -> jax.Array:
  """Return what sounds when segments end, bool `[batch, NUM_CLASSES, NUM_PITCHES]`; `tokens` as in `read`."""
  notes = read(tokens, ids)
  place = jnp.arange(1, notes.row.shape[1] + 1)

  def last(marked):
    row = jnp.where(marked & (notes.row < NUM_CLASSES), notes.row, NUM_CLASSES)  # one beyond the last is dropped
    empty = jnp.zeros((NUM_CLASSES, NUM_PITCHES), jnp.int32)
    return jax.vmap(lambda r, p: empty.at[r, p].max(place, mode='drop'))(row, notes.pitch)

  return last(notes.starts) > last(notes.ends)


def late_events(tokens: jax.Array, ids: TokenIds, first_step: int) -> jax.Array:
  """Return what happens at the end of segments, bool `[batch, 3, NUM_PITCHES]`: onsets, drum notes, offsets.

  Args:
    tokens: as in `read`.
    ids: the ids of the tokens.
    first_step: the time from which events count, in steps since the segment's start.
  """
  notes = read(tokens, ids)
  drum = notes.row == DRUM_ROW
  late = notes.time >= first_step
  empty = jnp.zeros(NUM_PITCHES, bool)

  def any_at(marked):
    return jax.vmap(lambda pitch, here: empty.at[pitch].max(here))(notes.pitch, marked & late)

  return jnp.stack([any_at(notes.onset & ~drum), any_at(notes.onset & drum), any_at(notes.ends)], axis=1)


def onset_counts(tokens: jax.Array, ids: TokenIds) -> jax.Array:
  """Count the notes of each Slakh class that begin in segments, int32 `[batch, NUM_CLASSES]`; `tokens` as in `read`."""
  notes = read(tokens, ids)
  rows = jnp.where(notes.onset, notes.row, NUM_CLASSES)
  return jax.vmap(lambda r: jnp.zeros(NUM_CLASSES, jnp.int32).at[r].add(1, mode='drop'))(rows)
