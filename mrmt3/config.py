"""What a checkpoint has to know besides its weights: network, front end, vocabulary, segment sizes and decoding."""

from __future__ import annotations

import dataclasses
import functools

from mrmt3.decoding.options import DecodingConfig
from mrmt3.errors import UserError, first_line
from mrmt3.nn.network_config import NetworkConfig
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens.token_ids import TokenIds, token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec, num_embeddings

PRIOR_LAYOUTS = ('targets', 'start_token')
_MAX_LENGTH = 1 << 20  # frames or tokens of a segment
PARTS = {
  'network': NetworkConfig,
  'spectrogram': SpectrogramConfig,
  'vocabulary': VocabularyConfig,
  'decoding': DecodingConfig,
}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
  """A model without its weights. Raises UserError for parts that do not fit each other.

  Attributes:
    network: sizes and kind of the network.
    spectrogram: the front end.
    vocabulary: the tokens.
    segment_frames: log-mel frames of a segment, the network's input length.
    targets_length: most tokens of a segment, EOS included, and the length to which prior tokens are padded.
    prior_layout: how the model's own output becomes prior tokens: 'targets' as in training ([t1, ..., EOS, 0, ...]), or
      'start_token' with the start token in front ([0, t1, ..., EOS, 0, ...]), as in MR-MT3's published inference.
    ties: whether a segment's tokens begin with a tie section, the notes that sound on from before; not in MT3's piano
      model.
    decoding: how tokens are chosen.
  """

  network: NetworkConfig
  spectrogram: SpectrogramConfig = dataclasses.field(default_factory=SpectrogramConfig)
  vocabulary: VocabularyConfig = dataclasses.field(default_factory=lambda: VocabularyConfig(num_velocity_bins=1))
  segment_frames: int = 256
  targets_length: int = 1024
  prior_layout: str = 'targets'
  ties: bool = True
  decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)

  def __post_init__(self):
    for name, part in PARTS.items():
      if not isinstance(getattr(self, name), part):
        raise UserError(f'model: {name} is {getattr(self, name)!r}; it must be a {part.__name__}')
    for name in ('segment_frames', 'targets_length'):
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= _MAX_LENGTH:
        raise UserError(f'model: {name} is {value!r:.80}; it must be a whole number in 2 .. {_MAX_LENGTH:,}')
    if self.prior_layout not in PRIOR_LAYOUTS:
      raise UserError(f'model: prior_layout is {self.prior_layout!r:.80}; it must be one of {", ".join(PRIOR_LAYOUTS)}')
    if self.network.uses_prior and not self.ties:
      raise UserError('model: a network with a memory needs ties, an empty prior segment being a tie and the end')
    try:
      needed = num_embeddings(self.codec)
    except (TypeError, ValueError, OverflowError) as error:
      raise UserError(f'model: {first_line(error)}') from error
    context = self.decoding.context_frames
    if context and not (self.network.supports_context and 2 * context < self.segment_frames):
      raise UserError(
        f'model: decoding.context_frames is {context}; it must be 0 for a {self.network.kind} network of '
        f'{self.segment_frames} frames'
      )
    if self.network.vocab_size < needed:
      raise UserError(f'model: network.vocab_size is {self.network.vocab_size}; the vocabulary needs {needed}')
    self.network.validate(self)

  @property
  def step_frames(self) -> int:
    """Log-mel frames from one segment to the next in inference: `segment_frames` without the context on both sides."""
    return self.segment_frames - 2 * self.decoding.context_frames

  @property
  def codec(self):
    """The codec of the vocabulary."""
    return build_codec(self.vocabulary)

  @property
  def token_ids(self) -> TokenIds:
    """The model ids of the vocabulary's tokens."""
    return _token_ids(self.vocabulary)

  def module(self, **options):
    """Return the network; options as in `NetworkConfig.module`."""
    return self.network.module(self.token_ids, **options)

  def step_decoder(self, max_length: int):
    """Return what decodes one position at a time, for up to `max_length` tokens."""
    return self.network.step_decoder(self.token_ids, max_length)

  def context_decoder(self, max_length: int):
    """Return the same for segments with context, if `decoding` has any."""
    if not self.decoding.context_frames:
      return self.step_decoder(max_length)
    return self.network.context_decoder(self.token_ids, max_length)

  def parameter_shapes(self, **options) -> dict:
    """Return the network's parameter tree with a `jax.ShapeDtypeStruct` for each array; options as in `module`."""
    from mrmt3.nn.parameters import parameter_shapes

    return parameter_shapes(self.network, self.token_ids, self.spectrogram.num_mel_bins, **options)


@functools.lru_cache(maxsize=16)
def _token_ids(vocabulary: VocabularyConfig) -> TokenIds:
  return token_ids(build_codec(vocabulary))
