"""Conversion of a data set from its original folders to TFRecord files with MT3's file names, splits and features.

convert('maestrov3', '/data/maestro-v3.0.0', '/data/records')    -> /data/records/maestrov3/maestro-v3.0.0_ns_wav_...
"""

import dataclasses
import fnmatch
import functools
import json
import os
from pathlib import Path

from mrmt3.data import catalogue
from mrmt3.data.convert.base import Options
from mrmt3.data.records.messages import serialize_example
from mrmt3.data.records.tfrecord import framed
from mrmt3.data.sources.mt3_records import PUBLISHED
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_folder
from mrmt3.utils.parallel import parallel_if_long, with_bar

SKIPPED = 'skipped.jsonl'
_RATES = 8000, 192000  # Hz


@dataclasses.dataclass(frozen=True)
class Converted:
  """The outcome of `convert`.

  Attributes:
    folder: folder with the files.
    records: split -> number of records.
    left_out: number of pieces that could not be read; the folder's skipped.jsonl lists them.
  """

  folder: Path
  records: dict[str, int]
  left_out: int


def convert(
  name: str,
  original: str | os.PathLike,
  out: str | os.PathLike,
  options: Options = Options(),
  *,
  strict: bool = False,
  workers: int | None = None,
  progress: bool = True,
) -> Converted:
  """Write the folder `out/name` atomically. Pieces go to the files of a split in turn; no file is written empty.

  Args:
    name: one of `catalogue.originals`.
    original: the data set's folder.
    out: folder with one folder per data set in MT3's layouts.
    options: options of the conversion.
    strict: whether a piece that cannot be read is an error; otherwise it is left out and listed in skipped.jsonl.
    workers: number of processes that read pieces; None: one per processor.
    progress: whether to show a progress bar, if stderr is a terminal.

  Raises:
    UserError: the data set is unknown or was converted before, no piece of a split can be read, or the disk is full.
  """
  if options.sample_rate is not None and not _RATES[0] <= options.sample_rate <= _RATES[1]:
    raise UserError(f'the sample rate is {options.sample_rate}; it must be {_RATES[0]} to {_RATES[1]} Hz')
  if options.subsets < 0:
    raise UserError(f'the number of sub-mixes is {options.subsets}; it must be 0 or more')
  source = catalogue.open_original(name, original, options)
  splits = {split: pieces for split, pieces in source.splits().items() if pieces}
  records, left_out = {}, []
  with atomic_folder(Path(out) / name) as folder:
    for split, pieces in splits.items():
      files = _files_by_priority(name, split)
      pieces_of_files = [pieces[number :: len(files)] for number in range(len(files))]
      read = functools.partial(_read, source)
      in_order = [piece for file_pieces in pieces_of_files for piece in file_pieces]
      results = parallel_if_long(read, in_order, workers or os.cpu_count() or 1)
      results = iter(with_bar(results, len(in_order), f'{name} {split}', 'piece', progress))
      records[split] = 0
      for file, file_pieces in zip(files, pieces_of_files, strict=True):
        if not file_pieces:
          continue  # readers do not need the file, and an empty one would cost them time
        with open(folder / file, 'wb') as written:
          for piece in file_pieces:
            data, problem = next(results)
            if data is None and strict:
              raise UserError(f'{piece}: {problem} (strict)')
            if data is None:
              left_out.append({'piece': piece, 'text': problem})
            else:
              written.write(framed(data))
              records[split] += 1
      if not records[split]:
        raise UserError(
          f'none of the {len(pieces)} pieces of the split {split!r} can be read; the last: {left_out[-1]["text"]}'
        )
    (folder / SKIPPED).write_text(''.join(json.dumps(line) + '\n' for line in left_out), 'utf-8')
  return Converted(Path(out) / name, records, len(left_out))


def files_of_split(name: str, split: str) -> list[str]:
  """Return the names of the files in which a split was published."""
  pattern = PUBLISHED[name][1][split]
  if '?????' not in pattern:
    return [pattern]
  count = int(pattern.rpartition('-of-')[2])
  return [pattern.replace('?????', f'{number:05d}') for number in range(count)]


def _files_by_priority(name, split):
  """Return a split's files, those for evaluation during training first: they get pieces even of a small data set."""
  files = files_of_split(name, split)
  part = PUBLISHED[name][1].get(f'{split}_subset', '')
  first = next((number for number, file in enumerate(files) if fnmatch.fnmatchcase(file, part)), 0)
  return files[first:] + files[:first]


def _read(source, piece) -> tuple[bytes | None, str]:
  """Return (record, '') or (None, reason), in a worker process."""
  try:
    return serialize_example(source.features(piece)), ''
  except UserError as error:
    return None, str(error)
