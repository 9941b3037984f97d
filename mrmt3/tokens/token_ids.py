"""The model ids of each kind of token, taken from the codec."""

from typing import NamedTuple

from mrmt3.event_codec import Codec
from mrmt3.special_tokens import SPECIAL_TOKENS

_EVENT_TYPES = ('shift', 'velocity', 'program', 'tie', 'pitch', 'drum')

Range = tuple[int, int]


class TokenIds(NamedTuple):
  """Model ids, (first, last), of each kind of token.

  The first four kinds set the event state: an event happens at the last time, with the last velocity and program, and
  before the tie token it is part of the tie section. The other two complete an event.
  """

  time: Range
  velocity: Range
  program: Range
  tie: Range
  pitch: Range
  drum: Range

  @property
  def state(self) -> tuple[Range, Range, Range, Range]:
    """The kinds that set the event state."""
    return self[:4]

  @property
  def event_ends(self) -> tuple[Range, Range]:
    """The kinds that complete an event."""
    return self[4:]


def token_ids(codec: Codec) -> TokenIds:
  """Return the ids of a codec's tokens, the special tokens counted in."""
  return TokenIds(*(tuple(index + SPECIAL_TOKENS for index in codec.event_type_range(name)) for name in _EVENT_TYPES))
