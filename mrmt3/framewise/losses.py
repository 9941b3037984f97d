"""The frame loss: cross-entropy of what begins, ends and sounds in each encoder frame.

The labels are read from the target tokens, inside the jitted step, so every task has them and no pipeline carries them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mrmt3.config import ModelSpec
from mrmt3.framewise.note_heads import CLASS_ROWS, OFFSETS, ONSETS, FrameTargets
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.batched_parsing import DRUM_ROW, NUM_PITCHES

# What sounds is labelled in every frame, but an onset only once, and onsets are what counts. Offsets are less audible.
WEIGHTS = FrameTargets(onsets=1.0, drums=1.0, offsets=0.5, pitches=0.2, classes=0.2)


class PitchedEvents(NamedTuple):
  """What begins and ends of pitched notes, one place per token, `[batch, tokens]` each.

  Attributes:
    begins: bool, whether the token begins such a note.
    ends: bool, whether it ends one; the rest holds for those two only.
    frames: int32, the encoder frame it lies in.
    kinds: int32, of `note_heads.KINDS`.
    classes: int32, the number of its Slakh class.
  """

  begins: jax.Array
  ends: jax.Array
  frames: jax.Array
  kinds: jax.Array
  classes: jax.Array


def frame_labels(tokens: jax.Array, spec: ModelSpec) -> tuple[FrameTargets, PitchedEvents]:
  """Return the labels of segments, given their target tokens (int model ids `[batch, length]`, padded with 0).

  An onset is in the encoder frame nearest to its time. A tied note sounds from the first frame on, a note that nothing
  ends up to the last. Programs that stand for no class count as their class (`instruments.slakh_class_program`).
  """
  frames = spec.network.num_encoder_frames(spec.segment_frames)
  notes = batched_parsing.read(tokens, spec.token_ids)
  frame = _frame(notes.time, spec)
  drum = notes.row == DRUM_ROW

  def add(mask, amount, column, columns):
    place = jnp.where(mask, frame, frames)  # one beyond the last is dropped
    empty = jnp.zeros((frames, columns), jnp.float32)
    return jax.vmap(lambda s, c: empty.at[s, c].add(amount, mode='drop'))(place, column)

  def happening(mask):
    return jnp.minimum(add(mask, 1.0, notes.pitch, NUM_PITCHES), 1.0)

  def sounding(column, columns):
    changes = add(notes.starts, 1.0, column, columns) - add(notes.ends, 1.0, column, columns)
    return jnp.clip(jnp.cumsum(changes, axis=1), 0.0, 1.0)

  kinds = notes.pitch + jnp.where(notes.ends, OFFSETS.start, ONSETS.start)
  events = PitchedEvents(notes.onset & ~drum, notes.ends, frame, kinds, jnp.minimum(notes.row, NUM_CLASSES - 1))
  targets = FrameTargets(
    onsets=happening(events.begins),
    drums=happening(notes.onset & drum),
    offsets=happening(notes.ends),
    pitches=sounding(notes.pitch, NUM_PITCHES),
    classes=sounding(notes.row, CLASS_ROWS),
  )
  return targets, events


def _frame(time, spec):
  """Return the encoder frame nearest to times, counted in steps since the segment's start."""
  # One shift token is enough for a segment of up to 10 s.
  frames_per_step = float(spec.spectrogram.frame_rate) / spec.vocabulary.steps_per_second
  frame = jnp.round(time * frames_per_step).astype(jnp.int32)
  return jnp.clip(frame, 0, spec.segment_frames - 1) // spec.network.time_stride


def frame_loss(logits: FrameTargets, class_logits: jax.Array, labels: FrameTargets, events: PitchedEvents) -> jax.Array:
  """Return the cross-entropy of every example, nats, float32 `[batch]`.

  The weighted sum over encoder frames and outputs, and over the classes `class_logits` `[batch, tokens, NUM_CLASSES]`
  of events.
  """
  parts = zip(WEIGHTS, logits, labels, strict=True)
  by_frame = sum(weight * (jnp.logaddexp(0.0, x) - x * y).sum(axis=(1, 2)) for weight, x, y in parts)
  right = jnp.take_along_axis(jax.nn.log_softmax(class_logits), events.classes[..., None], axis=-1)[..., 0]
  return by_frame - (right * (WEIGHTS.onsets * events.begins + WEIGHTS.offsets * events.ends)).sum(axis=1)


def event_counts(
  logits: FrameTargets, class_logits: jax.Array, labels: FrameTargets, events: PitchedEvents
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Return counts to report about events: name -> (how many were right, of how many)."""
  counts = {}
  for name, found, true in (
    ('onset', logits.onsets > 0, labels.onsets > 0),
    ('drum', logits.drums > 0, labels.drums > 0),
  ):
    right = (found & true).sum()
    counts |= {f'frame_{name}_recall': (right, true.sum()), f'frame_{name}_precision': (right, found.sum())}
  right = class_logits.argmax(axis=-1) == events.classes
  for name, real in (('onset', events.begins), ('offset', events.ends)):
    counts[f'frame_{name}_class'] = ((right & real).sum(), real.sum())
  return counts
