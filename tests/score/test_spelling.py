"""Spelling by key."""

import pytest

from mrmt3.score.key import Key
from mrmt3.score.spelling import spell


@pytest.mark.parametrize(
  ('pitch', 'sharps', 'is_minor', 'expected'),
  [
    (60, 0, False, ('C', 0, 4)),
    (66, 0, False, ('F', 1, 4)),
    (70, 0, False, ('B', -1, 4)),
    (68, 0, True, ('G', 1, 4)),
    (63, 0, True, ('D', 1, 4)),
    (63, 0, False, ('E', -1, 4)),
    (71, -5, False, ('C', -1, 5)),
    (70, -5, False, ('B', -1, 4)),
    (59, 6, False, ('B', 0, 3)),
    (60, 6, False, ('B', 1, 3)),
    (71, -6, True, ('C', -1, 5)),
  ],
)
def test_spell(pitch, sharps, is_minor, expected):
  assert spell(pitch, sharps, is_minor) == expected


def test_every_spelling_sounds_as_it_should():
  natural = dict(zip('CDEFGAB', (0, 2, 4, 5, 7, 9, 11), strict=True))
  for sharps in range(-7, 8):
    for is_minor in (False, True):
      for pitch in range(128):
        step, alteration, octave = spell(pitch, sharps, is_minor)
        assert natural[step] + alteration + 12 * (octave + 1) == pitch
        assert abs(alteration) <= 2


def test_key_names_and_signatures():
  assert (str(Key(9, True)), Key(9, True).sharps) == ('A minor', 0)
  assert (str(Key(6, True)), Key(6, True).sharps) == ('F# minor', 3)
  assert (str(Key(3, False)), Key(3, False).sharps) == ('Eb major', -3)
  assert (str(Key(6, False)), Key(6, False).sharps) == ('F# major', 6)
