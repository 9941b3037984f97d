"""Pieces from NSynth: one note each, from its folders (examples.json and wav files) or from the records of TFDS's `nsynth`.

MR-MT3 (arXiv 2403.10024) transcribes its validation part to see how far a model is bound to the sounds it has heard: 50 ms
of silence are put in front, the note lasts 4 s, its program is the first of its family's, and vocals and mallets are left
out (ComMU has neither).
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

SILENCE = 0.05  # s, in front of the note
SECONDS = 4.0  # of the note and of its file
SAMPLE_RATE = 16000  # Hz
LEFT_OUT = ('vocal', 'mallet')
_FOLDERS = {'train': 'nsynth-train', 'validation': 'nsynth-valid', 'test': 'nsynth-test'}
_TFDS_SPLITS = {'train': 'train', 'validation': 'valid', 'test': 'test'}

# In the order of NSynth's numbers; None: General MIDI has no such program.
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
  """Returns a sound of NSynth, float32 `[n]`, as a piece, with silence in front."""
  samples = np.concatenate([np.zeros(round(SILENCE * sample_rate), np.float32), samples])
  return PieceContent(samples, _notes_of(family, pitch, velocity))


def _notes_of(family, pitch, velocity):
  return as_notes([(SILENCE, SILENCE + SECONDS, pitch, velocity, PROGRAMS[family], 0)])


def _check_families(left_out):
  unknown = [family for family in left_out if family not in PROGRAMS]
  if unknown:
    raise UserError(f'NSynth has no family {unknown[0]!r}; it has {", ".join(PROGRAMS)}')
  if 'vocal' not in left_out:
    raise UserError('the vocals of NSynth have no program: leave them out (left_out)')


@dataclasses.dataclass(frozen=True)
class _Nsynth:
  data_dir: str
  left_out: tuple[str, ...] = LEFT_OUT

  def __post_init__(self):
    object.__setattr__(self, 'left_out', tuple(self.left_out))
    _check_families(self.left_out)


@dataclasses.dataclass(frozen=True)
class NsynthFolder(_Nsynth):
  """NSynth's folders nsynth-train, nsynth-valid and nsynth-test as a `pieces.PieceSource`. A piece's name is its note's.

  Attributes:
    data_dir: the folder that they are in (any of them), or one of them.
    left_out: families that are left out; 'vocal' must be among them.
  """

  def splits(self) -> tuple[str, ...]:
    """Returns which of train, validation and test are there; UserError if there are none."""
    return tuple(self._folders())

  def list_pieces(self, split: str) -> list[str]:
    """Returns the notes' names, sorted, e.g. 'bass_synthetic_033-022-050'; UserError if there are none."""
    names = sorted(name for name, note in self._notes(split).items() if note[0] not in self.left_out)
    if not names:
      raise UserError(f'{self._folder(split)} has no notes but of {", ".join(self.left_out)}')
    return names

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Reads one note; it has no stems. UserError where it is not known, or its wav file is missing or broken."""
    known = self._known(split, name)
    return one_note(read_audio(self._audio(split, name), sample_rate, whole=True), sample_rate, *known)

  def read_notes(self, split: str, name: str) -> np.ndarray:
    """Returns the table of one note; UserError where it is not known."""
    return _notes_of(*self._known(split, name))

  def _known(self, split, name):
    """Returns (family, pitch, velocity) of a note."""
    notes = self._notes(split)
    if name not in notes:
      raise UserError(f'{self._folder(split)} has no note {name!r}')
    return notes[name]

  def fingerprint(self, split: str) -> str:
    """Returns a digest of the names, sizes and times of the split's files."""
    folder = self._folder(split)
    return files_fingerprint(
      [folder / 'examples.json', *(self._audio(split, name) for name in self.list_pieces(split))], folder
    )

  def _folders(self):
    root = Path(self.data_dir)
    if not root.is_dir():
      raise UserError(f'no data set at {root}: no such folder')
    found = {split: root / name for split, name in _FOLDERS.items() if (root / name / 'examples.json').is_file()}
    if not found and (root / 'examples.json').is_file():
      # Under a name of its own it is what MR-MT3 uses.
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
  """Returns {name: (family, pitch, velocity)} of an examples.json."""
  try:
    table = json.loads(path.read_bytes())
    notes = {
      name: (one['instrument_family_str'], int(one['pitch']), int(one['velocity'])) for name, one in table.items()
    }
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{path} is not NSynth's ({type(error).__name__}: {' '.join(str(error).split())[:100]})") from error
  unknown = {family for family, _, _ in notes.values()} - PROGRAMS.keys()
  if unknown:
    raise UserError(f'{path}: unknown instrument family {min(unknown)!r}; NSynth has {", ".join(PROGRAMS)}')
  return notes


@dataclasses.dataclass(frozen=True)
class NsynthRecords(_Nsynth):
  """The records of TFDS's `nsynth` (config 'full', tfrecord files) as a `pieces.PieceSource`; TensorFlow is not imported.

  A piece's name is 'file#number', counted from 0. Which family a record is of stands in the record alone, so listing a split
  reads all of it, once a process.

  Attributes:
    data_dir: the folder with dataset_info.json, or one above it with no other in it.
    left_out: families that are left out; 'vocal' must be among them.
  """

  def splits(self) -> tuple[str, ...]:
    """Returns which of train, validation and test are there; UserError if there is no data set."""
    there = TfdsRecords(self.data_dir).splits()
    return tuple(split for split, name in _TFDS_SPLITS.items() if name in there)

  def list_pieces(self, split: str) -> list[str]:
    """Returns the records' names, in order of file and place; UserError if there are none.

    One that is damaged is listed all the same, and named when it is read.
    """
    families = _families(self, self._split(split), self.fingerprint(split))
    names = [name for name, family in families.items() if family not in self.left_out]
    if not names:
      raise UserError(f'NSynth in {self.data_dir} has no notes in {split!r} but of {", ".join(self.left_out)}')
    return names

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Reads one record; there are no stems. UserError where it is damaged or has other features."""
    example, where = self.read_example(name)
    family, pitch, velocity = (
      _family(example, where),
      _number(example, 'pitch', where),
      _number(example, 'velocity', where),
    )
    samples = example.get('audio')
    if not (isinstance(samples, np.ndarray) and samples.dtype == np.float32 and len(samples)):
      raise UserError(f"{where}: no samples; are these the records of TFDS's nsynth?")
    finite = np.isfinite(samples).all()  # what is not finite is left to whoever checks the piece
    samples = resample(samples, SAMPLE_RATE, sample_rate) if finite else samples
    return one_note(samples, sample_rate, family, pitch, velocity)

  def fingerprint(self, split: str) -> str:
    """Returns a digest of the names, sizes and times of the split's files."""
    return TfdsRecords(self.data_dir).fingerprint(self._split(split))

  def read_example(self, name: str) -> tuple[Example, str]:
    """Returns (the features of a record, what to call it in errors)."""
    data, where = TfdsRecords(self.data_dir).read_record(name)
    try:
      return Example(data), where
    except ValueError as error:
      raise UserError(f'{where}: it is {error}') from error

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
    raise UserError(f'{where}: there is no instrument family {number}')
  return list(PROGRAMS)[number]


@functools.lru_cache(maxsize=8)
def _families(source: NsynthRecords, split: str, _fingerprint: str) -> dict[str, str | None]:
  """Returns {record: its family} of a split of TFDS, None for what cannot be read."""
  families = {}
  for name in TfdsRecords(source.data_dir).list_pieces(split):
    try:
      families[name] = _family(*source.read_example(name))
    except UserError:
      families[name] = None
  return families
