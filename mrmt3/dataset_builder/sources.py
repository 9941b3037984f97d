"""Sources of music: music21's corpus, folders of MIDI files, and Debian packages with game music and mma.

A source name has a collection and a piece in it:

  music21/bach/bwv227.1.mxl         a score of the corpus in the music21 package
  midi/FOLDER/song.mid              a file in a folder that the user named
  freedoom/freedoom1.wad/D_E1M1     music in a game's WAD file
  simutrans/..., openttd/...        MIDI files of two more games
  mma/bossanova/BossaNova           a song generated with a groove of mma

Music is read from where it is installed and never copied, because the licences differ.
"""

import dataclasses
import functools
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder import accompaniment
from mrmt3.dataset_builder.midi_score import MAX_BYTES, read_midi_score
from mrmt3.dataset_builder.score import BAR_DTYPE, SCORE_NOTE_DTYPE, Score, drop_doubles, tidy_part
from mrmt3.dataset_builder.score_cache import cached
from mrmt3.errors import UserError
from mrmt3.notes.midi_file import MIDI_SUFFIXES

MUSIC21 = 'music21/'
MIDI = 'midi/'
MMA = 'mma/'
_GAMES = Path('/usr/share/games')
# Folders of the corpus with music for several parts; the others have melodies, songs with chord symbols, and tests.
MUSIC21_FOLDERS = (
  'bach',
  'beach',
  'beethoven',
  'corelli',
  'handel',
  'haydn',
  'johnson_j_r',
  'liliuokalani',
  'lusitano',
  'monteverdi',
  'mozart',
  'palestrina',
  'schubert',
  'schumann_clara',
  'schumann_robert',
  'weber',
)
_SCORE_SUFFIXES = ('.mxl', '.musicxml', '.xml', '.krn')  # best first, if a piece exists in several


@dataclasses.dataclass(frozen=True)
class Collection:
  """Music in a Debian package; `folder` contains its MIDI or WAD files."""

  package: str
  what: str
  folder: Path


DEBIAN_COLLECTIONS = {
  'freedoom': Collection('freedoom', 'about 70 pieces of game music', _GAMES / 'doom'),
  'simutrans': Collection('simutrans-data', '53 pieces of game music', _GAMES / 'simutrans' / 'music'),
  'openttd': Collection('openttd-openmsx', '31 pieces of game music', _GAMES / 'openttd' / 'baseset' / 'openmsx'),
  'mma': Collection('mma', 'bands with drums in some 900 grooves', accompaniment.LIBRARY),
}


@dataclasses.dataclass(frozen=True)
class Library:
  """The music that a data set is made from.

  Attributes:
    music21: whether to use music21's corpus.
    debian: names in `DEBIAN_COLLECTIONS` of the collections to use.
    folders: (name, folder) of the user's MIDI folders.
  """

  music21: bool = True
  debian: tuple[str, ...] = ()
  folders: tuple[tuple[str, Path], ...] = ()

  def sources(self) -> list[str]:
    """Return the names of all sources, sorted; UserError if music21 is needed and missing."""
    names = list_music21() if self.music21 else []
    for name in self.debian:
      names += [f'{MMA}{groove}' for groove in accompaniment.grooves()] if name == 'mma' else _list_games(name)
    for name, folder in self.folders:
      names += [f'{MIDI}{name}/{path.relative_to(folder).as_posix()}' for path in _midi_files(folder)]
    return sorted(names)

  def digest(self) -> str:
    """Return a digest of the names and bytes of the user's files."""
    digest = hashlib.sha256()
    for name, folder in self.folders:
      for path in _midi_files(folder):
        digest.update(f'{name}/{path.relative_to(folder).as_posix()}\0'.encode(errors='surrogateescape'))
        digest.update(hashlib.sha256(_read_bytes(path, str(path))).digest())
    return digest.hexdigest()

  def read(self, source: str) -> Score:
    """Read the score of a source at sounding pitch, without parts that double another.

    Raises UserError if there is no such source or it cannot be read.
    """
    if source.startswith(MUSIC21):
      return _read_from_music21(source)
    if source.startswith(MMA):
      return cached(lambda: self._read_midi(source), 'mma', source, accompaniment.definition(source[len(MMA) :]))
    return cached(lambda: self._read_midi(source), 'midi', source, self._midi_bytes(source))

  def _read_midi(self, source):
    return drop_doubles(read_midi_score(self._midi_bytes(source), source))

  def _midi_bytes(self, source):
    collection, _, rest = source.partition('/')
    if source.startswith(MIDI):
      for name, folder in self.folders:
        if rest.startswith(f'{name}/'):
          return _read_bytes(folder / rest[len(name) + 1 :], source)
    elif source.startswith(MMA):
      return accompaniment.generate(rest.split('/')[-1], zlib.crc32(source.encode()) % 2**31)
    if collection in DEBIAN_COLLECTIONS:
      wad, _, lump = rest.partition('.wad/')
      if lump:
        return dict(_wad_music(DEBIAN_COLLECTIONS[collection].folder / f'{wad}.wad')).get(lump, b'')
      return _read_bytes(DEBIAN_COLLECTIONS[collection].folder / rest, source)
    raise UserError(f'no such source of music: {source!r}; if its folder was moved, name the folder with --midi')


def open_library(*, music21: bool, debian: bool, midi: Sequence[str | os.PathLike]) -> tuple[Library, list[str]]:
  """Open the installed music; returns the library, and a line for each Debian package that is missing.

  Raises UserError if one of the `midi` folders does not exist or has no MIDI files, or two have the same name.
  """
  installed = tuple(
    name for name, collection in DEBIAN_COLLECTIONS.items() if debian and _is_installed(name, collection)
  )
  missing = [
    f'{collection.package} is not installed ({collection.what}); install it with: apt-get install {collection.package}'
    for name, collection in DEBIAN_COLLECTIONS.items()
    if debian and name not in installed
  ]
  folders = {}
  for folder in map(Path, midi):
    if not folder.is_dir():
      raise UserError(
        f'no MIDI files in {folder}: {"it is a file" if folder.exists() else "no such folder"}; name a folder'
      )
    if not _midi_files(folder):
      raise UserError(
        f'no MIDI files in {folder}; put files with the suffix {", ".join(MIDI_SUFFIXES)} into it or its subfolders'
      )
    name = folder.resolve().name or 'root'
    if folders.setdefault(name, folder) != folder:
      raise UserError(f'{folders[name]} and {folder} have the same name; rename one of the folders')
  return Library(music21, installed, tuple(folders.items())), missing


def _is_installed(name, collection):
  return (
    accompaniment.program() is not None if name == 'mma' else collection.folder.is_dir() and bool(_list_games(name))
  )


def _midi_files(folder):
  found = (path for path in folder.rglob('*') if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())
  return sorted(path for path in found if not any(part.startswith('.') for part in path.relative_to(folder).parts))


def _list_games(name):
  folder = DEBIAN_COLLECTIONS[name].folder
  if name == 'freedoom':
    return [f'{name}/{wad.name}/{lump}' for wad in sorted(folder.glob('free*.wad')) for lump, _ in _wad_music(wad)]
  return [f'{name}/{path.relative_to(folder).as_posix()}' for path in _midi_files(folder)]


def _read_bytes(path, source):
  try:
    with path.open('rb') as file:
      return file.read(MAX_BYTES + 1)
  except OSError as error:
    raise UserError(f'cannot read {source}: {error.strerror}; restore it or remove it') from error


@functools.lru_cache(maxsize=4)
def _wad_music(path):
  """Return (lump name, bytes) of the MIDI files in a game's WAD file."""
  try:
    with path.open('rb') as file:
      magic, count, offset = struct.unpack('<4sii', file.read(12))
      if magic not in (b'IWAD', b'PWAD'):
        return ()
      file.seek(offset)
      entries = [struct.unpack('<ii8s', file.read(16)) for _ in range(count)]
      music = []
      for begin, size, name in entries:
        if name.startswith(b'D_'):
          file.seek(begin)
          data = file.read(size)
          if data[:4] == b'MThd':
            music.append((name.rstrip(b'\0').decode('ascii', 'replace'), data))
      return tuple(music)
  except (OSError, struct.error, ValueError):
    return ()


@functools.cache
def music21_folder() -> Path:
  """Return the folder of music21's corpus; UserError if the package or its corpus is missing."""
  import importlib.util

  spec = importlib.util.find_spec('music21')
  folder = Path(spec.origin).parent / 'corpus' if spec else None
  if folder is None or not (folder / 'bach').is_dir():
    raise UserError("music21's corpus is missing; install it with: pip install 'music21>=9'")
  return folder


def list_music21() -> list[str]:
  """Return the source names of all pieces in `MUSIC21_FOLDERS`, sorted; one per piece, in its best format."""
  root = music21_folder()
  pieces = {}
  for name in MUSIC21_FOLDERS:
    for path in sorted((root / name).rglob('*')):
      if path.suffix in _SCORE_SUFFIXES:
        pieces.setdefault(path.with_suffix(''), []).append(path)
  chosen = [min(paths, key=lambda path: _SCORE_SUFFIXES.index(path.suffix)) for paths in pieces.values()]
  return sorted(MUSIC21 + path.relative_to(root).as_posix() for path in chosen)


def work_of(source: str) -> str:
  """Return the work that a source is part of; sources of one work must be in one split.

  - Movements in their own folder (mozart/k155/movement1): the folder.
  - Movements of Bach's cantatas (bach/bwv227.1): the BWV number.
  - Sections of Palestrina's masses (Kyrie_12): the mass.
  - MIDI files: the name in any folder, without the suffix of copies ("song (2).mid", "song_copy.mid").
  - Grooves: the file that defines them.
  """
  path = Path(source).with_suffix('')
  if not source.startswith(MUSIC21):
    if source.startswith(MMA):
      return path.parent.as_posix()
    name = re.sub(r'([ _-]*\((\d+|copy)\)|[ _-]+(copy|v?\d))+$', '', path.name.lower())
    return f'{path.parts[0]}/{name or path.name.lower()}'
  composer = path.parts[1] if len(path.parts) > 1 else ''
  if re.match(r'movement|\d+[a-z]', path.name):
    return path.parent.as_posix()
  if composer == 'bach':
    return (path.parent / re.split(r'[.-]', path.name)[0]).as_posix()
  if composer == 'palestrina' and (number := re.search(r'_(\d+)', path.name)):
    return f'{path.parent.as_posix()}/mass_{number.group(1)}'
  return path.as_posix()


def read_score(source: str) -> Score:
  """Read a score of music21's corpus by its source name (see Library.read)."""
  return Library().read(source)


def _read_from_music21(source):
  path = music21_folder() / source[len(MUSIC21) :]
  if not path.is_file():
    raise UserError(f"no such piece in music21's corpus: {source}; install another version of music21")
  return cached(
    lambda: drop_doubles(_read_music21(path, source)), 'music21', _music21_version(), source, _read_bytes(path, source)
  )


@functools.cache
def _music21_version():
  import importlib.metadata

  return importlib.metadata.version('music21')


def _read_music21(path, source):
  import warnings

  import music21

  # music21 raises many types of exceptions for unreadable files.
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
      continue  # a chord symbol or an unpitched percussion note
    start, length = float(element.offset), float(element.duration.quarterLength)
    for note in members:
      is_tied = note.tie is not None and note.tie.type in ('stop', 'continue')
      rows.append((start, length, note.pitch.midi, is_tied))
  if not rows:
    return np.zeros(0, SCORE_NOTE_DTYPE)
  start, length, pitch, is_tied = (np.array(column) for column in zip(*rows, strict=True))
  return tidy_part(_join_ties(start, length, pitch.astype(np.int32), is_tied.astype(bool)))


def _join_ties(start: np.ndarray, length: np.ndarray, pitch: np.ndarray, is_tied: Iterable[bool]) -> np.ndarray:
  """Merge each note with `is_tied` into the note of its pitch that ends where it starts."""
  order = np.lexsort((start, pitch))
  start, end, pitch, is_tied = start[order], (start + length)[order], pitch[order], np.asarray(is_tied)[order]
  continues = is_tied[1:] & (pitch[1:] == pitch[:-1]) & (np.abs(start[1:] - end[:-1]) < 1e-3)
  heads = np.flatnonzero(np.r_[True, ~continues])
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
