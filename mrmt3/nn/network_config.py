"""What training, decoding and checkpoints ask of a network's configuration, whichever network it is.

A model is a package with a frozen dataclass derived from `NetworkConfig`, and a line in `mrmt3.model_registry`. Nothing
else in mrmt3 knows which networks there are.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import NUM_CLASSES

if TYPE_CHECKING:
  from flax import linen as nn

  from mrmt3.tokens.token_ids import TokenIds


class NetworkConfig(abc.ABC):
  """Configuration of a network; subclasses are frozen dataclasses with at least a field `vocab_size`.

  Attributes:
    kind: the name in `mrmt3.model_registry`, written to model.json.
    training_only: top-level parameter groups that a network has in training alone. Checkpoints that have them can be
      restored by a network that does not.
    optional_parts: top-level parameter groups that not every network has, so that a run may call them fresh without
      knowing.
    has_frame_heads: whether `module` takes `with_frame_head` and its network predicts frame-level labels, which
      `framewise.objective.FrameObjective` trains.
    has_decoder: whether a decoder with parameters predicts the tokens.
    supports_context: whether `encode` takes `context_frames`, see `decoding.options.DecodingConfig`, and `allowed`, the
      tokens that may be emitted, bool `[vocab]`.
  """

  kind: ClassVar[str]
  training_only: ClassVar[tuple[str, ...]] = ('frame_head', 'note_reader')  # of the frame loss, whatever it trained
  optional_parts: ClassVar[tuple[str, ...]] = ('decoder', 'memory_encoder', 'frame_head', 'note_reader')
  has_frame_heads: ClassVar[bool] = False
  has_decoder: ClassVar[bool] = True
  supports_context: ClassVar[bool] = False

  @abc.abstractmethod
  def module(self, tokens: TokenIds, *, remat: bool = False) -> nn.Module:
    """Return the network.

    It is called as MT3's `Transformer` (`network.Transformer.__call__`), and has its methods `encode` and `decode`.

    Args:
      tokens: the model ids of the vocabulary's tokens.
      remat: compute the inside of each layer again for the gradient instead of keeping it.
    """

  @abc.abstractmethod
  def step_decoder(self, tokens: TokenIds, max_length: int) -> Any:
    """Return a `decoding.step_decoder.StepDecoder` for sequences of up to `max_length` tokens."""

  def context_decoder(self, tokens: TokenIds, max_length: int) -> Any:
    """Return what decodes segments with context (`supports_context`); by default the `step_decoder`."""
    return self.step_decoder(tokens, max_length)

  @property
  def uses_prior(self) -> bool:
    """Whether a segment is encoded with the tokens of prior segments."""
    return False

  @property
  def num_prior_segments(self) -> int:
    """How many prior segments `prior_tokens` holds."""
    return 1

  @property
  def num_memory_frames(self) -> int:
    """How many of the frames that `encode` returns come from prior tokens; they are the last ones."""
    return 0

  @property
  def min_prior_length(self) -> int:
    """The least number of prior tokens that the network takes."""
    return 1

  def num_encoder_frames(self, frames: int) -> int:
    """Return how many encoder frames come of that many log-mel frames."""
    return frames

  def num_context_frames(self, frames: int) -> int:
    """Return how many frames the decoder attends to besides the memory, for that many log-mel frames."""
    return self.num_encoder_frames(frames)

  def validate(self, spec: Any) -> None:  # noqa: B027  most networks fit every model
    """Check the network against the rest of the model, a `config.ModelSpec`; UserError naming what does not fit."""

  def initialize(self, params: Mapping, spec: Any) -> Mapping:
    """Return fresh parameters with the start values that depend on the vocabulary; by default as they are."""
    return params

  def encoder_context(self, memory: Any) -> dict[str, Any]:
    """Return the arguments of `encode` that come from prior segments, an `inference.memory.Memory`; none by default."""
    return {'prior_tokens': memory.tokens} if self.uses_prior else {}

  @property
  def counts_classes(self) -> bool:
    """Whether `class_counts` counts, or returns zeros."""
    return False

  def class_counts(self, tokens: Any, ids: TokenIds) -> Any:
    """Return how many notes of each Slakh class begin in segments `[rows, length]`, int32 `[rows, NUM_CLASSES]`.

    Zeros for networks that do not count, which is the default.
    """
    return np.zeros((len(tokens), NUM_CLASSES), np.int32)

  def describe(self) -> str:
    """Return a line about sizes, for people."""
    return f'{self.kind} network'

  def describe_memory(self) -> str:
    """Return a few words about what the network remembers, for people."""
    return 'memory of prior tokens' if self.uses_prior else 'no memory'

  def check_format(self, path: Any) -> None:
    """Raise UserError if the network cannot be written in the published PyTorch format."""
    raise UserError(f'{path}: a network of kind {self.kind!r} has no PyTorch format; write one of our own layouts')
