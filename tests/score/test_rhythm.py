"""Note values: how spans of a bar are split, and where beams and triplets are."""

import itertools

import pytest

from mrmt3.score.rhythm import Metre, Symbol, beams, symbols, triplet_beats

COMMON, COMPOUND = Metre(192, 48), Metre(144, 72)


def split(begin, end, metre=COMMON, is_rest=False, thirds=frozenset()):
  return [(one.start, one.type + '.' * one.dots) for one in symbols(begin, end, metre, thirds, is_rest)]


@pytest.mark.parametrize(
  ('begin', 'end', 'metre', 'is_rest', 'expected'),
  [
    (0, 192, COMMON, False, [(0, 'whole')]),
    (0, 144, COMMON, False, [(0, 'half.')]),
    (24, 72, COMMON, False, [(24, 'quarter')]),  # a syncopation
    (24, 72, COMMON, True, [(24, 'eighth'), (48, 'eighth')]),
    (12, 60, COMMON, False, [(12, 'eighth.'), (48, '16th')]),
    (72, 120, COMMON, False, [(72, 'eighth'), (96, 'eighth')]),  # the middle of the bar shows
    (0, 180, COMMON, False, [(0, 'half'), (96, 'quarter'), (144, 'eighth.')]),
    (0, 144, COMPOUND, False, [(0, 'half.')]),
    (24, 96, COMPOUND, False, [(24, 'quarter'), (72, 'eighth')]),
    (24, 72, COMPOUND, True, [(24, 'eighth'), (48, 'eighth')]),
  ],
)
def test_splits(begin, end, metre, is_rest, expected):
  assert split(begin, end, metre, is_rest) == expected


def test_a_span_is_covered_whatever_it_is():
  for metre in (COMMON, COMPOUND, Metre(48, 48, 144)):
    for begin in range(0, metre.length, 3):
      for end in range(begin + 3, metre.length + 1, 3):
        for is_rest in (False, True):
          found = symbols(begin, end, metre, frozenset(), is_rest)
          assert found[0].start == begin and found[-1].end == end
          assert all(one.end == following.start for one, following in itertools.pairwise(found))


def test_triplets():
  thirds = triplet_beats([0, 16, 48, 96, 112], 0)
  assert thirds == {0, 96}
  found = symbols(16, 96, COMMON, thirds, False)
  assert [(one.start, one.length, one.type, one.in_triplet) for one in found] == [
    (16, 32, 'quarter', True),
    (48, 48, 'quarter', False),
  ]


def test_beams_join_a_beat_and_half_a_bar_of_eighths():
  eighths = [(Symbol(24 * index, 24, 'eighth'), False) for index in range(4)]
  assert beams(eighths, COMMON) == [['begin'], ['continue'], ['continue'], ['end']]
  mixed = [(Symbol(0, 24, 'eighth'), False), (Symbol(24, 12, '16th'), False), (Symbol(36, 12, '16th'), False)]
  assert beams(mixed, COMMON) == [['begin'], ['continue', 'begin'], ['end', 'end']]
  dotted = [(Symbol(0, 36, 'eighth', 1), False), (Symbol(36, 12, '16th'), False)]
  assert beams(dotted, COMMON) == [['begin'], ['end', 'backward hook']]
  with_rest = [(Symbol(0, 24, 'eighth'), True), (Symbol(24, 24, 'eighth'), False)]
  assert beams(with_rest, COMMON) == [[], []]
