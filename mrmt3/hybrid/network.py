"""The hybrid network: MR-MT3's Transformer with a frame-level encoder, note candidates and an event state."""

import jax
import jax.numpy as jnp

from mrmt3.framewise.encoder import HarmonicEncoder
from mrmt3.framewise.network import frame_logits
from mrmt3.framewise.note_heads import FrameHead, FrameTargets
from mrmt3.hybrid.candidate_frames import CandidateNoteHeads
from mrmt3.hybrid.decoder import EventStateDecoder
from mrmt3.layers import make_attention_mask
from mrmt3.network import Encoder, Transformer
from mrmt3.tokens.token_ids import TokenIds


class LinearEncoder(Encoder):
  """MT3's encoder, with the interface of `HarmonicEncoder`."""

  def finish(self, x: jax.Array, positions: jax.Array) -> jax.Array:
    """Return the output, the position table added if the config asks for it."""
    return x + positions if self.config.output_positions else x

  def with_pitches(self, inputs: jax.Array, mask: jax.Array | None = None, deterministic: bool = False):
    """Return (encoder frames, None): a linear front end has no pitch features."""
    return self(inputs, mask, deterministic), None


class HybridTransformer(Transformer):
  """Encoder, note heads, memory and decoder.

  Attributes:
    tokens: the model ids of the vocabulary's tokens.
    with_frame_head: add the heads that only training has; `frame_head`, and `note_reader` if there are no candidates.
  """

  tokens: TokenIds | None = None
  with_frame_head: bool = False

  def setup(self):
    """Declare the parts."""
    super().setup()
    if self.with_frame_head or self.config.num_candidates:
      self.note_reader = CandidateNoteHeads(self.config.emb_dim)  # the name that checkpoints have
    if self.with_frame_head:
      self.frame_head = FrameHead()

  def make_encoder(self) -> Encoder:
    """Return the encoder that the config's front end asks for."""
    encoder = HarmonicEncoder if self.config.front == 'harmonic' else LinearEncoder
    return encoder(self.config, self.remat)

  def make_decoder(self) -> EventStateDecoder:
    """Return the decoder."""
    return EventStateDecoder(self.config, self.remat, self.tokens)

  def encode(
    self,
    encoder_input_tokens: jax.Array,
    encoder_segment_ids: jax.Array | None = None,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
  ) -> jax.Array:
    """Encode a segment, its note candidates and the memory; arguments as in `Transformer.encode`.

    Returns:
      `[batch, encoder frames + num_candidates + memory_segments * memory_length, emb]`.
    """
    return self._encode(encoder_input_tokens, encoder_segment_ids, enable_dropout, prior_tokens)[0]

  def _encode(self, inputs, segment_ids, enable_dropout, prior_tokens):
    """Return what `encode` does, the encoder frames and the pitch features."""
    mask = None if segment_ids is None else make_attention_mask(segment_ids, segment_ids, jnp.equal)
    frames, pitches = self.encoder.with_pitches(inputs, mask, not enable_dropout)
    encoded = frames
    if self.config.num_candidates:
      if segment_ids is not None:
        raise ValueError('examples cannot be packed where each has note candidates; leave encoder_segment_ids out')
      candidates = self.note_reader.candidates(frames, self.config.num_candidates, pitches)
      further = self.note_reader.as_frames(frames, candidates, pitches)
      encoded = jnp.concatenate([encoded, further.astype(encoded.dtype)], axis=1)
    return self.append_memory(encoded, segment_ids, prior_tokens), frames, pitches

  def decode(
    self,
    encoded: jax.Array,
    encoder_input_tokens: jax.Array | None,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array | None = None,
    encoder_segment_ids: jax.Array | None = None,
    decoder_segment_ids: jax.Array | None = None,
    *args,
    **kwargs,
  ) -> jax.Array:
    """Return logits, as `Transformer.decode`. Raises ValueError for packed examples where there is an event state."""
    if self.config.event_state and decoder_segment_ids is not None:
      raise ValueError('examples cannot be packed where each has an event state; leave decoder_segment_ids out')
    return super().decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      *args,
      **kwargs,
    )

  def __call__(
    self,
    encoder_input_tokens: jax.Array,
    decoder_input_tokens: jax.Array,
    decoder_target_tokens: jax.Array,
    *args,
    **kwargs,
  ) -> jax.Array:
    """Return logits, float32 `[batch, length, vocab]`; arguments as in `Transformer`."""
    logits = super().__call__(encoder_input_tokens, decoder_input_tokens, decoder_target_tokens, *args, **kwargs)
    if self.with_frame_head and self.is_initializing():
      # What a pass does not use has to be called once to get its parameters.
      nothing = jnp.zeros_like(decoder_input_tokens)
      self.encode_with_frame_logits(
        encoder_input_tokens, nothing, nothing, False, prior_tokens=kwargs.get('prior_tokens')
      )
    return logits

  def encode_with_frame_logits(
    self,
    encoder_input_tokens: jax.Array,
    event_frames: jax.Array,
    event_kinds: jax.Array,
    enable_dropout: bool = True,
    *,
    prior_tokens: jax.Array | None = None,
  ) -> tuple[jax.Array, FrameTargets, jax.Array]:
    """Encode a segment and predict frame-level notes and event classes; see `FramewiseTransformer`'s."""
    encoded, frames, pitches = self._encode(encoder_input_tokens, None, enable_dropout, prior_tokens)
    return encoded, *frame_logits(self.note_reader, self.frame_head, frames, pitches, event_frames, event_kinds)
