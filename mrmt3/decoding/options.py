"""Options of decoding, part of a model's specification."""

import dataclasses
from typing import TYPE_CHECKING

from mrmt3.errors import UserError

if TYPE_CHECKING:
  from mrmt3.decoding.logits_processors import LogitsProcessor
  from mrmt3.tokens.token_ids import TokenIds


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
  """How tokens are chosen. The defaults decode as the published models do.

  Attributes:
    no_repeated_events: never emit an event twice in a segment: the same pitch or drum at the same time, with the same
      velocity and program. Small networks decoded greedily repeat themselves (docs/method.md).

  Raises:
    UserError: a value is out of range.
  """

  no_repeated_events: bool = False

  def __post_init__(self):
    if not isinstance(self.no_repeated_events, bool):
      raise UserError(f'decoding: no_repeated_events is {self.no_repeated_events!r}; it must be True or False')

  def logits_processors(self, ids: 'TokenIds') -> 'tuple[LogitsProcessor, ...]':
    """Return the logits processors for `greedy.greedy_decode`; `ids` are those of the vocabulary's tokens."""
    from mrmt3.decoding.logits_processors import NoRepeatedEvents

    return (NoRepeatedEvents(ids),) if self.no_repeated_events else ()
