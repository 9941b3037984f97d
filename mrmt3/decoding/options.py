"""Options of decoding, part of a model's specification."""

import dataclasses
from typing import TYPE_CHECKING

from mrmt3.errors import UserError

if TYPE_CHECKING:
  from mrmt3.decoding.logits_processors import LogitsProcessor
  from mrmt3.tokens.token_ids import TokenIds


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
  """How audio is cut into segments, and how tokens are chosen. The defaults decode as the published models do.

  Attributes:
    no_repeated_events: never emit an event twice in a segment: the same pitch or drum at the same time, with the same
      velocity and program. Small networks decoded greedily repeat themselves (docs/method.md).
    context_frames: log-mel frames before and after a segment that the encoder gets as well. The network's input keeps
      its length, `ModelSpec.segment_frames`, so segments are shorter (`ModelSpec.step_frames`), and nothing begins or
      ends at the edge of what the encoder gets. In front of a piece is silence. Inference only.
    normalize_level: amplify recordings that are quieter than the training data, and attenuate louder ones
      (`audio.level`). Inference only.

  Raises:
    UserError: a value is out of range.
  """

  no_repeated_events: bool = False
  context_frames: int = 0
  normalize_level: bool = False

  def __post_init__(self):
    for name in ('no_repeated_events', 'normalize_level'):
      if not isinstance(getattr(self, name), bool):
        raise UserError(f'decoding: {name} is {getattr(self, name)!r}; it must be True or False')
    frames = self.context_frames
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 0:
      raise UserError(f'decoding: context_frames is {frames!r}; it must be a whole number of at least 0')

  def logits_processors(self, ids: 'TokenIds') -> 'tuple[LogitsProcessor, ...]':
    """Return the logits processors for `greedy.greedy_decode`; `ids` are those of the vocabulary's tokens."""
    from mrmt3.decoding.logits_processors import NoRepeatedEvents

    return (NoRepeatedEvents(ids),) if self.no_repeated_events else ()
