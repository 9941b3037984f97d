"""The frame-level network: an encoder, note heads, and note candidates from which tokens are written.

It is called as MT3's `Transformer`, so training, evaluation and inference treat it alike: `encode` returns note
candidates as rows, `decode` the logits that follow from them. There is no decoder to train.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mrmt3.framewise import token_decoder
from mrmt3.framewise.candidates import restrict_classes, weigh_candidates
from mrmt3.framewise.note_heads import DRUMS, OFFSETS, ONSETS, FrameHead, FrameTargets, NoteHeads
from mrmt3.notes.instruments import CLASS_PROGRAMS
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.token_ids import TokenIds


def frame_logits(
  heads: NoteHeads, frame_head: FrameHead, frames, pitches, event_frames, event_kinds
) -> tuple[FrameTargets, jax.Array]:
  """Return the logits that the frame loss trains.

  Args:
    heads: the note heads.
    frame_head: the head that only training has.
    frames: encoder frames `[batch, frames, emb]`.
    pitches: pitch features, or None, see `NoteHeads`.
    event_frames: int `[batch, n]`, the frames of some events.
    event_kinds: int `[batch, n]`, which of `note_heads.KINDS` each is.

  Returns:
    (logits of every frame, class logits of the events `[batch, n, NUM_CLASSES]`).
  """
  events, sounding = heads(frames, pitches)
  classes = frame_head(frames)
  event_classes = heads.class_of(heads.event_features(frames, pitches, event_frames, event_kinds))
  logits = FrameTargets(events[..., ONSETS], events[..., DRUMS], events[..., OFFSETS], sounding, classes)
  return logits, event_classes


def border_events(prior_tokens, ids: TokenIds, steps: int, adjacent=None) -> jax.Array:
  """Return which events may not begin a segment, since the segment before has them already.

  An event between two segments may be detected in the last frame of the one and in the first frame of the other, or
  each time in the other one's context. So a segment with context also takes the events of the frame before its first
  one, unless the prior segment has the same event at most one frame away.

  Args:
    prior_tokens: int `[batch, prior]`, of the prior segment.
    ids: the ids of the tokens.
    steps: encoder frames of a segment without its context.
    adjacent: bool `[batch]`, where the prior segment is the one right before; elsewhere all events of the frame before
      the first one are the other segment's. None: everywhere.

  Returns:
    bool `[batch, 2, KINDS]`, of the frame before the first one, and of the first one.
  """
  known = jnp.ones(len(prior_tokens), bool) if adjacent is None else adjacent
  near, last = (
    batched_parsing.late_events(prior_tokens, ids, steps - back).reshape(len(prior_tokens), -1) for back in (2, 1)
  )
  return jnp.stack([near | ~known[:, None], last & known[:, None]], axis=1)


class FramewiseTransformer(nn.Module):
  """The network.

  Attributes:
    config: a `config.FramewiseConfig`.
    tokens: the model ids of the vocabulary's tokens.
    remat: compute the inside of each layer again for the gradient instead of keeping it.
    with_frame_head: add the head `frame_head` that only training has.
  """

  config: Any
  tokens: TokenIds
  remat: bool = False
  with_frame_head: bool = False

  def setup(self):
    """Declare the parts."""
    self.encoder = self.config.encoder(self.remat)
    self.note_reader = NoteHeads(self.config.emb_dim)  # the name that checkpoints have
    if self.with_frame_head:
      self.frame_head = FrameHead()

  def encode(
    self,
    encoder_input_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
    class_counts: jax.Array | None = None,
    adjacent: jax.Array | None = None,
    context_frames: int = 0,
    allowed: jax.Array | None = None,
  ) -> jax.Array:
    """Encode a segment and return its note candidates, those that continue from the prior segment first.

    Args:
      encoder_input_tokens: float log-mel frames `[batch, frames, mel]`.
      encoder_segment_ids: None; examples cannot be packed.
      enable_dropout: whether to drop (needs the `dropout` random stream).
      prior_tokens: int model ids `[batch, prior]` of the prior segment, padded with 0.
      class_counts: int `[batch, NUM_CLASSES]`, how many notes of each class began in all segments before; None: in the
        prior segment.
      adjacent: bool `[batch]`, whether the prior segment is the one right before, so that what sounds at its end, and
        nothing else, may continue; None: it is.
      context_frames: log-mel frames at both ends that are the segment's context: what happens there belongs to the
        segments around it. Static.
      allowed: bool `[vocab]`: notes of a class whose program is not allowed become notes of the likeliest class that
        is; None: all classes are allowed.

    Returns:
      float32 `[batch, MAX_TIES + num_candidates, WIDTH]`, of `token_decoder.as_rows`.

    Raises:
      ValueError: prior tokens are missing, or examples are packed.
    """
    return self._encode(
      encoder_input_tokens,
      encoder_segment_ids,
      enable_dropout,
      prior_tokens,
      class_counts,
      adjacent,
      context_frames,
      allowed,
    )[0]

  def _encode(
    self,
    inputs,
    segment_ids,
    enable_dropout,
    prior_tokens,
    class_counts=None,
    adjacent=None,
    context_frames=0,
    allowed=None,
  ):
    """Return what `encode` does, the encoder frames and the pitch features."""
    if segment_ids is not None:
      raise ValueError('examples cannot be packed where each has note candidates; leave encoder_segment_ids out')
    if prior_tokens is None:
      raise ValueError('a framewise network needs prior tokens, if only those of an empty segment')
    frames, pitches = self.encoder.with_pitches(inputs, None, not enable_dropout)
    config = self.config
    context = context_frames // config.time_stride
    taken = border_events(prior_tokens, self.tokens, frames.shape[1] - 2 * context, adjacent) if context else None
    events = self.note_reader.candidates(frames, config.num_candidates, pitches, context, taken)
    if allowed is not None:
      allowed = allowed[self.tokens.program[0] + CLASS_PROGRAMS]
      events = restrict_classes(events, allowed)
    if config.instrument_prior:
      if class_counts is None:
        class_counts = batched_parsing.onset_counts(prior_tokens, self.tokens)
      events = weigh_candidates(events, class_counts, config.instrument_prior, config.emission_threshold)
    ties = self.note_reader.ties(frames, pitches, batched_parsing.held(prior_tokens, self.tokens), adjacent, context)
    if allowed is not None:
      ties = restrict_classes(ties, allowed)
    rows = jnp.concatenate([token_decoder.as_rows(ties), token_decoder.as_rows(events)], axis=1)
    return rows, frames, pitches

  def decode(
    self,
    encoded: jax.Array,
    encoder_input_tokens: jax.Array | None,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array | None = None,
    encoder_segment_ids: jax.Array | None = None,
    decoder_segment_ids: jax.Array | None = None,
    decoder_positions: jax.Array | None = None,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
  ) -> jax.Array:
    """Return logits, float32 `[batch, length, vocab]`, for rows of note candidates and input tokens `[batch, length]`.

    With `decode`, one position at a time: the first call makes the collection `cache`, further ones use it, and a
    candidate is emitted if `emission_threshold` lets it. The other arguments are MT3's, and unused.
    """
    tokens, ids = decoder_input_tokens, self.tokens
    if not decode:
      return token_decoder.sequence_logits(ids, encoded, tokens, self.config.vocab_size)
    decoder = token_decoder.CandidateDecoder(self.config, ids)
    names = ('state', 'emitted')
    if not self.has_variable('cache', 'state'):
      fresh = decoder.init_cache(None, encoded, tokens.shape[1])
      for name in names:
        self.put_variable('cache', name, fresh[name])
      return jnp.zeros((*tokens.shape, self.config.vocab_size), jnp.float32)
    cache = decoder.init_cache(None, encoded, tokens.shape[1])
    cache |= {name: self.get_variable('cache', name) for name in names}
    logits, cache = decoder.step(None, tokens[:, 0], None, cache)
    for name in names:
      self.put_variable('cache', name, cache[name])
    return logits[:, None]

  def __call__(
    self,
    encoder_input_tokens: jax.Array,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    decoder_segment_ids: jax.Array | None = None,
    encoder_positions: jax.Array | None = None,
    decoder_positions: jax.Array | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
    prior_tokens: jax.Array | None = None,
  ) -> jax.Array:
    """Return logits, float32 `[batch, length, vocab]`; arguments as in `encode` and `decode`."""
    encoded, frames, pitches = self._encode(encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens)
    if self.is_initializing():
      # What a pass does not use has to be called once to get its parameters.
      nothing = jnp.zeros_like(decoder_input_tokens)
      if self.with_frame_head:
        frame_logits(self.note_reader, self.frame_head, frames, pitches, nothing, nothing)
    return self.decode(encoded, None, decoder_input_tokens, decoder_target_tokens, decode=decode)

  def encode_with_frame_logits(
    self,
    encoder_input_tokens: jax.Array,
    event_frames: jax.Array,
    event_kinds: jax.Array,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
  ) -> tuple[jax.Array, FrameTargets, jax.Array]:
    """Encode a segment and predict frame-level notes and event classes; see `losses`.

    Args:
      encoder_input_tokens: as in `encode`, like enable_dropout and prior_tokens.
      event_frames: int `[batch, n]`, the frames of some events.
      event_kinds: int `[batch, n]`, which of `note_heads.KINDS` each is.
      enable_dropout: see encoder_input_tokens.
      prior_tokens: see encoder_input_tokens.

    Returns:
      (what `encode` returns, logits of every frame, class logits of the events `[batch, n, NUM_CLASSES]`).
    """
    encoded, frames, pitches = self._encode(encoder_input_tokens, None, enable_dropout, prior_tokens)
    return encoded, *frame_logits(self.note_reader, self.frame_head, frames, pitches, event_frames, event_kinds)
