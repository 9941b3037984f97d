"""The model of whole pieces: its segments are done one after the other, the memory goes along as a scan's carry.

t5x's evaluation and inference carry nothing from one example to the next, so what shares a memory has to be one example.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mrmt3 import decoding
from mrmt3.engine import losses
from mrmt3.errors import UserError
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.network import Transformer
from mrmt3.segment_tokens import empty_segment
from mrmt3.vocabularies import build_codec


class PieceEncoderDecoderModel(MemoryEncoderDecoderModel):
  """Evaluates what MemoryEncoderDecoderModel has trained; same arguments, same parameters.

  Batches are those of `piece_features.PieceFeatureConverter` with a leading batch axis. Decoding is greedy, as
  `inference.Transcriber`'s.

  Args:
    spec: network, front end and vocabulary.
    segments: see PieceFeatureConverter.
    **kwargs: as MemoryEncoderDecoderModel's.
  """

  def __init__(self, spec, segments: int | None = None, **kwargs):
    super().__init__(spec, **kwargs)
    self._segments = segments

  @property
  def FEATURE_CONVERTER_CLS(self):
    """The seqio feature converter's class, its length bound."""
    from mrmt3.piece_features import PieceFeatureConverter

    return functools.partial(PieceFeatureConverter, segments=self._segments)

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """Returns fresh variables; of the shapes only the last dimensions count, which every segment has."""
    del input_shapes, input_types
    spec = self.spec
    inputs = jnp.zeros((1, spec.segment_frames, spec.spectrogram.num_mel_bins))
    tokens = jnp.zeros((1, spec.targets_length), jnp.int32)
    return self.module.init({'params': rng}, inputs, tokens, tokens, enable_dropout=False, prior_tokens=self._empty(1))

  def predict_batch(self, params, batch, rng=None, decoder_params=None, **kwargs) -> jax.Array:
    """Returns int32 `[batch, segments, length]`: tokens, EOS, padding (0) of every segment; padded segments are 0.

    Pure: nothing is kept between calls. `rng`, `decoder_params` and further arguments are t5x's, for decoders that draw.
    """
    del rng, decoder_params, kwargs
    length = self.spec.targets_length
    max_length = length - (self.spec.prior_layout == 'start_token')
    inputs = jnp.moveaxis(batch['encoder_input_tokens'], 1, 0)
    active = jnp.arange(len(inputs))[:, None] < batch['num_segments'][:, 0]

    def segment(prior, part):
      mel, is_real = part
      encoded = self._encode(params, mel, prior)
      tokens = decoding.greedy_decode(params, self.spec.network, encoded, max_length, is_real)
      latest = jnp.pad(tokens, ((0, 0), (length - max_length, 0)))
      return jnp.concatenate([prior[:, length:], latest], axis=1), tokens

    tokens = jax.lax.scan(segment, self._empty(inputs.shape[1]), (inputs, active))[1]
    return jnp.moveaxis(tokens, 0, 1)

  def predict_batch_with_aux(self, params, batch, rng=None, decoder_params=None, **kwargs):
    """Returns (what predict_batch does, {'scores': float32 `[batch]`, the log-probability of all tokens of a piece})."""
    tokens = self.predict_batch(params, batch, rng, decoder_params, **kwargs)
    more = batch['decoder_target_tokens'].shape[-1] - tokens.shape[-1]
    said = jnp.pad(tokens, ((0, 0), (0, 0), (0, max(0, more))))
    return tokens, {'scores': self._score(params, batch['encoder_input_tokens'], said, said > 0)}

  def score_batch(self, params, batch, return_intermediates: bool = False) -> jax.Array:
    """Returns the log-probability of each piece's targets, float32 `[batch]`; the memory is that of the targets."""
    if return_intermediates:
      raise UserError('score_batch returns no intermediates; leave return_intermediates at False')
    return self._score(
        params, batch['encoder_input_tokens'], batch['decoder_target_tokens'], batch['decoder_loss_weights'] > 0
    )

  def _score(self, params, inputs, targets, weights):
    by_segment = [jnp.moveaxis(x, 1, 0) for x in (inputs, targets, weights)]

    def segment(prior, part):
      mel, tokens, counted = part
      shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
      encoded = self._encode(params, mel, prior)
      logits = self.module.apply(
          {'params': params}, encoded, None, shifted, tokens, enable_dropout=False, method=Transformer.decode
      )
      loss, _ = losses.cross_entropy_with_logits(logits, tokens)
      return jnp.concatenate([prior[:, self.spec.targets_length :], self._fit(tokens)], axis=1), -(loss * counted).sum(axis=-1)

    return jax.lax.scan(segment, self._empty(inputs.shape[0]), tuple(by_segment))[1].sum(axis=0)

  def _fit(self, tokens):
    # Prior tokens are targets_length long, whatever the length of the targets.
    length = self.spec.targets_length
    return jnp.pad(tokens, ((0, 0), (0, max(0, length - tokens.shape[1]))))[:, :length]

  def _encode(self, params, mel, prior):
    prior = prior if self.spec.network.memory_length else None
    return self.module.apply({'params': params}, mel, prior_tokens=prior, enable_dropout=False, method=Transformer.encode)

  def _empty(self, rows: int) -> jax.Array:
    """Returns the prior tokens of the first segments, `[rows, memory_segments * targets_length]`."""
    empty = empty_segment(build_codec(self.spec.vocabulary))
    padded = np.pad(np.asarray(empty, np.int32), (0, self.spec.targets_length - len(empty)))
    return jnp.tile(padded, (rows, self.spec.network.memory_segments))
