"""Cache of parsed scores, because some take seconds to parse.

Each piece is one .npz file in the user's cache folder (see `user_cache`), named by a digest of its source. The cache
may be deleted at any time; if it cannot be written, nothing is cached.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.score import BAR_DTYPE, SCORE_NOTE_DTYPE, Score
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_path
from mrmt3.utils.user_cache import cache_root

FORMAT = 3  # raise it when a parser returns another score for the same bytes


@functools.cache
def cache_folder() -> Path | None:
  """Return the folder of cached scores; None if the user has no home folder."""
  root = cache_root()
  return None if root is None else root / 'scores'


def cached(read: Callable[[], Score], *identity: bytes | str) -> Score:
  """Return `read()`, or its cached result (or UserError) for the same identity."""
  folder = cache_folder()
  if folder is None:
    return read()
  digest = hashlib.sha256(repr((FORMAT, SCORE_NOTE_DTYPE.descr, BAR_DTYPE.descr)).encode())
  for part in identity:
    digest.update(b'\0' + (part if isinstance(part, bytes) else part.encode()))
  name = digest.hexdigest()
  path = folder / name[:2] / f'{name}.npz'
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EOFError):  # missing or broken: parse again
    return _load(path)
  try:
    score = read()
  except UserError as error:
    _save(path, error=str(error))
    raise
  _save(path, score)
  return score


def _save(path, score=None, error=''):
  about, tables = {'error': error}, {}
  if score is not None:
    about |= {'name': score.name, 'programs': score.programs, 'tempo': score.tempo, 'parts': len(score.parts)}
    tables = {f'part{index}': part for index, part in enumerate(score.parts)} | {'bars': score.bars}
    if score.drums is not None:
      tables['drums'] = score.drums
  with contextlib.suppress(UserError), atomic_path(path) as temporary:
    np.savez(temporary, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **tables)


@dataclasses.dataclass(frozen=True)
class _CachedScore:
  error: str
  name: str = ''
  programs: tuple[int, ...] = ()
  tempo: float | None = None
  parts: int = 0


def _load(path):
  try:
    with np.load(path) as file:
      stored = _CachedScore(**json.loads(file['about'].tobytes()))
      if not stored.error:
        parts = tuple(file[f'part{index}'] for index in range(stored.parts))
        drums = file.get('drums')
        return Score(stored.name, parts, file['bars'], tuple(stored.programs), drums, stored.tempo)
  except Exception as error:  # zipfile and zlib raise their own exceptions
    raise ValueError(f'{path} is not a cached score') from error
  raise UserError(stored.error)
