"""Reading of data sets in Slakh2100's layout: tracks, their audio, stems and notes.

A data set is a folder with the splits `train`, `validation` and `test` (Slakh2100's `omitted` is read only on request).
Each split has `TrackNNNNN` folders; numbers can be missing. Labels come from the MIDI files of the stems, never from
all_src.mid, which also has notes of stems that are not in the audio. Stems that were not rendered or have no integrated
loudness are left out, as in MT3. A stem's program is its Slakh class (see `notes.instruments`); drums have program 0.
"""

import dataclasses
import os
import re
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import map_to_slakh_classes
from mrmt3.notes.note_array import empty_notes, sort_notes
from mrmt3.utils import bounded_files, strict_yaml

SPLITS = ('train', 'validation', 'test')
_TRACK_NAME = re.compile(r'Track\d+$')
_MIX_NAMES = ('mix.flac', 'mix.wav', 'mix_16k.wav')
_DRUM_PROGRAM_NUM = 128


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
  """A track's folder."""

  path: Path

  @property
  def name(self) -> str:
    """The name of the folder, e.g. 'Track00001'."""
    return self.path.name

  @property
  def split(self) -> str:
    """The name of the parent folder, e.g. 'train'."""
    return self.path.parent.name

  @property
  def audio_path(self) -> Path:
    """The first existing one of mix.flac, mix.wav and mix_16k.wav; UserError if there is none."""
    for name in _MIX_NAMES:
      if (self.path / name).is_file():
        return self.path / name
    raise UserError(f'{self.path} has no mix: expected one of {", ".join(_MIX_NAMES)} there')


def find_tracks(root: str | os.PathLike, split: str | None = None) -> list[Track]:
  """Return the tracks of a data set, sorted by split and number.

  Args:
    root: the data set's folder, or (if `split` is None) the folder of a split.
    split: 'train', 'validation', 'test' or 'omitted'; None for those of the first three that exist.

  Raises:
    UserError: the folder does not exist or has no tracks.
  """
  root = Path(root)
  if not root.is_dir():
    raise UserError(f'no data set at {root}: no such folder; check the path')
  if split is not None:
    folders = [root / split]
    if not folders[0].is_dir():
      raise UserError(f'the data set {root} has no split {split!r}: expected a folder of that name there')
  else:
    folders = [root / name for name in SPLITS if (root / name).is_dir()] or [root]
  tracks = [track for folder in folders for track in _tracks_in(folder)]
  if not tracks:
    where = root if split is None else folders[0]
    raise UserError(f'no tracks in {where}: expected folders named like {SPLITS[0]}/Track00001 (Slakh2100 layout)')
  return tracks


def _tracks_in(folder):
  paths = [path for path in folder.iterdir() if _TRACK_NAME.match(path.name) and path.is_dir()]
  return [Track(path) for path in sorted(paths, key=lambda path: (int(path.name[5:]), path.name))]


def read_metadata(track: Track) -> dict:
  """Return the content of a track's metadata.yaml; UserError if it is missing or has no stems."""
  path = track.path / 'metadata.yaml'
  try:
    metadata = strict_yaml.loads(bounded_files.read_bytes(path, strict_yaml.MAX_BYTES))
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except ValueError as error:
    raise UserError(f'{path} is not YAML ({str(error)[:120]}); replace the file') from error
  stems = metadata.get('stems') if isinstance(metadata, dict) else None
  if not isinstance(stems, dict) or not all(isinstance(stem, dict) for stem in stems.values()):
    raise UserError(f"{path} is not a Slakh track's metadata: it has no table of stems; replace the file")
  for name in metadata['stems']:
    if not re.fullmatch(r'[\w -]{1,80}', str(name)):  # it becomes a part of paths
      raise UserError(f'{path}: {str(name)[:80]!r} is not the name of a stem, such as S00; replace the file')
  return metadata


def read_stems(track: Track) -> list[StemInfo]:
  """Return the audible stems of a track that have labels, sorted by name; UserError if the metadata is broken."""
  metadata = read_metadata(track)
  midi_folder = _midi_folder(track, metadata)
  audio_folder = track.path / str(metadata.get('audio_dir') or 'stems')
  return [
    _stem_info(track, str(name), entry, midi_folder, audio_folder)
    for name, entry in sorted(metadata['stems'].items(), key=lambda item: str(item[0]))
    if _is_audible(entry) and entry.get('midi_saved', True)
  ]


def unlabelled_stems(track: Track) -> tuple[str, ...]:
  """Return the audible stems without a MIDI file, e.g. 'S03 (Guitar)'; UserError if the metadata is broken."""
  stems = read_metadata(track)['stems'].items()
  unlabelled = [(str(name), entry) for name, entry in stems if _is_audible(entry) and not entry.get('midi_saved', True)]
  return tuple(
    f'{name} ({entry.get("inst_class", "unknown")})' for name, entry in sorted(unlabelled, key=lambda x: x[0])
  )


def _is_audible(entry):
  loudness = entry.get('integrated_loudness')
  return bool(entry.get('audio_rendered')) and isinstance(loudness, (int, float)) and np.isfinite(loudness)


def _midi_folder(track, metadata):
  return track.path / str(metadata.get('midi_dir') or 'MIDI')


def _stem_info(track, name, entry, midi_folder, audio_folder):
  program = entry.get('program_num')
  is_drum = entry.get('is_drum') is True or program == _DRUM_PROGRAM_NUM
  if not is_drum and not (type(program) is int and 0 <= program < 128):
    raise UserError(
      f'{track.path / "metadata.yaml"}: stem {name} has program_num {program!r:.80}; it must be 0 to 127, 128 for drums'
    )
  audio_path = audio_folder / f'{name}.flac'
  if not audio_path.exists() and (audio_folder / f'{name}.wav').exists():
    audio_path = audio_folder / f'{name}.wav'
  return StemInfo(
    name=name,
    program=0 if is_drum else program,
    is_drum=is_drum,
    inst_class=str(entry.get('inst_class', '')),
    midi_path=midi_folder / f'{name}.mid',
    audio_path=audio_path,
  )


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
    UserError: a file is broken, also of a stem that is not in the mix.
  """
  from mrmt3.notes.midi import read_midi

  paths = sorted(_midi_folder(track, read_metadata(track)).glob('*.mid'))
  return sort_notes(np.concatenate([empty_notes(), *(read_midi(path) for path in paths)]))


def read_notes(track: Track) -> np.ndarray:
  """Return the notes of all labelled stems of a track as one sorted note array, untrimmed.

  Raises:
    UserError: the metadata or a stem's MIDI file is missing or broken.
  """
  tables = [read_stem_notes(stem) for stem in read_stems(track)]
  return sort_notes(np.concatenate(tables)) if tables else empty_notes()
