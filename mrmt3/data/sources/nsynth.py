"""Pieces from NSynth, one note each, from its folders (examples.json and wav files) or the records of TFDS's `nsynth`.

MR-MT3 (arXiv 2403.10024) transcribes the validation split to measure how much a model depends on the sounds of its
training data. 50 ms of silence precede the note, the note lasts 4 s, and its program is the first one of its family.
Vocals and mallets are left out, because ComMU has neither.
"""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from mrmt3.audio.files import read_audio, resample
from mrmt3.data.piece_source import PieceContent
from mrmt3.data.records.messages import Example
from mrmt3.data.sources.tfds_records import TfdsRecords
from mrmt3.errors import UserError
from mrmt3.notes.note_array import as_notes
from mrmt3.utils.fingerprints import files_fingerprint

SILENCE = 0.05  # s, before the note
SECONDS = 4.0  # of the note and of its file
SAMPLE_RATE = 16000  # Hz
LEFT_OUT = ('vocal', 'mallet')
_FOLDERS = {'train': 'nsynth-train', 'validation': 'nsynth-valid', 'test': 'nsynth-test'}
_TFDS_SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}

# In the order of NSynth's family numbers; None if General MIDI has no such program.
PROGRAMS = {
  'bass': 32,
  'brass': 56,
  'flute': 72,
  'guitar': 24,
  'keyboard': 0,
  'mallet': 8,
  'organ': 16,
  'reed': 64,
  'string': 40,
  'synth_lead': 80,
  'vocal': None,
}


def one_note(samples: np.ndarray, sample_rate: int, family: str, pitch: int, velocity: int) -> PieceContent:
  """Return a note's samples, float32 `[n]`, as a piece that begins with silence."""
  samples = np.concatenate([np.zeros(round(SILENCE * sample_rate), np.float32), samples])
  return PieceContent(samples, _notes_of(family, pitch, velocity))


def _notes_of(family, pitch, velocity):
  return as_notes([(SILENCE, SILENCE + SECONDS, pitch, velocity, PROGRAMS[family], 0)])


def _check_families(left_out):
  unknown = [family for family in left_out if family not in PROGRAMS]
  if unknown:
    raise UserError(f'left_out: NSynth has no family {unknown[0]!r}; choose from {", ".join(PROGRAMS)}')
  if 'vocal' not in left_out:
    raise UserError("left_out lacks 'vocal': the vocals of NSynth have no program, so add them to left_out")


@dataclasses.dataclass(frozen=True)
class _Nsynth:
  data_dir: str
  left_out: tuple[str, ...] = LEFT_OUT

  def __post_init__(self):
    object.__setattr__(self, 'left_out', tuple(self.left_out))
    _check_families(self.left_out)


@dataclasses.dataclass(frozen=True)
class NsynthFolder(_Nsynth):
  """NSynth's folders nsynth-train, nsynth-valid and nsynth-test as a `piece_source.PieceSource`.

  A piece's name is the name of its note.

  Attributes:
    data_dir: the folder that contains them (any of them), or one of them.
    left_out: families that are left out; 'vocal' must be among them.
  """

  def splits(self) -> tuple[str, ...]:
    """Return the existing splits among train, validation and test; UserError if there are none."""
    return tuple(self._folders())

  def list_pieces(self, split: str) -> list[str]:
    """Return the notes' names, sorted, e.g. 'bass_synthetic_033-022-050'; UserError if there are none."""
    names = sorted(name for name, note in self._notes(split).items() if note[0] not in self.left_out)
    if not names:
      raise UserError(f'{self._folder(split)} has only notes of {", ".join(self.left_out)}, which left_out excludes')
    return names

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one note, without stems; UserError if it is unknown, or its wav file is missing or broken."""
    known = self._known(split, name)
    return one_note(read_audio(self._audio(split, name), sample_rate, whole=True), sample_rate, *known)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Return the note array of one note; UserError if it is unknown."""
    return _notes_of(*self._known(split, name))

  def _known(self, split, name):
    """Return (family, pitch, velocity) of a note."""
    notes = self._notes(split)
    if name not in notes:
      raise UserError(f'{self._folder(split)} has no note {name!r}; check examples.json')
    return notes[name]

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files."""
    folder = self._folder(split)
    return files_fingerprint(
      [folder / 'examples.json', *(self._audio(split, name) for name in self.list_pieces(split))], folder
    )

  def _folders(self):
    root = Path(self.data_dir)
    if not root.is_dir():
      raise UserError(f'no data set at {root}: no such folder; check data_dir')
    found = {split: root / name for split, name in _FOLDERS.items() if (root / name / 'examples.json').is_file()}
    if not found and (root / 'examples.json').is_file():
      # A folder with another name counts as validation, the split that MR-MT3 uses.
      found = {{name: split for split, name in _FOLDERS.items()}.get(root.resolve().name, 'validation'): root}
    if not found:
      raise UserError(f'no NSynth in {root}: expected {_FOLDERS["validation"]}/examples.json there')
    return found

  def _folder(self, split):
    folders = self._folders()
    if split not in folders:
      raise UserError(f'NSynth in {self.data_dir} has no split {split!r}; it has {", ".join(folders)}')
    return folders[split]

  def _audio(self, split, name):
    return self._folder(split) / 'audio' / f'{name}.wav'

  def _notes(self, split):
    path = self._folder(split) / 'examples.json'
    return _read_notes(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_notes(path: Path, _changed) -> dict[str, tuple[str, int, int]]:
  """Return {name: (family, pitch, velocity)} of an examples.json."""
  try:
    table = json.loads(path.read_bytes())
    notes = {
      name: (one['instrument_family_str'], int(one['pitch']), int(one['velocity'])) for name, one in table.items()
    }
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    reason = f'{type(error).__name__}: {" ".join(str(error).split())[:100]}'
    raise UserError(f"{path} is not NSynth's examples.json ({reason}); replace the file") from error
  unknown = {family for family, _, _ in notes.values()} - PROGRAMS.keys()
  if unknown:
    raise UserError(f'{path}: unknown instrument family {min(unknown)!r}; NSynth has {", ".join(PROGRAMS)}')
  return notes


@dataclasses.dataclass(frozen=True)
class NsynthRecords(_Nsynth):
  """The records of TFDS's `nsynth` (config 'full', tfrecord files) as a `piece_source.PieceSource`, without TensorFlow.

  A piece's name is 'file#number', counted from 0. Only the record itself has its instrument family, so listing a split
  reads all its records, once per process.

  Attributes:
    data_dir: the folder with dataset_info.json, or a parent folder that contains no other data set.
    left_out: families that are left out; 'vocal' must be among them.
  """

  def splits(self) -> tuple[str, ...]:
    """Return the existing splits among train, validation and test; UserError if there is no data set."""
    tfds_splits = TfdsRecords(self.data_dir).splits()
    return tuple(split for split, name in _TFDS_SPLITS.items() if name in tfds_splits)

  def list_pieces(self, split: str) -> list[str]:
    """Return the records' names, in order of file and position; UserError if there are none.

    Damaged records are listed as well, and reading one raises an error.
    """
    families = _families(self, self._split(split), self.fingerprint(split))
    names = [name for name, family in families.items() if family not in self.left_out]
    if not names:
      raise UserError(
        f'NSynth in {self.data_dir} has only notes of {", ".join(self.left_out)} in {split!r}, which left_out excludes'
      )
    return names

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one record, without stems; UserError if it is damaged or has other features."""
    example, where = self.read_example(name)
    family, pitch, velocity = (
      _family(example, where),
      _number(example, 'pitch', where),
      _number(example, 'velocity', where),
    )
    samples = example.get('audio')
    if not (isinstance(samples, np.ndarray) and samples.dtype == np.float32 and len(samples)):
      raise UserError(f"{where}: no samples; are these the records of TFDS's nsynth?")
    finite = np.isfinite(samples).all()  # resampling would spread NaN; piece_validation rejects such a piece
    samples = resample(samples, SAMPLE_RATE, sample_rate) if finite else samples
    return one_note(samples, sample_rate, family, pitch, velocity)

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files."""
    return TfdsRecords(self.data_dir).fingerprint(self._split(split))

  def read_example(self, name: str) -> tuple[Example, str]:
    """Return (the features of a record, its name in error messages)."""
    data, where = TfdsRecords(self.data_dir).read_record(name)
    try:
      return Example(data), where
    except ValueError as error:
      raise UserError(f'{where}: {error}; get the file again') from error

  def _split(self, split):
    if split not in self.splits():
      raise UserError(f'NSynth in {self.data_dir} has no split {split!r}; it has {", ".join(self.splits())}')
    return _TFDS_SPLITS[split]


def _number(example, key, where):
  values = example.get(key, ())
  if not isinstance(values, np.ndarray) or len(values) != 1:
    raise UserError(f"{where}: no feature {key!r}; are these the records of TFDS's nsynth?")
  return int(values[0])


def _family(example, where):
  number = _number(example, 'instrument/family', where)
  if not 0 <= number < len(PROGRAMS):
    raise UserError(f'{where}: unknown instrument family {number}, expected 0 to {len(PROGRAMS) - 1}')
  return list(PROGRAMS)[number]


@functools.lru_cache(maxsize=8)
def _families(source: NsynthRecords, split: str, _fingerprint: str) -> dict[str, str | None]:
  """Return {record: family} of a TFDS split, with None for records that cannot be read."""
  families = {}
  for name in TfdsRecords(source.data_dir).list_pieces(split):
    try:
      families[name] = _family(*source.read_example(name))
    except UserError:
      families[name] = None
  return families
