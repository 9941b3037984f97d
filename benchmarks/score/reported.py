"""The pieces that figures are reported for: drawn at random from the reported part of the split, by quota."""

import zlib

import numpy as np
from pieces import Piece

METRES = {(4, 4): 32, (3, 4): 14, (2, 4): 14, (6, 8): 14}  # numbers of pieces
SHARES = {'bach': 20, 'tunes': 26, 'grooves': 8}  # the most of each family; the others are as many as there are
TUNES = ('ryansMammoth', 'essenFolksong', 'oneills1850')
# Editors have set these bars: the music was written without.
EXCLUDED = ('trecento', 'monteverdi')


def family(piece: Piece) -> str:
  """Return 'bach', 'tunes', 'grooves' or 'others'."""
  collection, folder = piece.name.split('/')[:2]
  if collection == 'mma':
    return 'grooves'
  return 'tunes' if folder in TUNES else 'bach' if folder == 'bach' else 'others'


def choose(pieces: list[Piece], seed: int, metres: dict[tuple[int, int], int] = METRES) -> list[Piece]:
  """Draw pieces by quotas of metres and families; at least a third is in a minor key, and a third has a pick-up."""
  order = sorted(pieces, key=lambda piece: zlib.crc32(f'{seed}{piece.name}'.encode()))
  order = [piece for piece in order if piece.name.split('/')[1] not in EXCLUDED]
  total = sum(metres.values())
  chosen: list[Piece] = []

  def count(test):
    return sum(test(piece) for piece in chosen)

  def fits(piece):
    metre, own = (piece.numerator, piece.denominator), family(piece)
    return count(lambda other: (other.numerator, other.denominator) == metre) < metres.get(metre, 0) and count(
      lambda other: family(other) == own
    ) < SHARES.get(own, total)

  def is_minor(piece):
    return piece.key is not None and piece.key[1]

  # What is rare is drawn first.
  wanted = (
    (lambda piece: family(piece) == 'others', total),
    (lambda piece: family(piece) == 'grooves' and piece.numerator == 4, 5),
    (lambda piece: is_minor(piece) and piece.denominator == 8, total // 12),
    (is_minor, -(-total // 3)),
    (lambda piece: piece.key is not None and piece.pickup > 0, total // 2),
    (lambda piece: piece.key is not None, total * 3 // 4),
    (lambda piece: not piece.is_monophonic, total),
    (lambda piece: True, total),
  )
  for test, number in wanted:
    for piece in order:
      if test(piece) and piece not in chosen and count(test) < number and fits(piece):
        chosen.append(piece)
  return chosen


def seeds(piece: Piece) -> np.random.Generator:
  """Return the random generator of a piece's performance."""
  return np.random.default_rng(zlib.crc32(piece.name.encode()))
