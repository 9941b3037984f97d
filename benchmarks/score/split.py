"""The split of the pieces: training, tuning, and reported ones, by work and tune."""

import zlib
from pathlib import Path

from pieces import Piece, read_pieces

from mrmt3.dataset_builder import groups, sources

REPORTED, TUNING = 0.3, 0.12  # shares of the groups


def split_pieces(pieces: list[Piece]) -> dict[str, list[Piece]]:
  """Return the pieces of 'training', 'tuning' and 'reported'; a tune or work is in one of them only."""
  works = [_work(piece.name) for piece in pieces]
  numbers = groups.group_scores([piece.score for piece in pieces], works)
  first = {}
  parts = {'training': [], 'tuning': [], 'reported': []}
  for piece, number in zip(pieces, numbers, strict=True):
    share = zlib.crc32(first.setdefault(number, piece.name).encode()) / 2**32
    parts['reported' if share < REPORTED else 'tuning' if share < REPORTED + TUNING else 'training'].append(piece)
  return parts


def training_pieces(cache: Path, grooves: int, every_tune: int) -> list[Piece]:
  """Return the training pieces, and more tunes that no tuning or reported piece has.

  Args:
    cache: folder for parsed pieces.
    grooves: see `read_pieces`.
    every_tune: one in so many tunes is taken; a divisor of the usual number.
  """
  pieces = read_pieces(cache, grooves=grooves)
  parts = split_pieces(pieces)
  known = {piece.name for piece in pieces}
  more = [piece for piece in read_pieces(cache, every_tune=every_tune, grooves=0) if piece.name not in known]
  others = [*parts['tuning'], *parts['reported']]
  numbers = groups.group_scores([piece.score for piece in [*others, *more]], [piece.name for piece in [*others, *more]])
  taken = set(numbers[: len(others)])
  fresh = [piece for piece, number in zip(more, numbers[len(others) :], strict=True) if number not in taken]
  return [*parts['training'], *fresh]


def _work(name):
  if name.count('/') > 2 and name.split('/')[2].endswith('.abc'):
    return name
  return sources.work_of(name)
