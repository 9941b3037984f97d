"""Heads over encoder frames: onsets, offsets, sounding pitches, instrument classes, and note candidates."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mrmt3.framewise.candidates import DRUM, MAX_TIES, TIE, NoteCandidates, in_token_order, logit
from mrmt3.framewise.harmonic_stacking import LOWEST_PITCH, PITCHES
from mrmt3.nn import layers
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens.batched_parsing import NUM_PITCHES

CLASS_ROWS = NUM_CLASSES + 1  # the Slakh classes, drums last
ONSETS, DRUMS, OFFSETS = (slice(k * NUM_PITCHES, (k + 1) * NUM_PITCHES) for k in range(3))
KINDS = 3 * NUM_PITCHES  # of events: a pitch begins, a drum note begins, a pitch ends

_NEVER = -1e9
_SOUNDS = np.log(0.25 / 0.75)  # logit from which a pitch sounds
_QUIET = 2  # frames without it after which a note has ended
_NEAR = 3  # frames around an end in which a detected offset is preferred
_ENDED = 0.0  # logit of an offset where a note no longer sounds


def with_ends(onsets: jax.Array, offsets: jax.Array, sounding: jax.Array) -> jax.Array:
  """Return logits of offsets in which notes that no longer sound end, if no offset is detected around.

  Args:
    onsets: logits `[batch, frames, NUM_PITCHES]`.
    offsets: the same.
    sounding: the same.
  """
  here = (sounding >= _SOUNDS) | (onsets >= _SOUNDS)
  padded = jnp.pad(here, ((0, 0), (1, _QUIET - 1), (0, 0)))
  count = here.shape[1]
  ends = padded[:, :count] & ~functools.reduce(jnp.logical_or, [padded[:, k : k + count] for k in range(1, _QUIET + 1)])
  around = jnp.pad(offsets, ((0, 0), (_NEAR, _NEAR), (0, 0)), constant_values=_NEVER)
  detected = functools.reduce(jnp.maximum, [around[:, k : k + count] for k in range(2 * _NEAR + 1)]) >= _SOUNDS
  return jnp.where(ends & ~detected, jnp.maximum(offsets, _ENDED), offsets)


class FrameTargets(NamedTuple):
  """Float32 arrays over encoder frames: labels (0 or 1), or logits.

  Attributes:
    onsets: `[batch, frames, 128]`, pitches that begin, of whatever instrument; no drums.
    drums: `[batch, frames, 128]`, drum notes that begin.
    offsets: `[batch, frames, 128]`, pitches that end, of whatever instrument.
    pitches: `[batch, frames, 128]`, pitches that sound; no drums.
    classes: `[batch, frames, CLASS_ROWS]`, classes that sound; no drums.
  """

  onsets: jax.Array
  drums: jax.Array
  offsets: jax.Array
  pitches: jax.Array
  classes: jax.Array


class FrameHead(nn.Module):
  """Predicts which classes sound in each encoder frame, in training only."""

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """Return logits `[batch, frames, CLASS_ROWS]` for encoder frames `[batch, frames, emb]`."""
    y = layers.Dense(CLASS_ROWS, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32, name='classes')(frames)
    start = nn.initializers.constant(-np.log(CLASS_ROWS))
    return y + layers.partitioning.param_with_axes('classes_bias', start, (CLASS_ROWS,), jnp.float32, axes=('vocab',))


class NoteHeads(nn.Module):
  """Detects events in encoder frames, each one of `KINDS`, and the Slakh class of each.

  Not in the papers. `losses.frame_loss` trains the logits. Besides encoder frames the heads take the front end's
  features of single pitches, where it has some (`harmonic_stacking.HarmonicStacking`).

  Attributes:
    features: width of the encoder frames.
    hidden: width of the features of an event.
    pitch_features: width of the features of a pitch.
  """

  features: int
  hidden: int = 256
  pitch_features: int = 48

  def setup(self):
    """Declare the parts."""
    initializer = layers.PROJECTION_INITIALIZERS['mt3']
    self.events = layers.Dense(KINDS, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32)
    # Few of the many events happen: starting from 1/2 each, the first gradients would teach nothing else.
    start = nn.initializers.constant(-np.log(NUM_PITCHES))
    self.events_bias = layers.partitioning.param_with_axes('events_bias', start, (KINDS,), jnp.float32, axes=('vocab',))
    self.seen = layers.Dense(self.hidden, ('embed', 'mlp'), initializer, jnp.float32)
    self.kind = layers.partitioning.param_with_axes(
      'kind', nn.initializers.normal(0.3), (KINDS, self.hidden), jnp.float32, axes=('vocab', 'mlp')
    )
    self.seen_at_pitch = layers.Dense(self.hidden, ('embed', 'mlp'), initializer, jnp.float32)
    self.context = layers.Dense(self.pitch_features, ('embed', 'mlp'), initializer, jnp.float32)
    self.pitch = layers.ChannelsFirstDense(self.pitch_features, ('embed', 'mlp'), initializer, jnp.float32)
    self.at_pitch = layers.ChannelsFirstDense(3, ('mlp', 'vocab'), initializer, jnp.float32)
    self.sounds = layers.Dense(NUM_PITCHES, ('embed', 'vocab'), nn.initializers.normal(0.02), jnp.float32)
    self.sounds_bias = layers.partitioning.param_with_axes(
      'sounds_bias', start, (NUM_PITCHES,), jnp.float32, axes=('vocab',)
    )
    # Logits of the Slakh class of an event, from `event_features`.
    self.class_of = layers.Dense(NUM_CLASSES, ('mlp', 'vocab'), initializer, jnp.float32)

  def __call__(self, frames: jax.Array, pitches: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Predict events and sounding pitches.

    Args:
      frames: encoder frames `[batch, frames, emb]`.
      pitches: the front end's pitch features `[n, PITCHES, frames, batch]`, or None.

    Returns:
      float32 logits: `[batch, frames, KINDS]`, what happens in each frame; `[batch, frames, NUM_PITCHES]`, what sounds.
    """
    events, sounding = self.events(frames) + self.events_bias, self.sounds(frames) + self.sounds_bias
    if pitches is None:
      return events, sounding
    hidden = nn.relu(self.pitch(pitches) + self.context(frames).transpose(2, 1, 0)[:, None])
    above = NUM_PITCHES - LOWEST_PITCH - PITCHES
    by_pitch = self.at_pitch(hidden).transpose(0, 3, 2, 1)
    onsets, offsets, continues = jnp.pad(by_pitch, ((0, 0), (0, 0), (0, 0), (LOWEST_PITCH, above)))
    return events + jnp.concatenate([onsets, jnp.zeros_like(onsets), offsets], axis=-1), sounding + continues

  def event_features(
    self, frames: jax.Array, pitches: jax.Array | None, places: jax.Array, kinds: jax.Array
  ) -> jax.Array:
    """Return features of events, float32 `[batch, n, hidden]`.

    Args:
      frames: encoder frames `[batch, frames, emb]`.
      pitches: as in a call.
      places: int `[batch, n]`, the frame of each event.
      kinds: int `[batch, n]`, which of KINDS it is.
    """
    known = jnp.take_along_axis(self.seen(frames), places[..., None], axis=1) + self.kind[kinds]
    if pitches is not None:
      pitch = kinds % NUM_PITCHES - LOWEST_PITCH
      here = pitches[:, jnp.clip(pitch, 0, PITCHES - 1), places, jnp.arange(len(frames))[:, None]]
      here = jnp.moveaxis(here, 0, -1)
      there = (pitch >= 0) & (pitch < PITCHES) & (kinds // NUM_PITCHES != DRUM)
      known = known + self.seen_at_pitch(jnp.where(there[..., None], here, 0))
    return nn.relu(known)

  def candidates(
    self,
    frames: jax.Array,
    number: int,
    pitches: jax.Array | None = None,
    context: int = 0,
    taken: jax.Array | None = None,
  ) -> NoteCandidates:
    """Return the `number` likeliest events, in token order. One that is likelier in a neighbouring frame is left out.

    Args:
      frames: encoder frames `[batch, frames, emb]`.
      number: how many.
      pitches: as in a call.
      context: encoder frames at both ends that belong to other segments; frames are counted from the first one that
        does not.
      taken: with context, bool `[batch, 2, KINDS]`, of `network.border_events`.
    """
    logits, sounding = self(frames, pitches)
    if context:
      logits = logits.at[..., OFFSETS].set(with_ends(logits[..., ONSETS], logits[..., OFFSETS], sounding))
    padded = jnp.pad(logits, ((0, 0), (1, 1), (0, 0)), constant_values=_NEVER)
    peak = (logits >= padded[:, :-2]) & (logits > padded[:, 2:])
    if context:
      own = slice(context - 1, logits.shape[1] - context)  # with the frame before the first one
      free = jnp.pad(~taken, ((0, 0), (0, logits.shape[1] - 2 * context - 1), (0, 0)), constant_values=True)
      peak = jnp.zeros_like(peak).at[:, own].set(peak[:, own] & free)
    scores = jnp.where(peak, logits, logits + _NEVER).reshape(len(logits), -1)
    chosen = jax.lax.top_k(scores, number)[1]
    places, kinds = chosen // KINDS, chosen % KINDS
    # An event between two frames is half as likely in each, and the tokens place it in one of them.
    likely = jnp.pad(jax.nn.sigmoid(logits), ((0, 0), (1, 1), (0, 0)))
    around = likely[:, :-2] + likely[:, 1:-1] + likely[:, 2:]
    certain = jnp.take_along_axis(around.reshape(len(logits), -1), chosen, axis=-1)
    if context:
      certain = jnp.where(jnp.take_along_axis(peak.reshape(len(logits), -1), chosen, axis=-1), certain, 0.0)
    groups, pitch = kinds // NUM_PITCHES, kinds % NUM_PITCHES
    features = self.event_features(frames, pitches, places, kinds)
    classes = jax.nn.softmax(self.class_of(features)) * (groups != DRUM)[..., None]
    own = jnp.clip(places - context, 0, logits.shape[1] - 2 * context - 1)
    return in_token_order(NoteCandidates(own, groups, pitch, logit(certain), classes))

  def ties(
    self,
    frames: jax.Array,
    pitches: jax.Array | None,
    held: jax.Array,
    adjacent: jax.Array | None = None,
    context: int = 0,
  ) -> NoteCandidates:
    """Return the notes that may continue from the segment before: MAX_TIES of group TIE, by class and pitch.

    The first frame shows which pitches sound. Their classes, and which can continue at all, follow from the adjacent
    segment; where that one is not known, the class is predicted as for a note that ends.

    Args:
      frames: encoder frames `[batch, frames, emb]`.
      pitches: as in a call.
      held: bool `[batch, NUM_CLASSES, NUM_PITCHES]`, what sounded when the adjacent segment ended.
      adjacent: bool `[batch]`, in which rows `held` is known; None: in all.
      context: as in `candidates`.
    """
    sounding = self(frames, pitches)[1][:, context]
    known = jnp.ones(len(frames), bool) if adjacent is None else adjacent
    scores = jnp.where(held & known[:, None, None], sounding[:, None], _NEVER)
    scores = jnp.concatenate([scores, jnp.where(known[:, None], _NEVER, sounding)[:, None]], axis=1)
    scores, chosen = jax.lax.top_k(scores.reshape(len(frames), -1), MAX_TIES)
    rows, pitch = chosen // NUM_PITCHES, chosen % NUM_PITCHES
    first = jnp.full_like(pitch, context)
    predicted = self.class_of(self.event_features(frames, pitches, first, OFFSETS.start + pitch))
    classes = jnp.where((rows < NUM_CLASSES)[..., None], jax.nn.one_hot(rows, NUM_CLASSES), jax.nn.softmax(predicted))
    certain = logit(jax.nn.sigmoid(scores))
    return in_token_order(NoteCandidates(jnp.zeros_like(pitch), jnp.full_like(pitch, TIE), pitch, certain, classes))
