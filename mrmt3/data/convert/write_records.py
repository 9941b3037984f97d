"""Writes a data set from its original folders as TFRecord files that are called, divided and laid out as MT3's.

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
  """What was written.

  Attributes:
    folder: with the files.
    records: split -> number of records.
    left_out: pieces that could not be read, named in skipped.jsonl there.
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
  """Writes `out/name`, whole or not at all. Pieces are dealt to the files of a split in turn; files without any are left out.

  Args:
    name: one of `catalogue.originals`.
    original: the data set's folder.
    out: folder of all data sets in MT3's layouts, one in each folder.
    options: what else there is to say.
    strict: whether a piece that cannot be read is an error; else it is named and left out.
    workers: processes that read pieces; None is one a processor.
    progress: whether to show a bar on stderr, if that is a terminal.

  Raises:
    UserError: no such data set, it is there already, none of a split's pieces can be read, no room to write.
  """
  if options.sample_rate is not None and not _RATES[0] <= options.sample_rate <= _RATES[1]:
    raise UserError(f'the sample rate is {options.sample_rate}; it must be {_RATES[0]} to {_RATES[1]} Hz')
  if options.subsets < 0:
    raise UserError(f'there cannot be {options.subsets} sub-mixes')
  source = catalogue.open_original(name, original, options)
  splits = {split: pieces for split, pieces in source.splits().items() if pieces}
  records, left_out = {}, []
  with atomic_folder(Path(out) / name) as folder:
    for split, pieces in splits.items():
      files = _in_order_of_dealing(name, split)
      dealt = [pieces[number :: len(files)] for number in range(len(files))]
      read = functools.partial(_read, source)
      in_order = [piece for own in dealt for piece in own]
      results = parallel_if_long(read, in_order, workers or os.cpu_count() or 1)
      results = iter(with_bar(results, len(in_order), f'{name} {split}', 'piece', progress))
      records[split] = 0
      for file, own in zip(files, dealt, strict=True):
        if not own:
          continue  # a file that is not there is not missed, and an empty one costs every reader time
        with open(folder / file, 'wb') as written:
          for piece in own:
            data, problem = next(results)
            if data is None and strict:
              raise UserError(f'{piece}: {problem} (strict)')
            if data is None:
              left_out.append({'piece': piece, 'text': problem})
            else:
              written.write(framed(data))
              records[split] += 1
      if not records[split]:
        raise UserError(f'none of the {len(pieces)} pieces of {split} can be read; the last: {left_out[-1]["text"]}')
    (folder / SKIPPED).write_text(''.join(json.dumps(line) + '\n' for line in left_out), 'utf-8')
  return Converted(Path(out) / name, records, len(left_out))


def files_of_split(name: str, split: str) -> list[str]:
  """Returns the names of the files that a split was published in."""
  pattern = PUBLISHED[name][1][split]
  if '?????' not in pattern:
    return [pattern]
  count = int(pattern.rpartition('-of-')[2])
  return [pattern.replace('?????', f'{number:05d}') for number in range(count)]


def _in_order_of_dealing(name, split):
  """Returns a split's files, those that are evaluated while training first: of few pieces, they are to have some."""
  files = files_of_split(name, split)
  part = PUBLISHED[name][1].get(f'{split}_subset', '')
  first = next((number for number, file in enumerate(files) if fnmatch.fnmatchcase(file, part)), 0)
  return files[first:] + files[:first]


def _read(source, piece) -> tuple[bytes | None, str]:
  """Returns (a record, '') or (None, why there is none), in a worker."""
  try:
    return serialize_example(source.features(piece)), ''
  except UserError as error:
    return None, str(error)
