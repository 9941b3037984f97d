"""Note values: notes and rests of a bar as symbols that musicians read, with ties, triplets and beams."""

import dataclasses
import itertools

from mrmt3.score.quantize import UNITS

TYPES = {192: 'whole', 96: 'half', 48: 'quarter', 24: 'eighth', 12: '16th', 6: '32nd', 3: '64th'}
FLAGS = {'eighth': 1, '16th': 2, '32nd': 3, '64th': 4}
_SMALLEST = min(TYPES)


@dataclasses.dataclass(frozen=True)
class Metre:
  """The metre of a bar, in units.

  Attributes:
    length: of the bar.
    beat: length of a beat, dotted in compound metres.
    offset: how far into a whole bar it begins: more than 0 for a pick-up.
  """

  length: int
  beat: int
  offset: int = 0

  def strength(self, position: int) -> int:
    """Return how strong a position (from the start of this bar) is: 4 for a bar line, 2 a beat, 0 a 16th."""
    place = position + self.offset
    whole = self.length + self.offset
    if place % whole == 0:
      return 4
    if whole == 4 * self.beat and place % (2 * self.beat) == 0:
      return 3
    if place % self.beat == 0:
      return 2
    half = self.beat // (3 if self.beat == 72 else 2)
    return 1 if place % half == 0 else 0 if place % 12 == 0 else -1 if place % 6 == 0 else -2

  def boundaries(self, begin: int, end: int) -> list[int]:
    """Return the beats strictly inside a span, else its halves of beats, else multiples of a 64th note."""
    for step in (self.beat, self.beat // (3 if self.beat == 72 else 2), 12, 6, 3):
      first = -(-(begin + 1 + self.offset) // step) * step - self.offset
      inside = list(range(first, end, step))
      if inside:
        return inside
    return []


@dataclasses.dataclass(frozen=True)
class Symbol:
  """A note value in a bar.

  Attributes:
    start: units from the start of the bar.
    length: units that it lasts.
    type: its name in MusicXML, such as 'quarter'.
    dots: number of dots.
    in_triplet: whether three of it take the time of two.
  """

  start: int
  length: int
  type: str
  dots: int = 0
  in_triplet: bool = False

  @property
  def end(self) -> int:
    """Units from the start of the bar to its end."""
    return self.start + self.length


def symbols(begin: int, end: int, metre: Metre, triplet_beats: frozenset[int], is_rest: bool) -> list[Symbol]:
  """Split a span of a bar into symbols; notes are tied from one to the next.

  Args:
    begin: units from the start of the bar.
    end: units from the start of the bar, at most its length.
    metre: of the bar.
    triplet_beats: where the beats (quarters) with triplets begin, units from the start of the bar.
    is_rest: rests show the beats more strictly.
  """
  cuts = {begin, end}
  for beat in triplet_beats:
    whole = begin <= beat and beat + UNITS <= end and not is_rest
    if not whole:  # a note that fills the beat needs no triplet
      cuts |= {edge for edge in (beat, beat + UNITS) if begin < edge < end}
  edges = sorted(cuts)
  found = []
  for first, last in itertools.pairwise(edges):
    beat = next((beat for beat in triplet_beats if beat <= first and last <= beat + UNITS), None)
    if beat is not None and not (first == beat and last == beat + UNITS):
      found += _triplet_symbols(first, last)
    else:
      found += _split(first, last, metre, is_rest)
  return found


def _triplet_symbols(begin, end):
  found = []
  while begin < end:
    room = (end - begin) * 3 // 2
    for value in sorted([*TYPES, *(value * 3 // 2 for value in TYPES if value % 2 == 0)], reverse=True):
      dotted = value not in TYPES
      if value <= room and value * 2 % 3 == 0:
        break
    else:
      raise ValueError(f'{end - begin} units are no triplet')
    length = value * 2 // 3
    found.append(Symbol(begin, length, TYPES[value * 2 // 3 if dotted else value], int(dotted), True))
    begin += length
  return found


def _split(begin, end, metre, is_rest):
  if (symbol := _as_one(begin, end, metre, is_rest)) is not None:
    return [symbol]
  inside = metre.boundaries(begin, end)
  strongest = max(inside, key=metre.strength)
  return [*_split(begin, strongest, metre, is_rest), *_split(strongest, end, metre, is_rest)]


def _as_one(begin, end, metre, is_rest):
  """Return a span as one symbol, or None if it has to be split."""
  length = end - begin
  dots = 0
  if length in TYPES:
    kind = TYPES[length]
  elif length * 2 % 3 == 0 and length * 2 // 3 in TYPES:
    kind, dots = TYPES[length * 2 // 3], 1
  else:
    return None
  symbol = Symbol(begin, length, kind, dots)
  inside = metre.boundaries(begin, end)
  if not inside:
    return symbol
  crossed = max(metre.strength(place) for place in inside)
  starts, ends = metre.strength(begin), metre.strength(end)
  if is_rest:
    fits = crossed < starts or (length == metre.length and metre.offset == 0)
    return symbol if fits and (not dots or metre.beat == 72 or length < metre.beat) else None
  if crossed <= starts or (crossed <= ends and length <= 2 * metre.beat):
    return symbol
  is_syncopation = not dots and length == metre.beat == UNITS and crossed < 3 and starts == 1
  across_middle = length == 2 * metre.beat and starts == 2 and metre.beat == UNITS and not dots
  return symbol if is_syncopation or across_middle else None


def triplet_beats(edges: list[int], offset: int) -> frozenset[int]:
  """Return the starts of the beats (quarters) of a bar in which some edge is on no 64th note.

  Args:
    edges: starts and ends of notes, units from the start of the bar.
    offset: see `Metre`; beats are counted from the start of a whole bar.
  """
  return frozenset((edge + offset) // UNITS * UNITS - offset for edge in edges if edge % _SMALLEST)


def beams(spans: list[tuple[Symbol, bool]], metre: Metre) -> list[list[str]]:
  """Return the beams of each symbol of a voice in a bar, from the eighth's beam on.

  Args:
    spans: (symbol, whether it is a rest), in order.
    metre: of the bar.
  """
  out = [[] for _ in spans]
  group: list[int] = []

  def finish():
    if len(group) > 1:
      for index, names in zip(group, _levels([FLAGS[spans[one][0].type] for one in group]), strict=True):
        out[index] = names
    group.clear()

  window = _beam_windows(spans, metre)
  for index, (symbol, is_rest) in enumerate(spans):
    if is_rest or symbol.type not in FLAGS:
      finish()
      continue
    if group:
      last = spans[group[-1]][0]
      if last.end != symbol.start or window(last.start) != window(symbol.start):
        finish()
    group.append(index)
  finish()
  return out


def _beam_windows(spans, metre):
  """Return a function from a position to its beam group: a beat, or half a 4/4 bar of nothing but eighths."""
  double = 2 * metre.beat
  whole = metre.length + metre.offset
  if metre.beat != UNITS or whole % double:
    return lambda start: (start + metre.offset) // metre.beat
  mixed = {
    (symbol.start + metre.offset) // double
    for symbol, is_rest in spans
    if is_rest or symbol.type != 'eighth' or symbol.dots or symbol.in_triplet
  }

  def window(start):
    half = (start + metre.offset) // double
    return (half, (start + metre.offset) // metre.beat if half in mixed else -1)

  return window


def _levels(flags):
  """Return the beam names of each symbol of a group with these numbers of flags."""
  out = [[] for _ in flags]
  for level in range(1, max(flags) + 1):
    for index, count in enumerate(flags):
      if count < level:
        continue
      before = index > 0 and flags[index - 1] >= level
      after = index + 1 < len(flags) and flags[index + 1] >= level
      if before or after:
        name = 'continue' if before and after else 'end' if before else 'begin'
      else:
        name = 'forward hook' if index == 0 else 'backward hook'
      out[index].append(name)
  return out
