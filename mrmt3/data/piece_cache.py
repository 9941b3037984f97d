"""On-disk cache of a split's decoded pieces, for fast access to any segment of any piece.

    <cache>/pieces/<source>-<split>-<digest>/audio.bin      samples at the model's rate, all pieces concatenated
                                            /notes.bin      note arrays; with stems, int32 stem numbers in stems.bin
                                            /index.jsonl    one line per piece: offsets of its samples and notes
                                            /skipped.jsonl  problems of pieces, with counts
                                            /complete.json  exists once the cache is complete

Samples are stored as int16 if that is lossless (16-bit files at the model's rate), otherwise as float32. Files are
memory-mapped, so processes on one machine share what they read. An interrupted build resumes where it stopped.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import filelock
import numpy as np

from mrmt3.data.piece_source import PieceSource
from mrmt3.data.piece_validation import DROPPED, KEPT, LEFT_OUT, Problem, check_piece
from mrmt3.errors import UserError, first_line
from mrmt3.event_codec import Codec
from mrmt3.notes.note_array import LABEL_DTYPE, as_notes, labels_of, trim_overlapping_notes
from mrmt3.tokens import segment_targets
from mrmt3.utils import console
from mrmt3.utils.files import make_folder
from mrmt3.utils.journal import Journal
from mrmt3.utils.user_cache import cache_root
from mrmt3.utils.warning_lines import collected_warnings

FORMAT = 2  # increase it when the layout or the content of the files changes
_ALIGNMENT = 8  # bytes
_FULL_SCALE = 32768
_COLUMNS = len(dataclasses.fields(segment_targets.PieceEvents))


@dataclasses.dataclass(frozen=True)
class Entry:
  """A piece in the store.

  Attributes:
    name: its name in the source.
    samples: length in samples.
    stems: number of stems (rows of samples); 0 if only the mix is stored.
    dtype: of the samples, 'int16' or 'float32'.
    audio_offset: position of the samples in audio.bin, bytes.
    notes: number of notes.
    notes_offset: position of the first note in notes.bin, counted in notes.
  """

  name: str
  samples: int
  stems: int
  dtype: str
  audio_offset: int
  notes: int
  notes_offset: int

  @property
  def audio_bytes(self) -> int:
    """Size of the samples in audio.bin, without the alignment padding."""
    return self.samples * max(self.stems, 1) * np.dtype(self.dtype).itemsize


class _Index:
  """The index of a store: one line per finished piece in index.jsonl, also for pieces that were left out.

  Attributes:
    journal: the file.
    entries: entries of the pieces that were kept.
    audio_bytes: position of the next piece in audio.bin, bytes.
    notes: position of the next piece in notes.bin, counted in notes.
  """

  def __init__(self, folder: Path):
    self.journal = Journal(folder / 'index.jsonl', item=lambda line: line['name'])
    self.entries = []
    self.audio_bytes = self.notes = 0
    for fields in self.journal.records.values():
      if len(fields) > 1:
        self._include(Entry(**fields))

  def _include(self, entry: Entry) -> None:
    self.entries.append(entry)
    self.audio_bytes = entry.audio_offset + entry.audio_bytes
    self.audio_bytes += -self.audio_bytes % _ALIGNMENT
    self.notes = entry.notes_offset + entry.notes

  def add(self, name: str, entry: Entry | None) -> None:
    """Record a finished piece; `entry` is None if it was left out."""
    self.journal.add({'name': name} if entry is None else dataclasses.asdict(entry))
    if entry is not None:
      self._include(entry)


class DamagedStore(UserError):
  """Files of a store are missing, shorter or longer than its index says, or unreadable."""


class PieceStore:
  """Reads a complete store. Thread-safe. `prepare` builds and returns one, and rebuilds one that is damaged."""

  def __init__(self, folder: str | os.PathLike):
    """Open a store.

    Raises:
      DamagedStore: the sizes of its files do not agree.
    """
    self.folder = Path(folder)
    self.entries = _check_files(self.folder).entries
    self.names = [entry.name for entry in self.entries]
    self.lengths = np.array([entry.samples for entry in self.entries], np.int64)
    self._audio = _mapped(self.folder / 'audio.bin', np.uint8)
    self._notes = _mapped(self.folder / 'notes.bin', LABEL_DTYPE)
    stems = self.folder / 'stems.bin'
    self._stems = _mapped(stems, np.int32) if stems.exists() else None

  def __len__(self) -> int:
    return len(self.entries)

  @property
  def has_stems(self) -> bool:
    """Whether stems are stored, not only mixes."""
    return self._stems is not None

  def audio(self, index: int, start: int = 0, stop: int | None = None, stems: np.ndarray | None = None) -> np.ndarray:
    """Return float32 samples `[stop - start]` of a piece, with zeros outside the piece.

    Args:
      index: number of the piece.
      start: first sample, may be negative.
      stop: end (exclusive), may exceed the piece's length; None is the end of the piece.
      stems: bool `[stems]`, the stems to sum; None sums all.
    """
    entry = self.entries[index]
    stop = entry.samples if stop is None else stop
    samples = np.empty(max(stop - start, 0), np.float32)
    first, last = min(max(start, 0), entry.samples), min(max(stop, 0), entry.samples)
    if last <= first:
      samples[:] = 0
      return samples
    samples[: first - start] = 0
    samples[last - start :] = 0
    raw = self._audio[entry.audio_offset : entry.audio_offset + entry.audio_bytes]
    rows = raw.view(entry.dtype).reshape(-1, entry.samples)[:, first:last]
    if stems is not None:
      rows = rows[stems]
    mixed = rows[0] if len(rows) == 1 else rows.sum(axis=0, dtype=np.float32)
    scale = 1 / _FULL_SCALE if entry.dtype == 'int16' else 1
    np.multiply(mixed, np.float32(scale), out=samples[first - start : last - start], dtype=np.float32)
    return samples

  def notes(self, index: int) -> np.ndarray:
    """Return the note array of a piece, untrimmed."""
    entry = self.entries[index]
    return as_notes(self._notes[entry.notes_offset : entry.notes_offset + entry.notes])

  def note_stems(self, index: int) -> np.ndarray:
    """Return the stem number of each note, int32 `[notes]`."""
    entry = self.entries[index]
    return self._stems[entry.notes_offset : entry.notes_offset + entry.notes]

  def skipped(self) -> list[dict]:
    """Return the lines of skipped.jsonl: piece, problem, count, text, action (see `piece_validation`).

    Of several lines with the same problem of a piece, it returns the one with the highest count.
    """
    latest = {}
    for line in _read_remarks(self.folder / 'skipped.jsonl'):
      key = (line['piece'], line['problem'])
      if key not in latest or latest[key]['count'] <= line['count']:
        latest[key] = line
    return list(latest.values())

  def note_problem(self, name: str, problem: Problem) -> None:
    """Append a line to skipped.jsonl, if it is writable. Safe with several processes."""
    with contextlib.suppress(OSError), open(self.folder / 'skipped.jsonl', 'a', encoding='utf-8') as file:
      file.write(json.dumps(_problem(name, problem)) + '\n')

  def encode(
    self, codec: Codec, granularity: str = 'full', trim: bool = True, rounded_order: bool = False
  ) -> 'EventStore':
    """Return the events of all pieces, memory-mapped. They are encoded on first use and kept in the store's folder."""
    what = (FORMAT, _COLUMNS, codec.steps_per_second, codec.event_ranges, granularity, trim, rounded_order)
    digest = hashlib.sha256(repr(what).encode())
    path = self.folder / f'events-{digest.hexdigest()[:12]}'
    with contextlib.suppress(DamagedStore, FileNotFoundError):
      return EventStore(path, len(self))
    with _writing(path), _locked(path.with_suffix('.lock')):
      with contextlib.suppress(FileNotFoundError):
        try:
          return EventStore(path, len(self))  # another process has written it
        except DamagedStore:
          print(f'mrmt3: {path} is damaged; it is written again', file=sys.stderr, flush=True)
          shutil.rmtree(path)
      self._write_events(path, codec, granularity, trim, rounded_order)
    return EventStore(path, len(self))

  def _write_events(self, path: Path, codec: Codec, granularity: str, trim: bool, rounded_order: bool) -> None:
    temporary = Path(tempfile.mkdtemp(prefix='.events_', dir=self.folder))
    counts = np.zeros(len(self) + 1, np.int64)
    try:
      with _writing(path), open(temporary / 'events.bin', 'wb') as file:
        for index in range(len(self)):
          notes = np.array(self.notes(index))
          if trim:
            notes = trim_overlapping_notes(notes)
          events = segment_targets.encode_piece(notes, codec, granularity, rounded_order=rounded_order).to_array()
          counts[index + 1] = len(events)
          file.write(np.ascontiguousarray(events.T, np.int32).tobytes())
        np.save(temporary / 'starts.npy', np.cumsum(counts))
        temporary.replace(path)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)


class EventStore:
  """The encoded events of a store's pieces, memory-mapped."""

  def __init__(self, folder: Path, num_pieces: int):
    """Open the events of `num_pieces` pieces.

    Raises:
      FileNotFoundError: there is no such folder.
      DamagedStore: a file is missing, or its size is wrong.
    """
    if not folder.exists():
      raise FileNotFoundError(folder)
    try:
      self._starts = np.load(folder / 'starts.npy')
      self._events = _mapped(folder / 'events.bin', np.int32)
    except (OSError, ValueError, EOFError) as error:
      raise DamagedStore(f'{folder}: {first_line(error)}') from error
    starts = self._starts
    if (
      starts.shape != (num_pieces + 1,)
      or starts.dtype != np.int64
      or starts[0] != 0
      or (np.diff(starts) < 0).any()
      or len(self._events) != _COLUMNS * starts[-1]
    ):
      raise DamagedStore(f'{folder}: the sizes of its files do not agree')

  def events(self, index: int) -> segment_targets.PieceEvents:
    """Return the events of a piece."""
    first, last = self._starts[index], self._starts[index + 1]
    return segment_targets.PieceEvents(*self._events[_COLUMNS * first : _COLUMNS * last].reshape(_COLUMNS, -1))


def prepare(
  source: PieceSource,
  split: str,
  sample_rate: int,
  *,
  stems: bool = False,
  strict: bool = False,
  cache_dir: str | os.PathLike | None = None,
  workers: int | None = None,
  progress: bool = True,
) -> PieceStore:
  """Return the store of a split. Builds it if it does not exist or the source has changed.

  Args:
    source: the data source.
    split: name of the split.
    sample_rate: of the stored samples, Hz.
    stems: whether to store stems separately.
    strict: whether a piece that would be left out or lose notes is an error.
    cache_dir: parent folder of the stores; None is the user's cache folder (see `user_cache`).
    workers: number of processes that read pieces; None: the environment variable MRMT3_WORKERS, or one per processor.
    progress: whether to show a progress bar on stderr.

  Raises:
    UserError: the split is unknown or has no usable piece, the disk is full, or (strict) a piece has a problem.
  """
  root = Path(cache_dir) if cache_dir is not None else cache_root()
  if root is None:
    raise UserError('there is no home folder for the cache of decoded pieces; set MRMT3_CACHE to a folder')
  identity = repr((FORMAT, LABEL_DTYPE.descr, source, split, sample_rate, stems, source.fingerprint(split)))
  digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
  folder = make_folder(root / 'pieces') / f'{type(source).__name__}-{split}-{digest}'
  store = _open_complete(folder)
  if store is None:
    with _writing(folder), _locked(folder.with_suffix('.lock')):
      store = _open_complete(folder)  # another process may have built it
      if store is None:
        _drop_damaged(folder, stems)
        _fill(folder, source, split, sample_rate, stems, strict, workers, progress)
        store = PieceStore(folder)
  if strict and (wrong := _serious(store.skipped())):
    raise UserError(
      f'{wrong[0]["piece"]}: {wrong[0]["text"]} (strict; {len(wrong)} such lines in {folder / "skipped.jsonl"})'
    )
  if not len(store):
    raise UserError(f'no usable piece in the split {split!r} of {source}: {_first_reason(store)}')
  return store


def _open_complete(folder: Path) -> PieceStore | None:
  """Return the store in a folder, None if it is not complete or is damaged."""
  if not (folder / 'complete.json').exists():
    return None
  with contextlib.suppress(DamagedStore):
    return PieceStore(folder)
  return None


def _drop_damaged(folder: Path, stems: bool) -> None:
  """Remove the files of a damaged store, with one line; keep those of a build that was interrupted.

  The files are unlinked, not shortened: another process may have mapped them.
  """
  try:
    if (folder / 'complete.json').exists():
      PieceStore(folder)
    elif folder.exists():
      _check_sizes(folder, _Index(folder), stems, exact=False)
  except DamagedStore as error:
    print(f'mrmt3: {error}; its pieces are read again', file=sys.stderr, flush=True)
    for path in (folder / 'complete.json', *folder.iterdir()):
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)


def _check_files(folder: Path) -> _Index:
  """Return the index of a complete store whose files have the right sizes; DamagedStore otherwise."""
  try:
    index = _Index(folder)
    pieces = json.loads((folder / 'complete.json').read_bytes())['pieces']
  except (OSError, ValueError, KeyError, TypeError, UserError) as error:
    raise DamagedStore(f'{folder} is damaged ({first_line(error)})') from error
  if pieces != len(index.entries):
    raise DamagedStore(f'{folder} is damaged (index.jsonl has {len(index.entries)} of {pieces} pieces)')
  _check_sizes(
    folder, index, (folder / 'stems.bin').exists() or any(entry.stems for entry in index.entries), exact=True
  )
  return index


def _check_sizes(folder: Path, index: _Index, stems: bool, exact: bool) -> None:
  """Raise DamagedStore if a file is shorter than the index says, or (exact) has another size."""
  for name, size in _sizes(index, stems).items():
    path = folder / name
    found = path.stat().st_size if path.exists() else 0
    if found < size or (exact and (found != size or not path.exists())):
      raise DamagedStore(f'{folder} is damaged ({name} has {found} bytes in place of {size})')


def _sizes(index: _Index, stems: bool) -> dict[str, int]:
  """Return the size of each binary file of a store, bytes."""
  sizes = {'audio.bin': index.audio_bytes, 'notes.bin': index.notes * LABEL_DTYPE.itemsize}
  return {**sizes, 'stems.bin': index.notes * 4} if stems else sizes


def _first_reason(store: PieceStore) -> str:
  wrong = store.skipped()
  return f'{wrong[0]["piece"]}: {wrong[0]["text"]}' if wrong else 'it has no pieces'


def _fill(folder, source, split, sample_rate, stems, strict, workers, progress) -> None:
  """Read all pieces that are missing in the store, and print a summary of problems."""
  from mrmt3.utils.parallel import parallel_if_long, with_bar

  names = source.list_pieces(split)
  make_folder(folder)
  index = _Index(folder)
  _drop_remarks(folder / 'skipped.jsonl', index.journal.records)
  coming = [name for name in names if name not in index.journal.records]
  workers = workers or _workers_from_environment() or os.cpu_count() or 1
  read = functools.partial(_read, source, split, sample_rate, stems)
  results = with_bar(parallel_if_long(read, coming, workers), len(coming), f'read {split}', 'piece', progress)
  with _writing(folder), _Writer(folder, index, stems) as writer:
    for name, result in zip(coming, results, strict=True):
      if strict and (wrong := _serious(result.problems)):
        raise UserError(f'{name}: {wrong[0]["text"]} (strict)')
      writer.add(name, result)
    (folder / 'complete.json').write_text(json.dumps({'pieces': len(index.entries), 'source': repr(source)}) + '\n')
  lines = PieceStore(folder).skipped()
  if lines:
    left_out = len(names) - len(index.entries)
    dropped = sum(line['count'] for line in lines if line['action'] == DROPPED)
    with_problems = len({line['piece'] for line in lines})
    print(
      f'mrmt3: {split}: {left_out} of {console.counted(len(names), "piece")} left out, '
      f'{console.counted(dropped, "note")} of others dropped; '
      f'problems of {console.counted(with_problems, "piece")} listed in {folder / "skipped.jsonl"}',
      file=sys.stderr,
    )


def _workers_from_environment() -> int:
  """Return the value of MRMT3_WORKERS, 0 if it is not set; UserError if it is not a number."""
  text = os.environ.get('MRMT3_WORKERS', '0')
  if not text.isdecimal():
    raise UserError(f'MRMT3_WORKERS is {text!r}; set it to a number of processes')
  return int(text)


@dataclasses.dataclass
class _Result:
  """A worker's result: samples `[stems or 1, n]` in the stored dtype, None if the piece is left out."""

  samples: np.ndarray | None
  notes: np.ndarray | None
  note_stem: np.ndarray | None
  problems: list[dict]


def _read(source: PieceSource, split: str, sample_rate: int, stems: bool, name: str) -> _Result:
  """Read and validate one piece, in a worker process."""
  try:
    with collected_warnings() as warned:
      content = source.read_piece(split, name, sample_rate, stems)
  except UserError as error:
    return _Result(None, None, None, [_problem(name, Problem('unreadable', 1, str(error), LEFT_OUT))])
  checked = check_piece(content, sample_rate)
  odd_files = [Problem('odd-file', 1, str(one), KEPT) for one in warned if one.oddities]
  problems = [_problem(name, problem) for problem in [*checked.problems, *odd_files]]
  if checked.content is None:
    return _Result(None, None, None, problems)
  content = checked.content
  rows = content.samples[None] if content.stems is None else content.stems
  note_stem = None
  if stems:
    note_stem = np.zeros(len(content.notes), np.int32) if content.note_stem is None else content.note_stem
  return _Result(_as_stored(rows), content.notes, note_stem, problems)


def _problem(name: str, problem: Problem) -> dict:
  fields = {'problem': problem.name, 'count': int(problem.count), 'text': problem.text, 'action': problem.action}
  return {'piece': name, **fields}


def _serious(problems: Iterable[dict]) -> list[dict]:
  """Return the problems that caused a piece to be left out or notes to be dropped."""
  return [problem for problem in problems if problem['action'] in (LEFT_OUT, DROPPED)]


def _as_stored(samples: np.ndarray) -> np.ndarray:
  """Return the samples as int16 if that is lossless, otherwise as float32."""
  scaled = samples * np.float32(_FULL_SCALE)
  if scaled.size and (scaled.min() < -_FULL_SCALE or scaled.max() > _FULL_SCALE - 1):
    return np.asarray(samples, np.float32)
  whole = scaled.astype(np.int16)
  return whole if np.array_equal(whole, scaled) else np.asarray(samples, np.float32)


class _Writer:
  """Appends pieces to a store. The index line is written last, so that a piece is complete or missing."""

  def __init__(self, folder: Path, index: _Index, stems: bool):
    self._index = index
    self._files = {}
    for name, size in _sizes(index, stems).items():
      # What an interrupted run wrote beyond the last line of its index is overwritten.
      file = open(folder / name, 'r+b' if (folder / name).exists() else 'w+b')  # noqa: SIM115
      file.truncate(size)
      file.seek(size)
      self._files[name] = file
    self._files['skipped.jsonl'] = open(folder / 'skipped.jsonl', 'a', encoding='utf-8')  # noqa: SIM115

  def add(self, name: str, result: _Result) -> None:
    """Append a piece, or record that it was left out."""
    entry = None
    if result.samples is not None:
      entry = Entry(
        name=name,
        samples=result.samples.shape[1],
        stems=len(result.samples) if 'stems.bin' in self._files else 0,
        dtype=result.samples.dtype.name,
        audio_offset=self._index.audio_bytes,
        notes=len(result.notes),
        notes_offset=self._index.notes,
      )
      self._write('audio.bin', result.samples)
      self._files['audio.bin'].write(b'\0' * (-entry.audio_bytes % _ALIGNMENT))
      self._write('notes.bin', labels_of(result.notes))
      if result.note_stem is not None:
        self._write('stems.bin', result.note_stem.astype(np.int32))
    self._files['skipped.jsonl'].writelines(json.dumps(problem) + '\n' for problem in result.problems)
    for file in self._files.values():
      file.flush()
    self._index.add(name, entry)

  def _write(self, name: str, array: np.ndarray) -> None:
    """Append an array to a file. Unlike `tofile`, this raises the system's error."""
    self._files[name].write(np.ascontiguousarray(array).tobytes())

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._index.journal.close()
    for file in self._files.values():
      file.close()


def _drop_remarks(skipped: Path, names: Container[str]) -> None:
  """Remove lines from skipped.jsonl whose pieces are not in the index; an interrupted run has written them."""
  if skipped.exists():
    kept = [json.dumps(line) + '\n' for line in _read_remarks(skipped) if line['piece'] in names]
    skipped.write_text(''.join(kept), encoding='utf-8')


def _read_remarks(skipped: Path) -> list[dict]:
  """Return the lines of skipped.jsonl that can be read: these are remarks only, so a damaged one is no loss of data."""
  lines = []
  for text in skipped.read_bytes().splitlines() if skipped.exists() else ():
    with contextlib.suppress(ValueError):
      line = json.loads(text)
      if isinstance(line, dict) and {'piece', 'problem', 'count', 'text', 'action'} <= line.keys():
        lines.append(line)
  return lines


def _mapped(path: Path, dtype) -> np.ndarray:
  """Return a file as a read-only memory-mapped array `[n]`, or an empty array for an empty file (not mappable)."""
  return np.memmap(path, dtype, mode='r').view(np.ndarray) if path.stat().st_size else np.zeros(0, dtype)


def _locked(path: Path) -> filelock.FileLock:
  """Return a lock that one process at a time holds; the others wait until it is done (or gone)."""
  # Without the fallback to a file whose existence is the lock: it outlives a process that dies on another machine.
  return filelock.FileLock(path, fallback_to_soft=False)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
  """Turn an OSError, such as a full disk, into a UserError. The next run resumes from what was written."""
  try:
    yield
  except OSError as error:
    raise UserError(f'cannot write {folder}: {error.strerror or error}; free some room or set MRMT3_CACHE') from error
