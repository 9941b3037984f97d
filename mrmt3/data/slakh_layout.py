"""Reading of data sets in Slakh2100's layout: tracks, their audio, stems and notes.

A data set is a folder with the splits `train`, `validation` and `test` (Slakh2100's `omitted` is read only on request).
Each split has `TrackNNNNN` folders; numbers can be missing. A folder with tracks and no splits, such as
babyslakh_16k, is one split: the one that it is named after, otherwise `train`.

    train/Track00001/metadata.yaml, mix.flac, MIDI/S00.mid, stems/S00.flac

The folders MIDI and stems are always those in the track. The published metadata has `midi_dir` and `audio_dir`
relative to other places, or paths on the authors' disks. Hidden files are ignored, and names match in upper case, too.

Labels come from the MIDI files of the stems, never from all_src.mid, which also has notes of stems that are not in the
audio. Silent stems are left out (see `slakh_metadata` and `read_stems`). A stem's program is its Slakh class (see
`notes.instruments`); drums have program 0.
"""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np

from mrmt3.data.slakh_metadata import StemEntry, parse_stem, read_metadata_file
from mrmt3.errors import UserError
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.midi_file import MIDI_SUFFIXES
from mrmt3.notes.note_array import empty_notes, sort_notes

SPLITS = ('train', 'validation', 'test')
OMITTED = 'omitted'  # Slakh2100's fourth folder: duplicates of tracks in the other three
_TRACK_NAME = re.compile(r'Track\d+$')
_METADATA, _MIDI, _STEMS = 'metadata.yaml', 'MIDI', 'stems'
_MIX_NAMES = ('mix.flac', 'mix.wav', 'mix_16k.wav')
_AUDIO_SUFFIXES = ('.flac', '.wav')
_SILENCE = 1e-4  # of full scale, as in `piece_validation`


@dataclasses.dataclass(frozen=True)
class StemInfo:
  """One labelled stem of a track.

  Attributes:
    name: e.g. 'S03'.
    program: MIDI program 0..127 as rendered (not yet a Slakh class); 0 for drums.
    is_drum: whether it is a drum kit.
    inst_class: instrument family in the metadata, e.g. 'Strings'.
    midi_path: the stem's MIDI file.
    audio_path: the stem's audio file, which can be missing in data sets with mixes only.
  """

  name: str
  program: int
  is_drum: bool
  inst_class: str
  midi_path: Path
  audio_path: Path


@dataclasses.dataclass(frozen=True)
class Track:
  """A track's folder.

  Attributes:
    path: the folder.
    of_split: its split, if that is not the name of the parent folder.
  """

  path: Path
  of_split: str = ''

  @property
  def name(self) -> str:
    """The name of the folder, e.g. 'Track00001'."""
    return self.path.name

  @property
  def split(self) -> str:
    """The split, e.g. 'train'."""
    return self.of_split or self.path.parent.name

  @property
  def metadata_path(self) -> Path:
    """The path of metadata.yaml, which may not exist."""
    return _entry(self.path, _METADATA) or self.path / _METADATA

  @property
  def audio_path(self) -> Path:
    """The first existing one of mix.flac, mix.wav and mix_16k.wav; UserError if there is none."""
    mixes = self.mixes()
    if not mixes:
      raise UserError(f'{self.path} has no mix: expected one of {", ".join(_MIX_NAMES)} there')
    return mixes[0]

  def mixes(self) -> list[Path]:
    """Return the files that `audio_path` chooses from."""
    found = (_entry(self.path, name) for name in _MIX_NAMES)
    return [path for path in found if path and path.is_file()]

  def label_files(self) -> list[Path]:
    """Return the files that the notes depend on, sorted: the metadata and all MIDI files of stems."""
    return [self.metadata_path, *_midi_files(_folder(self, _MIDI))]


def find_tracks(root: str | os.PathLike, split: str | None = None) -> list[Track]:
  """Return the tracks of a data set, sorted by split and number.

  Args:
    root: the data set's folder; or, if `split` is None, the folder of a split or of a single track.
    split: 'train', 'validation', 'test' or 'omitted'; None for those of the first three that exist.

  Raises:
    UserError: the folder does not exist or has no tracks.
  """
  root = Path(root)
  if not root.is_dir():
    raise UserError(f'no data set at {root}: no such folder; check the path')
  if split is not None:
    folders = {split: split_folder(root, split)}
  elif is_track(root):
    return [Track(root if root.name else root.resolve())]
  else:
    folders = {name: folder for name, folder in split_folders(root).items() if name != OMITTED or folder == root}
  tracks = [track for name, folder in folders.items() for track in _tracks_in(folder, name)]
  if not tracks:
    where = root if split is None else folders[split]
    raise UserError(f'no tracks in {where}: expected folders named like {SPLITS[0]}/Track00001 (Slakh2100 layout)')
  return tracks


def find_track(root: str | os.PathLike, split: str, name: str) -> Track:
  """Return a track of a data set, which need not exist; UserError if there is no such split."""
  return Track(split_folder(Path(root), split) / name, split)


def is_track(folder: Path) -> bool:
  """Return whether a folder is that of a track: it is named like one, and has metadata.yaml or a folder MIDI."""
  name = folder.name or folder.resolve().name
  return bool(_TRACK_NAME.match(name)) and any(_entry(folder, entry) for entry in (_METADATA, _MIDI))


def is_dataset(folder: Path) -> bool:
  """Return whether a folder is a track, or contains tracks or splits with tracks."""
  return is_track(folder) or any(is_track(path) for each in (folder, *_visible(folder)) for path in _visible(each))


def split_folders(root: Path) -> dict[str, Path]:
  """Return split -> the folder with its tracks, for the splits that exist; UserError for tracks outside of them."""
  found = {name: root / name for name in (*SPLITS, OMITTED) if (root / name).is_dir()}
  loose = _track_folders(root)
  if not loose:
    return found
  if found.keys() & set(SPLITS):
    raise UserError(f'{loose[0]} is in none of the split folders of {root}; move it into one of them')
  return {_split_of_folder(root): root, **found}


def split_folder(root: Path, split: str) -> Path:
  """Return the folder with the tracks of a split; UserError if the data set has no such split."""
  if (root / split).is_dir():
    return root / split
  own = _split_of_folder(root)
  if split == own and _track_folders(root):
    return root
  found = [name for name in (*SPLITS, OMITTED) if (root / name).is_dir()]
  has = f'it has {", ".join(found)}' if found else 'expected a folder of that name there'
  if _track_folders(root):
    has = f'its tracks are in no split folder and count as {own!r}'
  raise UserError(f'the data set {root} has no split {split!r}: {has}')


def _split_of_folder(root):
  """Return the split of the tracks in a folder without splits."""
  name = root.resolve().name
  return name if name in (*SPLITS, OMITTED) else SPLITS[0]


def _track_folders(folder):
  return [path for path in _visible(folder) if _TRACK_NAME.match(path.name) and path.is_dir()]


def _tracks_in(folder, split):
  paths = sorted(_track_folders(folder), key=lambda path: (int(path.name[5:]), path.name))
  return [Track(path, split) for path in paths]


def _visible(folder):
  """Return the entries of a folder that are not hidden, sorted; none if it cannot be read."""
  try:
    return sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
  except OSError:
    return []


def _entry(folder, name):
  """Return the file or folder of that name, else the first one that differs only in upper case, or None."""
  if (folder / name).exists():
    return folder / name
  return next((path for path in _visible(folder) if path.name.lower() == name.lower()), None)


def _folder(track, name):
  return _entry(track.path, name) or track.path / name


def _file_of_stem(folder, name, suffixes):
  """Return the file of a stem with one of the suffixes; the usual path if there is none."""
  found = (_entry(folder, f'{name}{suffix}') for suffix in suffixes)
  return next((path for path in found if path), folder / f'{name}{suffixes[0]}')


def _midi_files(folder):
  return [path for path in _visible(folder) if path.suffix.lower() in MIDI_SUFFIXES]


def read_metadata(track: Track) -> dict:
  """Return the content of a track's metadata.yaml; UserError if it is missing or has no stems."""
  return read_metadata_file(track.metadata_path)


def read_stems(track: Track) -> list[StemInfo]:
  """Return the audible stems of a track that have labels, sorted by name.

  A stem is audible if it was rendered and has a finite `integrated_loudness`. Without that value, its audio file
  decides: it must exist and not be silent. If the track has no audio of stems, such a stem counts as audible.

  Raises:
    UserError: the metadata is broken.
  """
  midi_folder, audio_folder = _folder(track, _MIDI), _folder(track, _STEMS)
  infos = []
  for entry in _audible_entries(track):
    if entry.midi_saved:
      program = entry.checked_program(track.metadata_path)
      infos.append(
        StemInfo(
          name=entry.name,
          program=program,
          is_drum=entry.is_drum,
          inst_class=entry.inst_class,
          midi_path=_file_of_stem(midi_folder, entry.name, MIDI_SUFFIXES),
          audio_path=_file_of_stem(audio_folder, entry.name, _AUDIO_SUFFIXES),
        )
      )
  return infos


def unlabelled_stems(track: Track) -> tuple[str, ...]:
  """Return the audible stems without a MIDI file, e.g. 'S03 (Guitar)'; UserError if the metadata is broken."""
  return tuple(
    f'{entry.name} ({entry.inst_class or "unknown"})' for entry in _audible_entries(track) if not entry.midi_saved
  )


def _audible_entries(track) -> list[StemEntry]:
  stems = read_metadata(track)['stems'].items()
  entries = (parse_stem(track.metadata_path, str(name), stem) for name, stem in stems)
  return sorted((entry for entry in entries if _is_audible(track, entry)), key=lambda entry: entry.name)


def _is_audible(track, entry):
  if not entry.audio_rendered:
    return False
  if entry.loudness is not None:
    return bool(np.isfinite(entry.loudness))
  folder = _folder(track, _STEMS)
  path = _file_of_stem(folder, entry.name, _AUDIO_SUFFIXES)
  if path.is_file():
    return not _is_silent(path)
  return not any(other.suffix.lower() in _AUDIO_SUFFIXES for other in _visible(folder))


def _is_silent(path):
  """Return whether no sample of an audio file is above -80 dB of full scale; False if it cannot be read."""
  import soundfile

  try:
    with soundfile.SoundFile(path) as file:
      return all(np.abs(block).max(initial=0.0) < _SILENCE for block in file.blocks(1 << 16, dtype='float32'))
  except (OSError, soundfile.SoundFileError):
    return False  # reading the stem raises an error with the reason


def read_stem_notes(stem: StemInfo) -> np.ndarray:
  """Return the note array of one stem with its Slakh class as program; UserError if its MIDI file is broken."""
  return read_stem_notes_counted(stem)[0]


def read_stem_notes_counted(stem: StemInfo) -> tuple[np.ndarray, int]:
  """Return (notes as in `read_stem_notes`, number of notes lost in reading, see `notes.midi.read_midi_counted`)."""
  from mrmt3.notes.midi import read_midi_counted

  if not stem.midi_path.is_file():
    raise UserError(f'the MIDI file of stem {stem.name} is missing: {stem.midi_path}; restore it from the data set')
  notes, lost = read_midi_counted(stem.midi_path)
  notes = notes.copy()
  # The metadata takes precedence over program changes in the stem's file.
  notes['program'] = stem.program
  notes['is_drum'] = stem.is_drum
  return map_to_slakh_classes(notes), lost


def read_published_notes(track: Track) -> np.ndarray:
  """Return the notes of all MIDI files of a track, with the files' programs and 0 for drums, as one sorted note array.

  Published scores use this reference. It includes stems that are not in the mix and programs that no model can predict.

  Raises:
    UserError: the folder MIDI is missing, or a file is broken, also of a stem that is not in the mix.
  """
  from mrmt3.notes.midi import read_midi

  folder = _folder(track, _MIDI)
  if not folder.is_dir():
    raise UserError(f'{track.path} has no folder {_MIDI}; restore it from the data set')
  paths = _midi_files(folder)
  return sort_notes(np.concatenate([empty_notes(), *(read_midi(path) for path in paths)]))


def read_notes(track: Track) -> np.ndarray:
  """Return the notes of all labelled stems of a track as one sorted note array, untrimmed.

  Raises:
    UserError: the metadata or a stem's MIDI file is missing or broken.
  """
  tables = [read_stem_notes(stem) for stem in read_stems(track)]
  return sort_notes(np.concatenate(tables)) if tables else empty_notes()
