"""The split of the pieces: training, tuning, and reported ones, by work and tune."""

import zlib

from pieces import Piece

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


def _work(name):
  if name.count('/') > 2 and name.split('/')[2].endswith('.abc'):
    return name
  return sources.work_of(name)
