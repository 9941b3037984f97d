"""Where the music comes from: reads scores that were installed with a package.

A source name says which reader it belongs to and what it is there: 'music21/bach/bwv227.1.mxl' is a file of the corpus
inside the music21 package. (The corpus has mixed licences: it is read where it is installed and never copied.)
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.score import BAR_DTYPE, SCORE_NOTE_DTYPE, Score, drop_doubles, tidy_part
from mrmt3.errors import UserError

MUSIC21 = 'music21/'
# Folders of the corpus with music for several parts; the others hold melodies, songs with chord symbols and tests.
MUSIC21_FOLDERS = (
    'bach', 'beach', 'beethoven', 'corelli', 'handel', 'haydn', 'johnson_j_r', 'liliuokalani', 'lusitano', 'monteverdi',
    'mozart', 'palestrina', 'schubert', 'schumann_clara', 'schumann_robert', 'weber',
)  # fmt: skip
_SCORE_SUFFIXES = ('.mxl', '.musicxml', '.xml', '.krn')  # best first, where one piece comes in several


@functools.cache
def music21_folder() -> Path:
  """Returns the folder of music21's corpus; UserError where the package or its corpus is missing."""
  import importlib.util

  spec = importlib.util.find_spec('music21')
  folder = Path(spec.origin).parent / 'corpus' if spec else None
  if folder is None or not (folder / 'bach').is_dir():
    raise UserError("the scores to build from are missing; install them with: pip install 'music21>=9'")
  return folder


def list_music21() -> list[str]:
  """Returns the source names of all pieces in `MUSIC21_FOLDERS`, sorted; each piece once whatever its formats."""
  root = music21_folder()
  pieces = {}
  for name in MUSIC21_FOLDERS:
    for path in sorted((root / name).rglob('*')):
      if path.suffix in _SCORE_SUFFIXES:
        pieces.setdefault(path.with_suffix(''), []).append(path)
  chosen = [min(paths, key=lambda path: _SCORE_SUFFIXES.index(path.suffix)) for paths in pieces.values()]
  return sorted(MUSIC21 + path.relative_to(root).as_posix() for path in chosen)


def work_of(source: str) -> str:
  """Returns the work a source is part of: what shares it must share a split.

  Movements in a folder of their own (mozart/k155/movement1) share the folder, cantata movements (bach/bwv227.1) the
  BWV number, sections of Palestrina's masses (Kyrie_12) the mass.
  """
  path = Path(source).with_suffix('')
  composer = path.parts[1] if len(path.parts) > 1 else ''
  if re.match(r'movement|\d+[a-z]', path.name):
    return path.parent.as_posix()
  if composer == 'bach':
    return (path.parent / re.split(r'[.-]', path.name)[0]).as_posix()
  if composer == 'palestrina' and (number := re.search(r'_(\d+)', path.name)):
    return f'{path.parent.as_posix()}/mass_{number.group(1)}'
  return path.as_posix()


def read_score(source: str) -> Score:
  """Returns the score behind a source name, at sounding pitch, ties joined and parts that double another left out.

  UserError where there is no such source or it cannot be read as a score with notes.
  """
  if not source.startswith(MUSIC21):
    raise UserError(f'no such source of music: {source!r}; names start with {MUSIC21!r}')
  path = music21_folder() / source[len(MUSIC21) :]
  if not path.is_file():
    raise UserError(f"no such piece in music21's corpus: {source}; install another version of music21")
  return drop_doubles(_read_music21(path, source))


def _read_music21(path, source):
  import warnings

  import music21

  # music21 fails in many ways on a file it cannot read; which one does not matter here.
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      stream = music21.converter.parse(path, forceSource=True, storePickle=False)
      if not isinstance(stream, music21.stream.Score) or not len(stream.parts):
        raise ValueError('not one score with parts')
      stream.toSoundingPitch(inPlace=True)
      parts = [_read_part(part.flatten()) for part in stream.parts]
      bars = _read_bars(stream.parts[0])
  except Exception as error:
    reason = ' '.join(str(error).split())[:120] or type(error).__name__
    raise UserError(f'cannot read the score {source}: {reason}; choose another one') from error
  if not len(bars):
    raise UserError(f'the score {source} has no bars; choose another one')
  return Score(f'{Path(source).with_suffix("")}', tuple(parts), bars)


def _read_part(flat):
  rows = []
  for element in flat.notes:
    if element.isNote:
      members = (element,)
    elif element.isChord and 'Harmony' not in element.classes:
      members = element.notes
    else:
      continue  # a chord symbol or an unpitched stroke
    start, length = float(element.offset), float(element.duration.quarterLength)
    for note in members:
      joins = note.tie is not None and note.tie.type in ('stop', 'continue')
      rows.append((start, length, note.pitch.midi, joins))
  if not rows:
    return np.zeros(0, SCORE_NOTE_DTYPE)
  start, length, pitch, joins = (np.array(column) for column in zip(*rows, strict=True))
  return tidy_part(_join_ties(start, length, pitch.astype(np.int32), joins.astype(bool)))


def _join_ties(start: np.ndarray, length: np.ndarray, pitch: np.ndarray, joins: Iterable[bool]) -> np.ndarray:
  """Returns the notes with each one marked `joins` added to the note of its pitch that ends where it starts."""
  order = np.lexsort((start, pitch))
  start, end, pitch, joins = start[order], (start + length)[order], pitch[order], np.asarray(joins)[order]
  goes_on = joins[1:] & (pitch[1:] == pitch[:-1]) & (np.abs(start[1:] - end[:-1]) < 1e-3)
  heads = np.flatnonzero(np.r_[True, ~goes_on])
  notes = np.zeros(len(heads), SCORE_NOTE_DTYPE)
  notes['start'] = start[heads]
  notes['length'] = np.maximum.reduceat(end, heads) - start[heads]
  notes['pitch'] = pitch[heads]
  return notes


def _read_bars(part):
  measures = list(part.getElementsByClass('Measure'))
  bars = np.zeros(len(measures), BAR_DTYPE)
  metre = (4, 4)
  for bar, measure in zip(bars, measures, strict=True):
    if measure.timeSignature is not None:
      metre = (measure.timeSignature.numerator, measure.timeSignature.denominator)
    bar['start'], bar['numerator'], bar['denominator'] = float(measure.offset), *metre
  if len(bars):
    bars['length'] = np.diff(bars['start'], append=float(part.duration.quarterLength))
  return bars[bars['length'] > 1e-3]
