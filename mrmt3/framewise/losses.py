"""The auxiliary loss of single frames: what begins and what sounds in each, told by the encoder's states alone.

The labels are read from the target tokens, inside the jitted step, so every task has them and no pipeline carries them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mrmt3.config import ModelSpec
from mrmt3.framewise.note_heads import OFFSETS, ONSETS, ROWS, FrameTargets
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.batched_parsing import DRUM_ROW, NUM_PITCHES
from mrmt3.vocabularies import build_codec

# What sounds is told again in every state; onsets are what counts, and are told once.
# Where a note ends can be heard less well.
WEIGHTS = FrameTargets(onsets=1.0, drums=1.0, offsets=0.5, pitches=0.2, classes=0.2)


class PitchedEvents(NamedTuple):
  """What begins and ends of pitched notes, one place per token, `[batch, tokens]` each.

  Attributes:
    begins: bool, whether the token begins such a note.
    ends: bool, whether it ends one; the rest holds for those two only.
    states: int32, the state it lies in.
    kinds: int32, of `note_reader.KINDS`.
    classes: int32, the number of its Slakh class.
  """

  begins: jax.Array
  ends: jax.Array
  states: jax.Array
  kinds: jax.Array
  classes: jax.Array


def frame_labels(tokens: jax.Array, spec: ModelSpec) -> tuple[FrameTargets, PitchedEvents]:
  """Returns the labels of segments, given their target tokens (int model ids `[batch, length]`, padded with 0).

  An onset is in the state of the frame nearest to its time. A tied note sounds from the first state on, a note that nothing
  ends up to the last. Programs that stand for no class count as their class (`instruments.slakh_class_program`).
  """
  states = spec.network.num_states(spec.segment_frames)
  notes = batched_parsing.read(tokens, batched_parsing.token_ids(build_codec(spec.vocabulary)))
  state = _state(notes.time, spec)
  drum = notes.row == DRUM_ROW

  def add(mask, amount, column, columns):
    place = jnp.where(mask, state, states)  # one beyond the last is dropped
    empty = jnp.zeros((states, columns), jnp.float32)
    return jax.vmap(lambda s, c: empty.at[s, c].add(amount, mode='drop'))(place, column)

  def happening(mask):
    return jnp.minimum(add(mask, 1.0, notes.pitch, NUM_PITCHES), 1.0)

  def sounding(column, columns):
    changes = add(notes.starts, 1.0, column, columns) - add(notes.ends, 1.0, column, columns)
    return jnp.clip(jnp.cumsum(changes, axis=1), 0.0, 1.0)

  kinds = notes.pitch + jnp.where(notes.ends, OFFSETS.start, ONSETS.start)
  events = PitchedEvents(notes.onset & ~drum, notes.ends, state, kinds, jnp.minimum(notes.row, NUM_CLASSES - 1))
  targets = FrameTargets(
    onsets=happening(events.begins),
    drums=happening(notes.onset & drum),
    offsets=happening(notes.ends),
    pitches=sounding(notes.pitch, NUM_PITCHES),
    classes=sounding(notes.row, ROWS),
  )
  return targets, events


def _state(time, spec):
  """Returns the state that lies nearest to times, counted in steps since the segment's start."""
  # One shift token is enough for a segment of up to 10 s.
  frames_per_step = float(spec.spectrogram.frame_rate) / spec.vocabulary.steps_per_second
  frame = jnp.round(time * frames_per_step).astype(jnp.int32)
  return jnp.clip(frame, 0, spec.segment_frames - 1) // spec.network.front_time_stride


def frame_loss(logits: FrameTargets, class_logits: jax.Array, labels: FrameTargets, events: PitchedEvents) -> jax.Array:
  """Returns the cross-entropy of every example, nats, float32 `[batch]`.

  It is the weighted sum over states and outputs, and over the classes `class_logits` `[batch, tokens, NUM_CLASSES]` of events.
  """
  parts = zip(WEIGHTS, logits, labels, strict=True)
  states = sum(weight * (jnp.logaddexp(0.0, x) - x * y).sum(axis=(1, 2)) for weight, x, y in parts)
  right = jnp.take_along_axis(jax.nn.log_softmax(class_logits), events.classes[..., None], axis=-1)[..., 0]
  return states - (right * (WEIGHTS.onsets * events.begins + WEIGHTS.offsets * events.ends)).sum(axis=1)


def event_counts(
  logits: FrameTargets, class_logits: jax.Array, labels: FrameTargets, events: PitchedEvents
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns what is reported of the events: name -> (how many were right, of how many)."""
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
