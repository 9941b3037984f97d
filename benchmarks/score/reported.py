"""The pieces that figures are reported for: drawn at random from the reported part of the split, by quota."""

import zlib

import numpy as np

from pieces import Piece

METRES = {(4, 4): 32, (3, 4): 14, (2, 4): 13, (6, 8): 13}  # numbers of pieces
MAX_MELODIES, MAX_OF_FOLDER = 18, 30  # single melodies; pieces of one folder of the corpus
MIN_NOTES_PER_SECOND = 1.0


def choose(pieces: list[Piece], seed: int, metres: dict[tuple[int, int], int] = METRES) -> list[Piece]:
  """Draw pieces by quotas of metres; at least a third of all is in a minor key, and a third has a pick-up."""
  order = sorted(pieces, key=lambda piece: zlib.crc32(f'{seed}{piece.name}'.encode()))
  total = sum(metres.values())
  chosen: list[Piece] = []

  def count(test):
    return sum(test(piece) for piece in chosen)

  def folder(piece):
    return piece.name.split('/')[0 if piece.name.startswith('mma') else 1]

  def fits(piece):
    metre = (piece.numerator, piece.denominator)
    return (
      count(lambda other: (other.numerator, other.denominator) == metre) < metres.get(metre, 0)
      and count(lambda other: folder(other) == folder(piece)) < MAX_OF_FOLDER
      and (not piece.is_monophonic or count(lambda other: other.is_monophonic) < MAX_MELODIES)
    )

  # Minor keys and pick-ups are rare with some metres, so they are drawn first.
  wanted = (
    (lambda piece: piece.key is not None and piece.key[1] and piece.denominator == 8, total // 12),
    (lambda piece: piece.key is not None and piece.key[1], -(-total // 3) - 1),
    (lambda piece: not piece.is_monophonic and piece.denominator == 8, total // 8),
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
