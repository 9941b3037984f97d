"""Configuration of the frame-level model."""

import dataclasses
from typing import Any, ClassVar

from mrmt3.errors import UserError
from mrmt3.framewise.harmonic_stacking import MEL_RANGE
from mrmt3.network import KINDS
from mrmt3.nn.config_checks import check_activations, check_choice, check_dtype, check_flag, check_rate, check_sizes
from mrmt3.nn.network_config import NetworkConfig
from mrmt3.tokens import batched_parsing
from mrmt3.tokens.token_ids import TokenIds

_SIZES = (
  'vocab_size',
  'emb_dim',
  'num_heads',
  'num_encoder_layers',
  'head_dim',
  'mlp_dim',
  'time_stride',
  'num_candidates',
)


@dataclasses.dataclass(frozen=True)
class FramewiseConfig(NetworkConfig):
  """Everything that determines the frame-level network's parameters and arithmetic.

  The encoder's layers are MT3's, and so are the fields that they share with `network.T5Config`. There is no decoder: an
  encoder frame is a time step of the vocabulary, and the tokens are written from the note candidates of the frames.
  Train it with `ExampleConfig.rounded_order`, the order in which candidates come.

  Attributes:
    vocab_size: number of token ids.
    dtype: dtype of the activations, kept as its name; parameters are float32.
    emb_dim: width of the encoder frames.
    num_heads: attention heads.
    num_encoder_layers: layers of the encoder.
    head_dim: width of a head.
    mlp_dim: hidden width of the MLPs.
    mlp_activations: activations whose product is the MLP's hidden layer; names in flax.linen, or 'linear'.
    dropout_rate: probability of dropping, in training.
    positions: 'mt3' or 'mr_mt3', the position table.
    initializers: 'mt3' or 'mr_mt3', the distributions of fresh parameters.
    dropout_masks: 'mt3' (one mask for all positions, but after the encoder's norm) or 'mr_mt3' (element-wise).
    front_channels: widths of the harmonic stacking, see `harmonic_stacking.HarmonicStacking`.
    time_stride: log-mel frames that become one encoder frame.
    output_positions: add the position table to the encoder's output as well.
    num_candidates: note candidates per segment, the likeliest ones; more than all but the densest segments have events.
    emission_threshold: the probability from which a candidate is emitted, 0.01 .. 1; 0: emit the likeliest token, which
      for the best F1 is too cautious.
    instrument_prior: exponent of the instruments' shares so far, by which class probabilities are weighted
      (`candidates.weigh_classes`): 1 as in Bayes' rule, 0: none.

  Raises:
    UserError: a value is out of range; the message names the field.
  """

  kind: ClassVar[str] = 'framewise'
  has_frame_heads: ClassVar[bool] = True
  has_decoder: ClassVar[bool] = False
  supports_context: ClassVar[bool] = True

  vocab_size: int
  dtype: Any = 'float32'
  emb_dim: int = 192
  num_heads: int = 4
  num_encoder_layers: int = 6
  head_dim: int = 48
  mlp_dim: int = 384
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.0
  positions: str = 'mt3'
  initializers: str = 'mt3'
  dropout_masks: str = 'mt3'
  front_channels: tuple[int, int, int, int] = (12, 48, 32, 64)
  time_stride: int = 2
  output_positions: bool = True
  num_candidates: int = 192
  emission_threshold: float = 0.25
  instrument_prior: float = 1.0

  def __post_init__(self):
    check_dtype(self)
    check_sizes(self, _SIZES)
    for name in ('positions', 'initializers', 'dropout_masks'):
      check_choice(self, name, KINDS)
    if self.emb_dim % 2 or self.emb_dim < 4:
      raise UserError(f'network: emb_dim is {self.emb_dim}; positions need an even number of at least 4')
    check_rate(self, 'dropout_rate')
    check_activations(self)
    check_channels(self)
    check_flag(self, 'output_positions')
    threshold, strength = self.emission_threshold, self.instrument_prior
    if (
      isinstance(threshold, bool)
      or not isinstance(threshold, (int, float))
      or not (threshold == 0 or 0.01 <= threshold < 1)
    ):
      raise UserError(f'network: emission_threshold is {threshold!r}; it must be 0, or lie in 0.01 .. 1')
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 10:
      raise UserError(f'network: instrument_prior is {strength!r}; it must lie in 0 .. 10')

  def module(self, tokens: TokenIds, *, remat: bool = False, with_frame_head: bool = False):
    """Return the network; `with_frame_head` adds the head that only training has."""
    from mrmt3.framewise.network import FramewiseTransformer

    return FramewiseTransformer(self, tokens, remat, with_frame_head)

  def encoder(self, remat: bool = False):
    """Return the encoder, a module with `HarmonicEncoder`'s method `with_pitches`."""
    from mrmt3.framewise.encoder import HarmonicEncoder

    return HarmonicEncoder(self, remat)

  def step_decoder(self, tokens: TokenIds, max_length: int):
    """Return what writes tokens from note candidates."""
    from mrmt3.framewise.token_decoder import CandidateDecoder

    return CandidateDecoder(self, tokens)

  def context_decoder(self, tokens: TokenIds, max_length: int):
    """Return what writes tokens from note candidates and pairs offsets with the notes that sound."""
    from mrmt3.framewise.token_decoder import CandidateDecoder

    return CandidateDecoder(self, tokens, pair_offsets=True)

  @property
  def uses_prior(self) -> bool:
    """Always: notes that continue and the instruments so far are read from prior tokens."""
    return True

  def num_encoder_frames(self, frames: int) -> int:
    """Return how many encoder frames come of that many log-mel frames."""
    return -(-frames // self.time_stride)

  def validate(self, spec) -> None:
    """Raise UserError unless encoder frames are time steps and log-mels are those that the front end reads."""
    self.check_inputs(spec)
    if spec.decoding.context_frames % self.time_stride:
      raise UserError(
        f'model: decoding.context_frames is {spec.decoding.context_frames}; it must be a multiple of time_stride, '
        f'{self.time_stride}'
      )
    rate = spec.spectrogram.frame_rate / self.time_stride
    if rate != spec.vocabulary.steps_per_second:
      raise UserError(
        f'model: a framewise network needs one encoder frame per time step; there are {float(rate):g} frames and '
        f'{spec.vocabulary.steps_per_second} steps per second'
      )

  def check_inputs(self, spec) -> None:
    """Raise UserError unless the spectrogram is the one that the front end reads."""
    check_mel_range(spec)

  def encoder_context(self, memory) -> dict:
    """Return the prior tokens, the notes per class so far, and whether the prior segment is the adjacent one."""
    return {'prior_tokens': memory.tokens, 'class_counts': memory.class_counts, 'adjacent': memory.adjacent}

  @property
  def counts_classes(self) -> bool:
    """Whether the instrument prior needs counts."""
    return self.instrument_prior > 0

  def class_counts(self, tokens, ids: TokenIds):
    """Return how many notes of each Slakh class begin in segments; zeros without an instrument prior."""
    if not self.counts_classes:
      return super().class_counts(tokens, ids)
    return batched_parsing.onset_counts(tokens, ids)

  def describe(self) -> str:
    """Return a line about sizes."""
    return (
      f'{self.num_encoder_layers} layers and no decoder, width {self.emb_dim}, '
      f'{self.num_heads} heads of {self.head_dim}; positions {self.positions}'
    )

  def describe_memory(self) -> str:
    """Return a few words about what is remembered."""
    return f'instrument prior {self.instrument_prior:g}'

  def replace(self, **changes) -> 'FramewiseConfig':
    """Return a copy with some fields changed."""
    return dataclasses.replace(self, **changes)


def check_channels(config) -> None:
  """Check the field `front_channels` and make it a tuple."""
  channels = config.front_channels
  whole = isinstance(channels, (list, tuple)) and all(isinstance(n, int) and 0 < n <= 4096 for n in channels)
  if not whole or len(channels) != 4:
    raise UserError(f'network: front_channels are {channels!r:.80}; give four whole numbers in 1 .. 4096')
  object.__setattr__(config, 'front_channels', tuple(channels))


def check_mel_range(spec) -> None:
  """Raise UserError unless a model's log-mels are those that the harmonic stacking reads."""
  front = spec.spectrogram
  if (front.mel_lo_hz, front.mel_hi_hz, front.scaling) != (*MEL_RANGE, 'none'):
    low, high = MEL_RANGE
    raise UserError(
      f'model: the harmonic front end reads log-mels of {low} to {high} Hz that are not scaled; these are of '
      f'{front.mel_lo_hz} to {front.mel_hi_hz} Hz, scaling {front.scaling!r}'
    )
