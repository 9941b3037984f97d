"""Codec between events and token ids, with a contiguous range of ids for each event type (as in MT3).

These are "regular" ids, from 0; `vocabularies` shifts them to model ids.
"""

import dataclasses
import functools
from collections.abc import Sequence

SHIFT = 'shift'


@dataclasses.dataclass(frozen=True)
class EventRange:
  """The events of one type, with values from `min_value` to `max_value` (inclusive)."""

  type: str
  min_value: int
  max_value: int


@dataclasses.dataclass(frozen=True)
class Event:
  """An event: a type of the codec, and a value in the type's range."""

  type: str
  value: int


class Codec:
  """Maps events to ids: time shifts first, then the event ranges in the given order.

  Attributes:
    steps_per_second: time resolution of the tokens.
    max_shift_steps: longest time shift of a single event, in steps.
    num_classes: number of regular ids.
  """

  def __init__(self, max_shift_steps: int, steps_per_second: float, event_ranges: Sequence[EventRange]):
    """Assign the ids; ValueError if a type has two ranges (`shift` always has one) or a range is empty."""
    self.steps_per_second = steps_per_second
    ranges = (EventRange(SHIFT, 0, max_shift_steps), *event_ranges)
    types = [r.type for r in ranges]
    if len(set(types)) != len(types):
      raise ValueError(f'each event type can have one range only, got {types}')
    if any(r.max_value < r.min_value for r in ranges):
      raise ValueError(f'an event range must not be empty, got {ranges}')
    self._ranges = {r.type: r for r in ranges}
    self._first_ids, first_id = {}, 0
    for r in ranges:
      self._first_ids[r.type] = first_id
      first_id += r.max_value - r.min_value + 1
    self.num_classes = first_id

  @property
  def max_shift_steps(self) -> int:
    """The longest time shift of a single event, in steps."""
    return self._ranges[SHIFT].max_value

  @property
  def event_ranges(self) -> tuple[EventRange, ...]:
    """All event ranges in the order of their ids, starting with time shifts."""
    return tuple(self._ranges.values())

  @functools.cached_property
  def events(self) -> tuple[Event, ...]:
    """The event of every id: `events[id]`."""
    return tuple(Event(r.type, value) for r in self.event_ranges for value in range(r.min_value, r.max_value + 1))

  def has_type(self, event_type: str) -> bool:
    """Return whether the codec has the event type."""
    return event_type in self._ranges

  def encode_event(self, event: Event) -> int:
    """Return the id of an event; ValueError if the type is unknown or the value is out of range."""
    event_range = self._range(event.type)
    if not event_range.min_value <= event.value <= event_range.max_value:
      raise ValueError(f'{event} is not within {event_range.min_value}..{event_range.max_value}')
    return self._first_ids[event.type] + event.value - event_range.min_value

  def decode_event_index(self, index: int) -> Event:
    """Return the event of an id; ValueError if the id is out of range."""
    if not 0 <= index < self.num_classes:
      raise ValueError(f'no event has the id {index}: ids are 0..{self.num_classes - 1}')
    return self.events[index]

  def event_type_range(self, event_type: str) -> tuple[int, int]:
    """Return the (first, last) id of an event type; ValueError if the type is unknown."""
    event_range = self._range(event_type)
    first_id = self._first_ids[event_type]
    return first_id, first_id + event_range.max_value - event_range.min_value

  def is_shift_event_index(self, index: int) -> bool:
    """Return whether an id, or each id of an array, is a time shift; the id of a shift is its number of steps."""
    return (index >= 0) & (index <= self.max_shift_steps)

  def _range(self, event_type: str) -> EventRange:
    try:
      return self._ranges[event_type]
    except KeyError:
      raise ValueError(f'unknown event type {event_type!r}: the codec has {list(self._ranges)}') from None

  def _key(self):
    return self.steps_per_second, self.event_ranges

  def __eq__(self, other):
    return isinstance(other, Codec) and self._key() == other._key()

  def __hash__(self):
    return hash(self._key())
