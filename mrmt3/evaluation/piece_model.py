"""A model of whole pieces: a scan over the segments, with the memory as its carry.

t5x's evaluation and inference carry no state from one example to the next, so a piece has to be one example.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from mrmt3 import spectrograms
from mrmt3.data.example_config import LOG_MEL_ON
from mrmt3.decoding import greedy
from mrmt3.engine import losses
from mrmt3.errors import UserError
from mrmt3.evaluation.piece_transcriber import MEMORY_MODES
from mrmt3.inference import memory
from mrmt3.models import MemoryEncoderDecoderModel


class PieceEncoderDecoderModel(MemoryEncoderDecoderModel):
  """Trains as MemoryEncoderDecoderModel, and evaluates whole pieces; same arguments, same parameters.

  Batches of pieces are those of `feature_converters.PieceFeatureConverter` with a leading batch axis. Decoding is
  greedy, as in `inference.Transcriber`.

  Args:
    spec: network, front end and vocabulary.
    segments: see PieceFeatureConverter.
    memory: the memory of a segment in decoding. 'predicted': the model's own tokens of the previous segment, as in
      inference. 'truth': the targets of the previous segment, as in training; the difference is the exposure bias.
      'none': every segment is decoded as if it were the first one.
    **kwargs: as MemoryEncoderDecoderModel's.

  Raises:
    UserError: for values out of range.
  """

  def __init__(self, spec, segments: int | None = None, memory: str = 'predicted', **kwargs):
    super().__init__(spec, **kwargs)
    self._set_evaluation(segments, memory, self._log_mel_on)

  def _set_evaluation(self, segments: int | None, memory: str, log_mel_on: str) -> None:
    if memory not in MEMORY_MODES:
      raise UserError(f'PieceEncoderDecoderModel.memory is {memory!r}; it is one of {", ".join(MEMORY_MODES)}')
    if log_mel_on not in LOG_MEL_ON:
      raise UserError(f'evaluating_pieces: log_mel_on is {log_mel_on!r}; it is one of {", ".join(LOG_MEL_ON)}')
    self._segments, self._memory, self._pieces_log_mel_on = segments, memory, log_mel_on

  @property
  def FEATURE_CONVERTER_CLS(self):
    """The seqio feature converter's class, its length bound."""
    from mrmt3.data.feature_converters import PieceOrSegmentFeatureConverter

    segment_converter_cls = super().FEATURE_CONVERTER_CLS
    return functools.partial(PieceOrSegmentFeatureConverter, segment_converter_cls, segments=self._segments)

  def get_initial_variables(self, rng, input_shapes, input_types=None):
    """Return fresh variables; of the shapes only the last dimensions count, which every segment has."""
    del input_shapes, input_types
    spec = self.spec
    inputs = jnp.zeros((1, spec.segment_frames, spec.spectrogram.num_mel_bins))
    tokens = jnp.zeros((1, spec.targets_length), jnp.int32)
    prior = {'prior_tokens': memory.empty(spec, 1).tokens} if spec.network.uses_prior else {}
    fresh = self.module.init({'params': rng}, inputs, tokens, tokens, enable_dropout=False, **prior)
    return self.initialized(fresh)

  def predict_batch(self, params, batch, rng=None, decoder_params=None, **kwargs) -> jax.Array:
    """Return int32 `[batch, segments, length]`: tokens, EOS, padding (0) of every segment; padded segments are 0.

    This is a pure function. `rng`, `decoder_params` and further arguments are those of t5x, and are ignored.
    """
    del rng, decoder_params, kwargs
    max_length = self.spec.targets_length - (self.spec.prior_layout == 'start_token')
    inputs, frames, targets = self._by_segment(batch)
    active = jnp.arange(len(inputs))[:, None] < batch['num_segments'][:, 0]

    def segment(remembered, part):
      inputs, frames, targets, is_real = part
      encoded = self._encode(params, inputs, frames, remembered)
      tokens = greedy.decode_encoded(params, encoded, self.spec, max_length, is_real)
      if self._memory == 'none':
        return remembered, tokens
      if self._memory == 'truth':
        return self._after_truth(remembered, targets), tokens
      return memory.after(remembered, tokens, self.spec), tokens

    tokens = jax.lax.scan(segment, memory.empty(self.spec, inputs.shape[1]), (inputs, frames, targets, active))[1]
    return jnp.moveaxis(tokens, 0, 1)

  def predict_batch_with_aux(self, params, batch, rng=None, decoder_params=None, **kwargs):
    """Return (tokens of `predict_batch`, {'scores': float32 `[batch]`, the log-probability of a piece's tokens})."""
    tokens = self.predict_batch(params, batch, rng, decoder_params, **kwargs)
    more = batch['decoder_target_tokens'].shape[-1] - tokens.shape[-1]
    padded = jnp.pad(tokens, ((0, 0), (0, 0), (0, max(0, more))))
    return tokens, {'scores': self._score(params, {**batch, 'decoder_target_tokens': padded}, padded > 0)}

  def score_batch(self, params, batch, return_intermediates: bool = False) -> jax.Array:
    """Return the log-probability of each piece's targets, float32 `[batch]`; the memory is that of the targets."""
    if return_intermediates:
      raise UserError('score_batch returns no intermediates; leave return_intermediates at False')
    return self._score(params, batch, batch['decoder_loss_weights'] > 0)

  def _by_segment(self, batch):
    """Return inputs, frames that are there, and targets, the segments in front."""
    inputs = batch['encoder_input_tokens']
    frames = batch.get('encoder_input_frames')
    frames = jnp.full(inputs.shape[:2], inputs.shape[2]) if frames is None else frames
    return [jnp.moveaxis(x, 1, 0) for x in (inputs, frames, batch['decoder_target_tokens'])]

  def _score(self, params, batch, weights):
    by_segment = [*self._by_segment(batch), jnp.moveaxis(weights, 1, 0)]

    def segment(remembered, part):
      inputs, frames, tokens, counted = part
      shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
      encoded = self._encode(params, inputs, frames, remembered)
      logits = self.module.apply(
        {'params': params}, encoded, None, shifted, tokens, enable_dropout=False, method=self.module.decode
      )
      loss, _ = losses.cross_entropy_with_logits(logits, tokens)
      log_p = -(loss * counted).sum(axis=-1)
      return self._after_truth(remembered, tokens), log_p

    return jax.lax.scan(segment, memory.empty(self.spec, len(weights)), tuple(by_segment))[1].sum(axis=0)

  def _after_truth(self, remembered, targets):
    """Return the memory after a segment's targets `[rows, length]`, which are laid out as in training."""
    return memory.after(remembered, targets, dataclasses.replace(self.spec, prior_layout='targets'))

  def _encode(self, params, inputs, frames, remembered):
    mel = inputs
    if self._pieces_log_mel_on == 'device':
      mel = spectrograms.log_mel(spectrograms.flatten_frames(inputs), self.spec.spectrogram)
      mel = spectrograms.clear_invalid_frames(mel, frames)
    context = self.spec.network.encoder_context(remembered)
    return self.module.apply({'params': params}, mel, enable_dropout=False, method=self.module.encode, **context)


def evaluating_pieces(
  model: MemoryEncoderDecoderModel, segments: int | None = None, memory: str = 'predicted', log_mel_on: str = 'device'
) -> PieceEncoderDecoderModel:
  """Return a model that trains as the given one and evaluates whole pieces, for gin files that extend a training run.

  Args:
    model: a MemoryEncoderDecoderModel with all that is bound to it.
    segments: see PieceEncoderDecoderModel.
    memory: see PieceEncoderDecoderModel.
    log_mel_on: as in MemoryEncoderDecoderModel, for pieces; seqio's evaluator reads each piece several times, and
      samples are smaller than log-mels.

  Raises:
    UserError: it is a model of another class, or a value is out of range.
  """
  if type(model) not in (MemoryEncoderDecoderModel, PieceEncoderDecoderModel):
    raise UserError(f'evaluating_pieces: model is a {type(model).__name__}; it must be a MemoryEncoderDecoderModel')
  made = PieceEncoderDecoderModel.__new__(PieceEncoderDecoderModel)
  vars(made).update(vars(model))
  made._set_evaluation(segments, memory, log_mel_on)
  return made
