"""Configuration of the hybrid: MR-MT3 with a frame-level encoder and note candidates."""

import dataclasses
from typing import ClassVar

from mrmt3.errors import UserError
from mrmt3.framewise.config import check_channels, check_mel_range
from mrmt3.network import T5Config
from mrmt3.nn.config_checks import check_choice, check_flag, check_sizes
from mrmt3.tokens.token_ids import TokenIds

FRONTS = LINEAR, HARMONIC = 'linear', 'harmonic'


@dataclasses.dataclass(frozen=True)
class HybridConfig(T5Config):
  """MR-MT3's fields, and what the frame-level model adds to them.

  Attributes:
    front: 'linear' (as in MT3: an encoder frame is a map of one log-mel frame) or 'harmonic' (`HarmonicStacking`).
    front_channels: widths of the harmonic front end, see `HarmonicStacking`.
    time_stride: log-mel frames that the harmonic front end makes one encoder frame of.
    output_positions: add the position table to the encoder's output as well. Cross-attention can then distinguish
      frames by their time from the first step on, which otherwise takes most of a short training to learn.
    num_candidates: how many of the likeliest onsets and offsets the decoder sees as further encoder frames; 0: none.
    event_state: add to each decoder input embeddings of the last time, velocity, program and tie token up to there. A
      decoder otherwise has to learn to look them up before it can learn anything that depends on them.
    last_event: add, through a map, the embeddings of the last complete event as well. With candidates, which carry what
      comes before them, it finds what comes next.
  """

  kind: ClassVar[str] = 'hybrid'
  has_frame_heads: ClassVar[bool] = True

  front: str = HARMONIC
  front_channels: tuple[int, int, int, int] = (12, 48, 32, 64)
  time_stride: int = 2
  output_positions: bool = True
  num_candidates: int = 192
  event_state: bool = True
  last_event: bool = True

  def __post_init__(self):
    super().__post_init__()
    check_choice(self, 'front', FRONTS)
    check_sizes(self, ('time_stride',))
    check_sizes(self, ('num_candidates',), least=0)
    check_channels(self)
    for name in ('output_positions', 'event_state', 'last_event'):
      check_flag(self, name)
    if self.last_event and not self.event_state:
      raise UserError('network: last_event is True; it needs event_state')
    if self.time_stride > 1 and self.front == LINEAR:
      raise UserError(f'network: time_stride is {self.time_stride}; that needs front {HARMONIC!r}')

  def module(self, tokens: TokenIds, *, remat: bool = False, with_frame_head: bool = False):
    """Return the network; `with_frame_head` adds the heads that only training has."""
    from mrmt3.hybrid.network import HybridTransformer

    return HybridTransformer(self, remat, tokens, with_frame_head)

  def step_decoder(self, tokens: TokenIds, max_length: int):
    """Return the cached decoder, which follows the event state."""
    from mrmt3.hybrid.decoder import EventStateCachedDecoder

    return EventStateCachedDecoder(self, max_length, tokens)

  def num_encoder_frames(self, frames: int) -> int:
    """Return how many encoder frames come of that many log-mel frames, candidates and memory not counted."""
    return -(-frames // self.time_stride)

  def num_context_frames(self, frames: int) -> int:
    """Return how many frames the decoder attends to besides the memory: encoder frames and note candidates."""
    return self.num_encoder_frames(frames) + self.num_candidates

  def validate(self, spec) -> None:
    """Raise UserError if the log-mels are not those that the front end reads."""
    super().validate(spec)
    if self.front == HARMONIC:
      check_mel_range(spec)

  def initialize(self, params, spec):
    """Return fresh parameters in which candidates and tokens have the same embeddings."""
    from mrmt3.hybrid.initialization import init_from_token_embeddings

    return init_from_token_embeddings(params, spec) if self.num_candidates else params
