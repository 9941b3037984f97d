"""Pieces from TFRecord files in MT3's published layouts: MAESTRO, GuitarSet, URMP, MusicNet, Cerberus4, Slakh."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mrmt3.data.piece_source import PieceContent
from mrmt3.data.records.layouts import LAYOUTS, decode_record
from mrmt3.data.records.tfrecord import find_files, find_records, read_record
from mrmt3.errors import UserError
from mrmt3.utils.fingerprints import files_fingerprint

_SLAKH, _CERBERUS = 'slakh_multi_full', 'slakh_multi_cerberus'
_BAND = 'bass:drums:guitar:piano.tfrecord'

# The files that MT3 was trained and evaluated on, by name of the data set: (layout, split -> pattern).
PUBLISHED = {
  'maestrov1': (
    'maestro',
    {
      'train': 'maestro-v1.0.0_ns_wav_train.tfrecord-?????-of-00010',
      'train_subset': 'maestro-v1.0.0_ns_wav_train.tfrecord-00002-of-00010',
      'validation': 'maestro-v1.0.0_ns_wav_validation.tfrecord-?????-of-00010',
      'validation_subset': 'maestro-v1.0.0_ns_wav_validation.tfrecord-0000[06]-of-00010',
      'test': 'maestro-v1.0.0_ns_wav_test.tfrecord-?????-of-00010',
    },
  ),
  'maestrov3': (
    'maestro',
    {
      'train': 'maestro-v3.0.0_ns_wav_train.tfrecord-?????-of-00025',
      'train_subset': 'maestro-v3.0.0_ns_wav_train.tfrecord-00004-of-00025',
      'validation': 'maestro-v3.0.0_ns_wav_validation.tfrecord-?????-of-00025',
      'validation_subset': 'maestro-v3.0.0_ns_wav_validation.tfrecord-0002?-of-00025',
      'test': 'maestro-v3.0.0_ns_wav_test.tfrecord-?????-of-00025',
    },
  ),
  'guitarset': (
    'guitarset',
    {
      'train': 'train.tfrecord-?????-of-00019',
      'validation': 'validation.tfrecord-?????-of-00006',
    },
  ),
  'urmp': ('urmp', {'train': 'train.tfrecord', 'validation': 'validation.tfrecord'}),
  'musicnet': (
    'musicnet',
    {
      'train': 'musicnet-train.tfrecord-?????-of-00036',
      'validation': 'musicnet-validation.tfrecord-?????-of-00005',
      'test': 'musicnet-test.tfrecord-?????-of-00003',
    },
  ),
  'musicnet_em': (
    'musicnet',
    {
      'train': 'train.tfrecord-?????-of-00103',
      'validation': 'validation.tfrecord-?????-of-00005',
      'test': 'test.tfrecord-?????-of-00006',
    },
  ),
  'cerberus4': (
    'cerberus4',
    {
      'train': f'{_CERBERUS}_train_{_BAND}-?????-of-00286',
      'train_subset': f'{_CERBERUS}_train_{_BAND}-00000-of-00286',
      'validation': f'{_CERBERUS}_validation_{_BAND}-?????-of-00212',
      'validation_subset': f'{_CERBERUS}_validation_{_BAND}-0000?-of-00212',
      'test': f'{_CERBERUS}_test_{_BAND}-?????-of-00106',
    },
  ),
  'slakh': (
    'slakh',
    {
      'train': f'{_SLAKH}_subsets_10_train_all_inst.tfrecord-?????-of-02307',
      'train_subset': f'{_SLAKH}_subsets_10_train_all_inst.tfrecord-00000-of-02307',
      'validation': f'{_SLAKH}_validation_all_inst.tfrecord-?????-of-00168',
      'validation_subset': f'{_SLAKH}_validation_all_inst.tfrecord-0000?-of-00168',
      'test': f'{_SLAKH}_test_all_inst.tfrecord-?????-of-00109',
    },
  ),
}


@dataclasses.dataclass(frozen=True)
class Mt3Records:
  """TFRecord files as a `piece_source.PieceSource`. Neither TensorFlow nor note_seq is imported.

  A piece is a record. Its name is 'file#number', counted from 0. Records are found by their headers and read one at a
  time. Damaged records are listed as well, and reading one raises an error. So is the first record after which no more
  can be found in a file.

  Attributes:
    data_dir: the folder that patterns are relative to.
    layout: 'maestro', 'guitarset', 'urmp', 'musicnet', 'cerberus4' or 'slakh', see `records.layouts`.
    paths: split -> files in `data_dir`: 'name@10', a glob like 'name-?????-of-00010', or a file name. A mapping works
      too. All ten files of 'name@10' must exist; a glob takes the files that exist.
  """

  data_dir: str
  layout: str
  paths: tuple[tuple[str, str], ...]

  def __post_init__(self):
    if isinstance(self.paths, Mapping):
      object.__setattr__(self, 'paths', tuple(self.paths.items()))
    if self.layout not in LAYOUTS:
      raise UserError(f'unknown record layout {self.layout!r}; choose one of {", ".join(LAYOUTS)}')

  def splits(self) -> tuple[str, ...]:
    """Return the splits whose files exist; UserError if none do, or some files of 'name@10' are missing."""
    if not Path(self.data_dir).is_dir():
      raise UserError(f'no data set at {self.data_dir}: no such folder; check data_dir')
    found, errors = [], []
    for split, pattern in self.paths:
      try:
        find_files(self.data_dir, pattern)
        found.append(split)
      except UserError as error:
        errors.append(error)
    if not found and errors:
      raise errors[0]
    return tuple(found)

  def list_pieces(self, split: str) -> list[str]:
    """Return the records' names, in order of file and position; UserError if there are none."""
    root = Path(self.data_dir)
    names = [
      f'{file.relative_to(root).as_posix()}#{number}'
      for file in self._files(split)
      for number in range(len(find_records(file)))
    ]
    if not names:
      raise UserError(f'no records in the files {root / dict(self.paths)[split]}: check their contents')
    return names

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one record; with `stems` also the stems, if the record has them.

    Raises:
      UserError: the record is damaged, does not match the layout, or has an unknown instrument name.
    """
    file, _, number = name.rpartition('#')
    path = Path(self.data_dir) / file
    if not file or not number.isdecimal():
      raise UserError(f'{name!r} is not a record of {self.data_dir}; expected a name like file#0')
    return decode_record(
      read_record(path, int(number)), LAYOUTS[self.layout], f'{path}: record {number}', sample_rate, stems
    )

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files."""
    return files_fingerprint(self._files(split), Path(self.data_dir))

  def _files(self, split):
    paths = dict(self.paths)
    if split not in paths:
      raise UserError(f'the data set {self.data_dir} has no split {split!r}, only {", ".join(paths)}')
    return find_files(self.data_dir, paths[split])


def published(name: str, data_dir: str) -> Mt3Records:
  """Return one of MT3's data sets, whose files in `data_dir` have their published names.

  Args:
    name: one of `PUBLISHED`: maestrov1, maestrov3, guitarset, urmp, musicnet, musicnet_em, cerberus4, slakh.
    data_dir: the folder with the files; some may be missing.

  Raises:
    UserError: the name is unknown.
  """
  if name not in PUBLISHED:
    raise UserError(f'unknown data set {name!r}; choose one of {", ".join(PUBLISHED)}')
  layout, paths = PUBLISHED[name]
  return Mt3Records(str(data_dir), layout, paths)
