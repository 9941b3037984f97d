"""Pieces from a folder of your own music: an audio file and a MIDI file of the same name per piece.

my_music/song.wav, song.mid                  splits are drawn from the names, the same every time
my_music/train/album/song.flac, song.midi    or are the folders train, validation and test, if one exists
"""

import dataclasses
import hashlib
import math
import os
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.audio.formats import AUDIO_SUFFIXES
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import UserError
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.midi import read_midi_counted
from mrmt3.notes.midi_file import MIDI_SUFFIXES
from mrmt3.utils.file_names import existing, normal_form
from mrmt3.utils.fingerprints import files_below, files_fingerprint

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class OwnFolder:
  """A folder of audio and MIDI files as a `piece_source.PieceSource`.

  A piece's name is its path without the suffix, e.g. 'album/song'. Incomplete pieces are listed as well, and reading
  one raises an error with the reason: a file without a partner or with two, and a file outside the split folders (in
  the first split). Hidden files and files with other suffixes are ignored. Audio may have any format that
  `mrmt3 transcribe` takes. Names are compared in the composed form of Unicode, which is also that of pieces.

  Attributes:
    data_dir: the folder. Folders in it named train, validation or test are the splits.
    fractions: shares of train, validation and test if there are no such folders. They sum to 1. A piece's split follows
      from a hash of its name, so actual shares vary. 'train' is never empty, nor is 'validation' with 2 pieces or more.
    slakh_classes: whether to map programs to their Slakh classes, as in the published training targets; otherwise the
      programs of the MIDI file are kept.
  """

  data_dir: str
  fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
  slakh_classes: bool = True

  def __post_init__(self):
    shares = tuple(self.fractions)
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
      raise UserError(f'fractions is {self.fractions}; it must be the shares of {", ".join(SPLITS)} and sum to 1')

  def splits(self) -> tuple[str, ...]:
    """Return the splits with pieces in them; UserError if there are no pairs of files in the folder."""
    return tuple(split for split, files in self._files().items() if files)

  def list_pieces(self, split: str) -> list[str]:
    """Return the pieces' names, sorted; UserError if there are none."""
    return sorted(self._split_files(split))

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one piece, without stems; UserError if one of its two files is missing, ambiguous or broken."""
    audio, midi = (self._file(split, name, *kind) for kind in ((AUDIO_SUFFIXES, 'audio'), (MIDI_SUFFIXES, 'MIDI')))
    notes, lost = self._read_midi(midi)
    return PieceContent(read_audio(audio, sample_rate, whole=True), notes, lost_notes=lost)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Return the notes of a piece; UserError if its MIDI file is missing, ambiguous or broken."""
    return self._read_midi(self._file(split, name, MIDI_SUFFIXES, 'MIDI'))[0]

  def _read_midi(self, path):
    notes, lost = read_midi_counted(path)
    return map_to_slakh_classes(notes) if self.slakh_classes else notes, lost

  def _file(self, split, name, suffixes, kind):
    """Return a piece's file of the given kind."""
    root = Path(self.data_dir)
    folders = self._folders()
    if folders and not (root / split).is_dir():
      raise UserError(f'the data set {root} has no split {split!r}; it has {", ".join(folders)}')
    base = root / split / name if folders else root / name
    if name.startswith('../'):
      raise UserError(f'{base.resolve()} is outside the split folders {", ".join(folders)}: move it into one of them')
    base = existing(base.parent) / base.name
    try:
      with os.scandir(base.parent) as entries:
        siblings = [
          Path(entry)
          for entry in entries
          if normal_form(os.path.splitext(entry.name)[0]) == normal_form(base.name) and entry.is_file()
        ]
    except OSError as error:
      raise UserError(f'cannot read {base.parent}: {error.strerror}') from error
    return _only(siblings, suffixes, base, kind)

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files."""
    files = [path for paths in self._split_files(split).values() for path in paths]
    return files_fingerprint(files, Path(self.data_dir))

  def _folders(self) -> list[str]:
    return [name for name in SPLITS if (Path(self.data_dir) / name).is_dir()]

  def _split_files(self, split):
    files = self._files().get(split)
    if not files:
      raise UserError(f'the data set {self.data_dir} has no pieces in the split {split!r}')
    return files

  def _files(self) -> dict[str, dict[str, list[Path]]]:
    """Return split -> name of a piece -> its files."""
    root = Path(self.data_dir)
    if not root.is_dir():
      raise UserError(f'no data set at {root}: no such folder; check data_dir')
    folders = self._folders()
    found = {split: {} for split in folders or SPLITS}
    for path in files_below(root):
      if path.suffix.lower() not in (*AUDIO_SUFFIXES, *MIDI_SUFFIXES):
        continue
      inner = path.relative_to(root).with_suffix('')
      split, name = folders[0] if folders else SPLITS[0], normal_form(inner.as_posix())
      if folders:
        inside = inner.parts[0] in folders and len(inner.parts) > 1
        split, name = (inner.parts[0], name.partition('/')[2]) if inside else (split, f'../{name}')
      found[split].setdefault(name, []).append(path)
    if not any(_is_pair(paths) for pieces in found.values() for paths in pieces.values()):
      raise UserError(f'no pieces in {root}: expected pairs of files with one name, like song.wav and song.mid')
    return found if folders else self._divide(found[SPLITS[0]])

  def _divide(self, pieces):
    """Divide the pieces among the splits by a number in 0..1 that depends on the piece's name only."""
    place = {name: int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) / 2**64 for name in pieces}
    pairs = [name for name in pieces if _is_pair(pieces[name])]
    train, validation, _ = self.fractions
    if min(place[name] for name in pairs) >= train:
      place[min(pairs, key=place.get)] = -1.0
    if validation and len(pairs) > 1 and not any(train <= place[name] < train + validation for name in pairs):
      place[max(pairs, key=place.get)] = train
    divided = {split: {} for split in SPLITS}
    for name, paths in pieces.items():
      # Incomplete pieces go to 'train', where their error is seen first, and do not change the shares.
      number = (place[name] >= train) + (place[name] >= train + validation) if name in pairs else 0
      divided[SPLITS[number]][name] = paths
    return divided


def _is_pair(paths):
  suffixes = {path.suffix.lower() for path in paths}
  return bool(suffixes & set(AUDIO_SUFFIXES)) and bool(suffixes & set(MIDI_SUFFIXES))


def _only(siblings, suffixes, base, kind):
  """Return the file of a kind; UserError if there is none or more than one."""
  files = sorted(path for path in siblings if path.suffix.lower() in suffixes)
  if not files:
    more = f' or another {kind} format' if len(suffixes) > 4 else ''
    expected = ', '.join([f'{base.name}{suffixes[0]}', *suffixes[1:4]])
    raise UserError(f'{base} has no {kind} file: expected {expected}{more} in {base.parent}')
  if len(files) > 1:
    raise UserError(f'{base} has {len(files)} {kind} files, {" and ".join(p.name for p in files)}: remove all but one')
  return files[0]
