"""The auxiliary loss of single frames: what begins and what sounds in each, told by the encoder's states alone.

The labels are read from the target tokens, inside the jitted step, so every task has them and no pipeline carries them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3.config import ModelSpec
from mrmt3.frame_head import ROWS, FrameTargets
from mrmt3.instruments import NUM_CLASSES, class_index
from mrmt3.network import running_status
from mrmt3.note_reader import NUM_PITCHES, OFFSETS, ONSETS
from mrmt3.vocabularies import SPECIAL_TOKENS, build_codec

DRUM_ROW = NUM_CLASSES
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


@dataclasses.dataclass(frozen=True)
class _Notes:
  """Per token: the state it speaks of, and what it begins or ends; `[batch, tokens]` each."""

  state: jax.Array
  row: jax.Array
  pitch: jax.Array
  onset: jax.Array
  starts: jax.Array
  ends: jax.Array


def frame_labels(tokens: jax.Array, spec: ModelSpec) -> tuple[FrameTargets, PitchedEvents]:
  """Returns the labels of segments, given their target tokens (int model ids `[batch, length]`, padded with 0).

  An onset is in the state of the frame nearest to its time. A tied note sounds from the first state on, a note that nothing
  ends up to the last. Programs that stand for no class count as their class (`instruments.slakh_class_program`).
  """
  states = spec.network.num_states(spec.segment_frames)
  notes = _read(tokens, spec)
  drum = notes.row == DRUM_ROW

  def add(mask, amount, column, columns):
    state = jnp.where(mask, notes.state, states)  # one beyond the last is dropped
    empty = jnp.zeros((states, columns), jnp.float32)
    return jax.vmap(lambda s, c: empty.at[s, c].add(amount, mode='drop'))(state, column)

  def happening(mask):
    return jnp.minimum(add(mask, 1.0, notes.pitch, NUM_PITCHES), 1.0)

  def sounding(column, columns):
    changes = add(notes.starts, 1.0, column, columns) - add(notes.ends, 1.0, column, columns)
    return jnp.clip(jnp.cumsum(changes, axis=1), 0.0, 1.0)

  kinds = notes.pitch + jnp.where(notes.ends, OFFSETS.start, ONSETS.start)
  events = PitchedEvents(notes.onset & ~drum, notes.ends, notes.state, kinds, jnp.minimum(notes.row, NUM_CLASSES - 1))
  targets = FrameTargets(
      onsets=happening(events.begins), drums=happening(notes.onset & drum), offsets=happening(notes.ends),
      pitches=sounding(notes.pitch, NUM_PITCHES), classes=sounding(notes.row, ROWS),
  )  # fmt: skip
  return targets, events


def _read(tokens, spec) -> _Notes:
  codec = build_codec(spec.vocabulary)

  def value(event):
    first, last = (regular + SPECIAL_TOKENS for regular in codec.event_type_range(event))
    return (tokens >= first) & (tokens <= last), tokens - first

  def latest(event):
    """The value of the last event of a type at or before each token, 0 where there was none."""
    first, last = (regular + SPECIAL_TOKENS for regular in codec.event_type_range(event))
    held = running_status(tokens, ((first, last),))[..., 0]
    return jnp.where(held > 0, held - first, 0)

  (is_pitch, pitch), (is_drum, drum), (is_tie, _) = value('pitch'), value('drum'), value('tie')
  after_ties = jax.lax.cummax(is_tie.astype(jnp.int32), axis=tokens.ndim - 1) > 0
  loud = latest('velocity') > 0
  # Steps are absolute, the time since the segment's start; one shift token is enough for a segment of up to 10 s.
  frames_per_step = float(spec.spectrogram.frame_rate) / codec.steps_per_second
  frame = jnp.round(latest('shift') * frames_per_step).astype(jnp.int32)
  state = jnp.clip(frame, 0, spec.segment_frames - 1) // spec.network.front_time_stride
  row = jnp.where(is_drum, DRUM_ROW, jnp.asarray(class_index(np.arange(NUM_PITCHES)))[latest('program')])
  return _Notes(
      state=state,
      row=row,
      pitch=jnp.where(is_drum, drum, jnp.clip(pitch, 0, NUM_PITCHES - 1)),
      onset=after_ties & (is_drum | (is_pitch & loud)),
      starts=is_pitch & (loud | ~after_ties),
      ends=is_pitch & after_ties & ~loud,
  )


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
  for name, found, true in (('onset', logits.onsets > 0, labels.onsets > 0), ('drum', logits.drums > 0, labels.drums > 0)):
    right = (found & true).sum()
    counts |= {f'frame_{name}_recall': (right, true.sum()), f'frame_{name}_precision': (right, found.sum())}
  right = class_logits.argmax(axis=-1) == events.classes
  for name, real in (('onset', events.begins), ('offset', events.ends)):
    counts[f'frame_{name}_class'] = ((right & real).sum(), real.sum())
  return counts
