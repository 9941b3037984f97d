"""The auxiliary loss of single frames: what begins and what sounds in each, told by the encoder's states alone.

The labels are read from the target tokens, inside the jitted step, so every task has them and no pipeline carries them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.instruments import NUM_CLASSES, class_index
from mrmt3.vocabularies import MAX_PITCH, SPECIAL_TOKENS, build_codec

NUM_PITCHES = MAX_PITCH + 1
ROWS = NUM_CLASSES + 1  # the Slakh classes, drums last
DRUM_ROW = NUM_CLASSES


class FrameTargets(NamedTuple):
  """Float32 arrays, labels (0 or 1) or logits: of an instrument class and pitch, of a pitch, of a class.

  Attributes:
    onsets: `[batch, frames, ROWS * 128]`, notes that begin, class by class.
    pitches: `[batch, frames, 128]`, pitches that sound; no drums.
    classes: `[batch, frames, ROWS]`, classes that sound; no drums.
  """

  onsets: jax.Array
  pitches: jax.Array
  classes: jax.Array


SIZES = FrameTargets(ROWS * NUM_PITCHES, NUM_PITCHES, ROWS)
# What sounds is told again in every frame; onsets are what counts, and are told once.
WEIGHTS = FrameTargets(1.0, 0.2, 0.2)


@dataclasses.dataclass(frozen=True)
class _Notes:
  """Per token: the frame it speaks of, and what it begins or ends; `[batch, tokens]` each."""

  frame: jax.Array
  row: jax.Array
  pitch: jax.Array
  onset: jax.Array
  starts: jax.Array
  ends: jax.Array


def frame_labels(tokens: jax.Array, spec: ModelSpec) -> FrameTargets:
  """Returns the labels of segments, given their target tokens (int model ids `[batch, length]`, padded with 0).

  An onset is in the frame nearest to its time. A tied note sounds from the first frame on, a note that nothing ends up to
  the last. Programs that stand for no class count as their class (`instruments.slakh_class_program`).
  """
  frames = spec.segment_frames
  notes = _read(tokens, spec)

  def add(mask, amount, column, columns):
    frame = jnp.where(mask, notes.frame, frames)  # a frame beyond the last is dropped
    empty = jnp.zeros((frames, columns), jnp.float32)
    return jax.vmap(lambda f, c: empty.at[f, c].add(amount, mode='drop'))(frame, column)

  def sounding(column, columns):
    changes = add(notes.starts, 1.0, column, columns) - add(notes.ends, 1.0, column, columns)
    return jnp.clip(jnp.cumsum(changes, axis=1), 0.0, 1.0)

  onsets = add(notes.onset, 1.0, notes.row * NUM_PITCHES + notes.pitch, SIZES.onsets)
  return FrameTargets(
      jnp.minimum(onsets, 1.0), sounding(notes.pitch, SIZES.pitches), sounding(notes.row, SIZES.classes)
  )


def _read(tokens, spec) -> _Notes:
  codec = build_codec(spec.vocabulary)
  place = jnp.arange(tokens.shape[-1])

  def value(event):
    first, last = (regular + SPECIAL_TOKENS for regular in codec.event_type_range(event))
    return (tokens >= first) & (tokens <= last), tokens - first

  def latest(event):
    """The value of the last event of a type at or before each token, 0 where there was none."""
    of_type, number = value(event)
    index = jax.lax.cummax(jnp.where(of_type, place, -1), axis=tokens.ndim - 1)
    return jnp.where(index < 0, 0, jnp.take_along_axis(number, jnp.maximum(index, 0), axis=-1))

  (is_pitch, pitch), (is_drum, drum), (is_tie, _) = value('pitch'), value('drum'), value('tie')
  after_ties = jax.lax.cummax(is_tie.astype(jnp.int32), axis=tokens.ndim - 1) > 0
  loud = latest('velocity') > 0
  # Steps are absolute, the time since the segment's start; one shift token is enough for a segment of up to 10 s.
  frames_per_step = float(spec.spectrogram.frame_rate) / codec.steps_per_second
  frame = jnp.round(latest('shift') * frames_per_step).astype(jnp.int32)
  row = jnp.where(is_drum, DRUM_ROW, jnp.asarray(class_index(np.arange(NUM_PITCHES)))[latest('program')])
  return _Notes(
      frame=jnp.clip(frame, 0, spec.segment_frames - 1),
      row=row,
      pitch=jnp.where(is_drum, drum, jnp.clip(pitch, 0, NUM_PITCHES - 1)),
      onset=after_ties & (is_drum | (is_pitch & loud)),
      starts=is_pitch & (loud | ~after_ties),
      ends=is_pitch & after_ties & ~loud,
  )


def frame_loss(logits: FrameTargets, labels: FrameTargets) -> jax.Array:
  """Returns the cross-entropy of every example, nats, float32 `[batch]`: the weighted sum over frames and outputs."""
  parts = zip(WEIGHTS, logits, labels, strict=True)
  return sum(weight * (jnp.logaddexp(0.0, x) - x * y).sum(axis=(1, 2)) for weight, x, y in parts)


def onset_counts(logits: FrameTargets, labels: FrameTargets) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns what is reported of the onsets: name -> (how many were right, of how many)."""
  found, true = logits.onsets > 0, labels.onsets > 0
  right = (found & true).sum()
  return {'frame_onset_recall': (right, true.sum()), 'frame_onset_precision': (right, found.sum())}
