"""Random access to the records that `tfds_slakh` writes, or of any TFDS data set with audio, sequence and id.

Files in the formats tfrecord and array_record are read directly. Neither TensorFlow nor TFDS is imported.
"""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path

from mrmt3.data.piece_source import PieceContent
from mrmt3.data.records.layouts import LAYOUTS, decode_record
from mrmt3.data.records.tfrecord import read_record
from mrmt3.errors import UserError
from mrmt3.utils.fingerprints import files_fingerprint

_INFO = 'dataset_info.json'
_LAYOUT = LAYOUTS['maestro']


@dataclasses.dataclass(frozen=True)
class TfdsRecords:
  """A TFDS data set with the features audio (a file), sequence (a NoteSequence) and id as a `piece_source.PieceSource`.

  A piece's name is 'file#number', counted from 0.

  Attributes:
    data_dir: the folder with dataset_info.json (named by a version, like 1.0.0), or a parent folder that contains no
      other data set.
  """

  data_dir: str

  def splits(self) -> tuple[str, ...]:
    """Return the splits of the data set; UserError if there is no data set."""
    return tuple(_read_info(self._folder())[1])

  def list_pieces(self, split: str) -> list[str]:
    """Return the records' names, in order of file and position; UserError if there are none or a file is missing."""
    return [f'{file.name}#{number}' for file, size in self._files(split) for number in range(size)]

  def read_piece(self, split: str, name: str, sample_rate: int, stems: bool = False) -> PieceContent:
    """Read one record, without stems; UserError if it is damaged or has other features."""
    data, where = self.read_record(name)
    return decode_record(data, _LAYOUT, where, sample_rate)

  def read_record(self, name: str) -> tuple[bytes, str]:
    """Return (a record's bytes, its name in error messages); UserError if it is damaged or does not exist."""
    file, _, number = name.rpartition('#')
    path = self._folder() / file
    if not file or not number.isdecimal() or not path.is_file():
      raise UserError(f'{name!r} is not a record of {self.data_dir}; expected a name like file#0')
    is_array = _read_info(self._folder())[0] == 'array_record'
    return (_read_array_record if is_array else read_record)(path, int(number)), f'{path}: record {number}'

  def fingerprint(self, split: str) -> str:
    """Return a digest of the names, sizes and times of the split's files."""
    return files_fingerprint([file for file, _ in self._files(split)], self._folder())

  def _folder(self) -> Path:
    return _find_folder(Path(self.data_dir))

  def _files(self, split):
    """Return [(file, number of records)] of a split."""
    folder = self._folder()
    splits = _read_info(folder)[1]
    if split not in splits:
      raise UserError(f'the data set {folder} has no split {split!r}, only {", ".join(splits)}')
    for file, _ in splits[split]:
      if not file.is_file():
        raise UserError(f'the file {file} of the split {split!r} is missing; build the records again')
    return splits[split]


@functools.lru_cache(maxsize=64)
def _find_folder(root: Path) -> Path:
  """Return the folder with dataset_info.json: `root`, or the only one up to three levels below it."""
  levels = ('', '*/', '*/*/', '*/*/*/')
  found = next((files for level in levels if (files := sorted(root.glob(f'{level}{_INFO}')))), [])
  inside = {file: file.relative_to(root) for file in found}
  found = [
    file
    for file, path in inside.items()
    if '.incomplete' not in str(path) and not any(part.startswith('.') for part in path.parts)
  ]
  if not found:
    raise UserError(f'no records at {root}: expected {_INFO} there; build them with python -m mrmt3.data.tfds_slakh')
  if len(found) > 1:
    raise UserError(f'several data sets in {root}: name one of {", ".join(str(file.parent) for file in found)}')
  return found[0].parent


def _read_info(folder):
  """Return (file format, {split: [(file, number of records)]}) of a data set."""
  path = folder / _INFO
  try:
    return _parse_info(path, path.stat().st_mtime_ns)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  except (ValueError, KeyError, TypeError) as error:
    reason = f'{type(error).__name__}: {error}'
    raise UserError(f'{path} is not a dataset_info.json of TFDS ({reason}); build the records again') from error


@functools.lru_cache(maxsize=64)
def _parse_info(path, _changed):
  info = json.loads(path.read_text('utf-8'))
  splits = {}
  for split in info['splits']:
    sizes = [int(size) for size in split['shardLengths']]
    template = split['filepathTemplate']
    fields = {'{DATASET}': info['name'], '{SPLIT}': split['name'], '{FILEFORMAT}': info['fileFormat']}
    for field, value in fields.items():
      template = template.replace(field, value)
    names = [template.replace('{SHARD_X_OF_Y}', f'{i:05d}-of-{len(sizes):05d}') for i in range(len(sizes))]
    splits[split['name']] = [(path.parent / name, size) for name, size in zip(names, sizes, strict=True)]
  return info['fileFormat'], splits


def _read_array_record(path: Path, number: int) -> bytes:
  try:
    from array_record.python.array_record_module import ArrayRecordReader
  except ImportError as error:
    raise UserError(
      f'{path} is an array_record file, which needs array_record: pip install array_record, or build tfrecord files'
    ) from error

  reader = None
  try:
    reader = ArrayRecordReader(str(path))
    if number < reader.num_records():
      return reader.read([number])[0]
    problem = f'the file has only {reader.num_records()} records'
  except (IndexError, RuntimeError, ValueError) as error:
    problem = ' '.join(str(error).split())[:200]
  finally:
    if reader is not None:
      with contextlib.suppress(RuntimeError):  # closing a damaged file raises again
        reader.close()
  raise UserError(f'{path}: record {number}: {problem}; get the file again')
