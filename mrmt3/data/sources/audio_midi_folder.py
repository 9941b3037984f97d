"""Pieces from a folder of one's own music: each an audio file and the MIDI file of the same name beside it.

my_music/song.wav, song.mid                      split by name, the same way every time
my_music/train/album/song.flac, song.midi        or into the folders train, validation and test, where one is there
"""

import dataclasses
import hashlib
import math
import os
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import UserError
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.midi import read_midi_counted
from mrmt3.utils.fingerprints import files_below, files_fingerprint

SPLITS = ('train', 'validation', 'test')
AUDIO_SUFFIXES = ('.wav', '.flac', '.ogg', '.mp3')
MIDI_SUFFIXES = ('.mid', '.midi')


@dataclasses.dataclass(frozen=True)
class OwnFolder:
  """A folder of audio and MIDI files as a `pieces.PieceSource`.

  A piece's name is its path without the suffix, e.g. 'album/song'. A file without a partner, or with two, is listed as
  a piece too, and reading it says what is wrong; so is a file that lies beside the split folders (in the first split).
  Hidden files and files with other suffixes are no pieces.

  Attributes:
    data_dir: the folder; where it has a folder named train, validation or test, these are the splits.
    fractions: shares of train, validation and test otherwise, as drawn from each piece's name. They sum to 1; what a
      split gets is as near to its share as chance has it, but neither 'train' nor, of two pieces or more, 'validation' is
      empty.
    slakh_classes: whether programs become those of their Slakh classes, as in the published training targets, or stay
      as in the MIDI file.
  """

  data_dir: str
  fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
  slakh_classes: bool = True

  def __post_init__(self):
    shares = tuple(self.fractions)
    if len(shares) != len(SPLITS) or min(shares) < 0 or not math.isclose(sum(shares), 1):
      raise UserError(f'fractions are the shares of {", ".join(SPLITS)} and sum to 1, not {self.fractions}')

  def splits(self) -> tuple[str, ...]:
    """Returns the splits with pieces in them; UserError if there are no pairs of files in the folder."""
    return tuple(split for split, files in self._files().items() if files)

  def list_pieces(self, split: str) -> list[str]:
    """Returns the pieces' names, sorted; UserError if there are none."""
    return sorted(self._split_files(split))

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Reads one piece; it has no stems. UserError where one of its two files is missing, doubled or broken."""
    audio, midi = (self._file(split, name, *kind) for kind in ((AUDIO_SUFFIXES, 'audio'), (MIDI_SUFFIXES, 'MIDI')))
    notes, lost = self._read_midi(midi)
    return PieceContent(read_audio(audio, sample_rate, whole=True), notes, lost_notes=lost)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Returns the notes of a piece; UserError where its MIDI file is missing, doubled or broken."""
    return self._read_midi(self._file(split, name, MIDI_SUFFIXES, 'MIDI'))[0]

  def _read_midi(self, path):
    notes, lost = read_midi_counted(path)
    return map_to_slakh_classes(notes) if self.slakh_classes else notes, lost

  def _file(self, split, name, suffixes, kind):
    """Returns the one file of a kind that a piece has."""
    root = Path(self.data_dir)
    folders = self._folders()
    if folders and not (root / split).is_dir():
      raise UserError(f'the data set {root} has no split {split!r}')
    base = root / split / name if folders else root / name
    if name.startswith('../'):
      raise UserError(f'{base.resolve()} is in none of the folders {", ".join(folders)}: move it into one of them')
    try:
      with os.scandir(base.parent) as entries:
        siblings = [
          Path(entry) for entry in entries if os.path.splitext(entry.name)[0] == base.name and entry.is_file()
        ]
    except OSError as error:
      raise UserError(f'cannot read {base.parent}: {error.strerror}') from error
    return _only(siblings, suffixes, base, kind)

  def fingerprint(self, split: str) -> str:
    """Returns a digest of the names, sizes and times of the split's files."""
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
    """Returns split -> name of a piece -> its files."""
    root = Path(self.data_dir)
    if not root.is_dir():
      raise UserError(f'no data set at {root}: no such folder')
    folders = self._folders()
    found = {split: {} for split in folders or SPLITS}
    for path in files_below(root):
      if path.suffix.lower() not in (*AUDIO_SUFFIXES, *MIDI_SUFFIXES):
        continue
      inner = path.relative_to(root).with_suffix('')
      split, name = folders[0] if folders else SPLITS[0], inner.as_posix()
      if folders:
        inside = inner.parts[0] in folders and len(inner.parts) > 1
        split, name = (inner.parts[0], Path(*inner.parts[1:]).as_posix()) if inside else (split, f'../{name}')
      found[split].setdefault(name, []).append(path)
    if not any(_is_pair(paths) for pieces in found.values() for paths in pieces.values()):
      raise UserError(f'no pieces in {root}: expected pairs of files with one name, like song.wav and song.mid')
    return found if folders else self._drawn(found[SPLITS[0]])

  def _drawn(self, pieces):
    """Divides the pieces by a number in 0..1 that depends on a piece's name alone."""
    place = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64 for name in pieces}
    pairs = [name for name in pieces if _is_pair(pieces[name])]
    train, validation, _ = self.fractions
    if min(place[name] for name in pairs) >= train:
      place[min(pairs, key=place.get)] = -1.0
    if validation and len(pairs) > 1 and not any(train <= place[name] < train + validation for name in pairs):
      place[max(pairs, key=place.get)] = train
    drawn = {split: {} for split in SPLITS}
    for name, paths in pieces.items():
      # A half pair counts in no split's share; it is named where everybody looks first.
      number = (place[name] >= train) + (place[name] >= train + validation) if name in pairs else 0
      drawn[SPLITS[number]][name] = paths
    return drawn


def _is_pair(paths):
  suffixes = {path.suffix.lower() for path in paths}
  return bool(suffixes & set(AUDIO_SUFFIXES)) and bool(suffixes & set(MIDI_SUFFIXES))


def _only(siblings, suffixes, base, kind):
  """Returns the one file of a kind; UserError where there is none, or several."""
  files = sorted(path for path in siblings if path.suffix.lower() in suffixes)
  if not files:
    raise UserError(f'{base} has no {kind} file: expected {base.name}{" or ".join(suffixes)} in {base.parent}')
  if len(files) > 1:
    raise UserError(f'{base} has {len(files)} {kind} files, {" and ".join(p.name for p in files)}: leave one of them')
  return files[0]
