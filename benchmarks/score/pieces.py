"""Scores whose bars, key and pick-up are known: music21's corpus, and songs generated with mma's grooves.

A `Piece` has the notes in quarters, its bars, one metre throughout, and the written key where the source and the last
bass note agree on it. Pieces are cached, because music21 takes seconds to parse some.
"""

import dataclasses
import hashlib
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from mrmt3.dataset_builder import accompaniment, sources
from mrmt3.dataset_builder.score import Score, bar_phases
from mrmt3.errors import UserError

TONICS = dict(zip('CDEFGAB', (0, 2, 4, 5, 7, 9, 11), strict=True))
FOLDERS = (
  *('bach', 'beach', 'beethoven', 'chopin', 'corelli', 'cpebach', 'handel', 'haydn', 'johnson_j_r', 'joplin'),
  *('liliuokalani', 'mozart', 'ryansMammoth', 'schubert', 'schumann_clara', 'schumann_robert', 'trecento', 'verdi'),
  *('weber', 'airdsAirs', 'leadSheet', 'monteverdi'),
)
COLLECTIONS = ('essenFolksong', 'oneills1850', 'nottingham-dataset')  # many tunes in a file
SUFFIXES = ('.mxl', '.musicxml', '.xml', '.krn', '.abc')
METRES = {(2, 4), (3, 4), (4, 4), (6, 8), (2, 2), (3, 8), (9, 8), (12, 8), (6, 4)}
MIN_BARS = 8


@dataclasses.dataclass(frozen=True)
class Piece:
  """A score in one metre.

  Attributes:
    name: its source.
    score: notes and bars, in quarters; the first bar is shorter than the others if it is a pick-up.
    numerator: of the metre as it is scored: 2/2 counts as 4/4 and 3/8 as 3/4, with the positions scaled.
    denominator: of the metre.
    key: (pitch class of the tonic, whether minor), or None where it is not certain.
    header_key: the key that the source names with its mode, though the last note may disagree; or None.
  """

  name: str
  score: Score
  numerator: int
  denominator: int
  key: tuple[int, bool] | None
  header_key: tuple[int, bool] | None = None

  @property
  def beat(self) -> float:
    """Length of a beat, quarters."""
    return 1.5 if self.denominator == 8 else 1.0

  @property
  def pickup(self) -> float:
    """Quarters before the first downbeat; 0 without a pick-up."""
    whole = 4.0 * self.numerator / self.denominator
    return (whole - float(bar_phases(self.score.bars)[0])) % whole

  @property
  def is_monophonic(self) -> bool:
    """Whether it is a single melody."""
    return len(self.score.parts) == 1 and self.score.drums is None


def written_key(text: str) -> tuple[int | None, str]:
  """Return (sharps, mode) of the first key in the text of a score: None without one, mode '' if not written."""
  if found := re.search(r'<fifths>\s*(-?\d+)\s*</fifths>(?:\s*<mode>\s*(\w+))?', text):
    return int(found[1]), found[2] or ''
  if found := re.search(r'^\*.*?\*k\[([a-g#n-]*)\]|^\*k\[([a-g#n-]*)\]', text, re.MULTILINE):
    signature = found[1] or found[2] or ''
    return signature.count('#') - signature.count('-'), ''
  if found := re.search(r'^K:\s*([A-G])([#b]?)\s*(\w*)', text, re.MULTILINE):
    mode = found[3].lower()[:3]
    shift = {'': 0, 'maj': 0, 'ion': 0, 'm': -3, 'min': -3, 'aeo': -3, 'mix': -1, 'dor': -2, 'phr': -4}.get(mode)
    if shift is None:
      return None, ''
    sharps = 'FCGDAEB'.index(found[1]) - 1 + 7 * ((found[2] == '#') - (found[2] == 'b')) + shift
    return sharps, {0: 'major', -3: 'minor'}.get(shift, 'other')
  return None, ''


def certain_key(text: str, score: Score) -> tuple[int, bool] | None:
  """Return the key whose signature is written and whose tonic is the last bass note; None if there is none."""
  sharps, mode = written_key(text)
  if sharps is None or mode == 'other':
    return None
  major = 7 * sharps % 12
  end = max(part['start'].max() for part in score.parts)
  last = min(part['pitch'][part['start'] > end - 1e-6].min(initial=200) for part in score.parts) % 12
  is_minor = last == (major + 9) % 12
  if last not in (major, (major + 9) % 12) or (mode in ('major', 'minor') and is_minor != (mode == 'minor')):
    return None
  return int(last), bool(is_minor)


def header_key(text: str) -> tuple[int, bool] | None:
  """Return the key that a text names with its mode, major or minor; None without one."""
  sharps, mode = written_key(text)
  if sharps is None or mode not in ('major', 'minor'):
    return None
  return (7 * sharps + (9 if mode == 'minor' else 0)) % 12, mode == 'minor'


def as_piece(name: str, score: Score, key: tuple[int, bool] | None) -> Piece:
  """Return the bars of a score up to its first change of metre; UserError if they are too few, or the metre is rare."""
  bars = score.bars
  metre = (int(bars['numerator'][0]), int(bars['denominator'][0]))
  if metre not in METRES:
    raise UserError(f'{name}: metre {metre[0]}/{metre[1]}; choose another piece')
  same = (bars['numerator'] == metre[0]) & (bars['denominator'] == metre[1])
  count = len(bars) if same.all() else int(np.argmin(same))
  if count < MIN_BARS:
    raise UserError(f'{name}: only {count} bars in the first metre; choose another piece')
  scale, shown = {(2, 2): (1.0, (4, 4)), (3, 8): (2.0, (3, 4)), (6, 4): (0.5, (6, 8))}.get(metre, (1.0, metre))
  bars = bars[:count].copy()
  end = bars['start'][-1] + bars['length'][-1]
  parts = [part[part['start'] < end - 1e-6].copy() for part in score.parts]
  for table in (bars, *parts):
    table['start'] *= scale
    table['length'] *= scale
  bars['numerator'], bars['denominator'] = shown
  parts = tuple(part for part in parts if len(part))
  return Piece(name, dataclasses.replace(score, parts=parts, bars=bars), *shown, key)


def _text(data):
  if data[:2] == b'PK':
    import io

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      names = [name for name in archive.namelist() if not name.startswith('META') and name.endswith('xml')]
      data = archive.read(names[0])
  return data.decode('utf-8', 'replace')


def _corpus_pieces() -> Iterator[tuple[str, str]]:
  """Yield (source, text) of the corpus's single scores, one for each piece."""
  root = sources.music21_folder()
  for folder in FOLDERS:
    best = {}
    for path in sorted((root / folder).rglob('*')):
      if path.suffix in SUFFIXES:
        stem = path.with_suffix('')
        if stem not in best or SUFFIXES.index(path.suffix) < SUFFIXES.index(best[stem].suffix):
          best[stem] = path
    for path in best.values():
      yield f'music21/{path.relative_to(root).as_posix()}', _text(path.read_bytes())


def _tunes(every: int) -> Iterator[tuple[str, str]]:
  """Yield (name, ABC text) of one in `every` tunes of the collections."""
  root = sources.music21_folder()
  for folder in COLLECTIONS:
    for path in sorted((root / folder).glob('*.abc')):
      if re.match('test|variant', path.name):
        continue
      tunes = re.split(r'^(?=X:)', path.read_text('utf-8', 'replace'), flags=re.MULTILINE)[1:]
      for index, tune in enumerate(tunes):
        name = f'music21/{folder}/{path.name}/{index}'
        if zlib.crc32(name.encode()) % every == 0 and (folder != 'oneills1850' or len(tunes) > 1):
          yield name, tune


def _read_tune(name, text):
  """Return the score of one ABC tune."""
  import music21

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    stream = music21.converter.parse(text, format='abc', forceSource=True)
    if isinstance(stream, music21.stream.Opus):
      stream = stream.scores[0]
    parts = [sources._read_part(part.flatten()) for part in stream.parts]
    return Score(name, tuple(part for part in parts if len(part)), sources._read_bars(stream.parts[0]))


def _cached(name, text, read, folder):
  """Return a piece, or None if it cannot be used, from the cache where possible."""
  path = folder / f'{hashlib.sha256(f"4{name}{text}".encode()).hexdigest()[:24]}.npz'
  if path.exists():
    piece = _load(path)
    return piece and dataclasses.replace(piece, header_key=header_key(text))
  try:
    score = read()
    if not score.parts or not len(score.bars):
      raise UserError(f'{name} has no notes; choose another piece')
    piece = as_piece(name, score, certain_key(text, score))
  except Exception as error:  # music21 raises many types; a piece that cannot be read is left out
    print(f'left out: {name}: {type(error).__name__}: {str(error)[:80]}', flush=True)
    piece = None
  folder.mkdir(parents=True, exist_ok=True)
  _save(path, piece)
  return piece


def _save(path, piece):
  about, tables = {}, {}
  if piece is not None:
    score = piece.score
    about = {'name': piece.name, 'metre': [piece.numerator, piece.denominator], 'key': piece.key}
    about |= {'parts': len(score.parts), 'programs': score.programs, 'tempo': score.tempo}
    tables = {f'part{index}': part for index, part in enumerate(score.parts)} | {'bars': score.bars}
    if score.drums is not None:
      tables['drums'] = score.drums
  np.savez(path, about=np.array(json.dumps(about)), **tables)


def _load(path):
  with np.load(path) as file:
    about = json.loads(str(file['about']))
    if not about:
      return None
    parts = tuple(file[f'part{index}'] for index in range(about['parts']))
    drums = file.get('drums', None)
    score = Score(about['name'], parts, file['bars'], tuple(about['programs']), drums, about['tempo'])
  return Piece(about['name'], score, *about['metre'], tuple(about['key']) if about['key'] else None)


def read_pieces(folder, *, every_tune: int = 6, grooves: int = 0) -> list[Piece]:
  """Read all usable pieces.

  Args:
    folder: for the cache.
    every_tune: one in so many tunes of the large collections is read.
    grooves: number of songs with mma's grooves; 0 needs no mma.
  """
  pieces = []
  for name, text in _corpus_pieces():
    pieces.append(_cached(name, text, lambda name=name: sources.read_score(name), folder))
  for name, text in _tunes(every_tune):
    pieces.append(_cached(name, text, lambda name=name, text=text: _read_tune(name, text), folder))
  if grooves:
    library = sources.Library(music21=False, debian=('mma',))
    names = sorted(accompaniment.grooves(), key=lambda name: zlib.crc32(name.encode()))[:grooves]
    for name in names:
      source = f'mma/{name}'
      pieces.append(_cached(source, '', lambda source=source: library.read(source), folder))
  return [piece for piece in pieces if piece is not None]


if __name__ == '__main__':
  import collections
  import pathlib
  import sys

  found = read_pieces(pathlib.Path(sys.argv[1]), grooves=int(sys.argv[2]))
  print(len(found), 'pieces')
  print(collections.Counter((p.name.split('/')[1], p.numerator, p.denominator) for p in found))
  print(
    'minor',
    sum(p.key is not None and p.key[1] for p in found),
    'major',
    sum(p.key is not None and not p.key[1] for p in found),
  )
  print('pickup', sum(p.pickup > 0 for p in found))
