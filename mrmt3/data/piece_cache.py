"""The pieces of a split, decoded once and kept on disk so that any two seconds of any piece are a slice away.

    <cache>/pieces/<source>-<split>-<digest>/audio.bin      samples at the model's rate, one piece after the other
                                            /notes.bin      note tables; with stems, int32 stem numbers in stems.bin
                                            /index.jsonl    a line a piece: where its samples and notes are
                                            /skipped.jsonl  what was wrong with which piece, with counts
                                            /complete.json  there when all of it is

Samples are stored as 16 bit where that is exact (files of 16 bit at the model's rate), else as float32. Files are mapped
into memory: reading costs no memory of one's own, and processes on one machine share what is read. Making the store
goes on where it was interrupted.
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
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock
import numpy as np

from mrmt3.data.piece_source import PieceSource
from mrmt3.data.piece_validation import DROPPED, LEFT_OUT, Problem, check_piece
from mrmt3.errors import UserError
from mrmt3.event_codec import Codec
from mrmt3.notes.note_array import NOTE_DTYPE
from mrmt3.tokens import segment_targets
from mrmt3.utils.files import make_folder
from mrmt3.utils.user_cache import cache_root

FORMAT = 1  # to be raised when the files' layout or what is read into them changes
_ALIGNMENT = 8  # bytes
_FULL_SCALE = 32768
_COLUMNS = len(dataclasses.fields(segment_targets.PieceEvents))


@dataclasses.dataclass(frozen=True)
class Entry:
  """A piece in the store.

  Attributes:
    name: as the source calls it.
    samples: length, samples.
    stems: 0 where only the mix is stored, else how many rows of samples there are.
    dtype: of the samples, 'int16' or 'float32'.
    audio_offset: of the samples in audio.bin, bytes.
    notes: number of notes.
    notes_offset: of the first note, counted in notes.
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
    """Size of the samples in audio.bin, without what aligns the next piece."""
    return self.samples * max(self.stems, 1) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass
class _Journal:
  """What has been written of a store: one line a piece, whether it was kept or left out."""

  entries: list[Entry]
  seen: set[str]
  audio_bytes: int = 0
  notes: int = 0


class PieceStore:
  """Reads a complete store; safe to use from several threads. Make one with `prepare`."""

  def __init__(self, folder: str | os.PathLike):
    self.folder = Path(folder)
    journal = _read_journal(self.folder)
    self.entries = journal.entries
    self.names = [entry.name for entry in self.entries]
    self.lengths = np.array([entry.samples for entry in self.entries], np.int64)
    self._audio = _mapped(self.folder / 'audio.bin', np.uint8)
    self._notes = _mapped(self.folder / 'notes.bin', NOTE_DTYPE)
    stems = self.folder / 'stems.bin'
    self._stems = _mapped(stems, np.int32) if stems.exists() else None

  def __len__(self) -> int:
    return len(self.entries)

  @property
  def has_stems(self) -> bool:
    """Whether stems are stored, and not only mixes."""
    return self._stems is not None

  def audio(self, index: int, start: int = 0, stop: int | None = None, stems: np.ndarray | None = None) -> np.ndarray:
    """Returns float32 samples `[stop - start]` of a piece, zeros where they lie outside it.

    Args:
      index: which piece.
      start: first sample, may be negative.
      stop: end, may lie beyond the piece; None is its end.
      stems: bool `[stems]`, which stems to add up; None: all of them.
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
    """Returns the note table of a piece, untrimmed; read-only."""
    entry = self.entries[index]
    return self._notes[entry.notes_offset : entry.notes_offset + entry.notes]

  def note_stems(self, index: int) -> np.ndarray:
    """Returns which stem plays each note, int32 `[notes]`."""
    entry = self.entries[index]
    return self._stems[entry.notes_offset : entry.notes_offset + entry.notes]

  def skipped(self) -> list[dict]:
    """Returns the lines of skipped.jsonl: piece, problem, count, text, action (see `piece_checks`).

    Of several that tell of the same problem of a piece, the one that counts most.
    """
    latest = {}
    for text in (self.folder / 'skipped.jsonl').read_text('utf-8').splitlines():
      line = json.loads(text)
      key = (line['piece'], line['problem'])
      if key not in latest or latest[key]['count'] <= line['count']:
        latest[key] = line
    return list(latest.values())

  def note_problem(self, name: str, problem: Problem) -> None:
    """Adds a line to skipped.jsonl, if it can be written; several processes may."""
    with contextlib.suppress(OSError), open(self.folder / 'skipped.jsonl', 'a', encoding='utf-8') as file:
      file.write(json.dumps(_problem(name, problem)) + '\n')

  def encode(
    self, codec: Codec, granularity: str = 'full', trim: bool = True, rounded_order: bool = False
  ) -> 'EventStore':
    """Returns the events of all pieces, encoded on first use and then kept beside the store, mapped into memory."""
    what = (FORMAT, _COLUMNS, codec.steps_per_second, codec.event_ranges, granularity, trim, rounded_order)
    digest = hashlib.sha256(repr(what).encode())
    path = self.folder / f'events-{digest.hexdigest()[:12]}'
    if not path.exists():
      with _locked(path.with_suffix('.lock')):
        if not path.exists():
          self._write_events(path, codec, granularity, trim, rounded_order)
    return EventStore(path)

  def _write_events(self, path: Path, codec: Codec, granularity: str, trim: bool, rounded_order: bool) -> None:
    temporary = Path(tempfile.mkdtemp(prefix='.events_', dir=self.folder))
    counts = np.zeros(len(self) + 1, np.int64)
    try:
      with _writing(path), open(temporary / 'events.bin', 'wb') as file:
        for index in range(len(self)):
          notes = np.array(self.notes(index))
          if trim:
            notes = segment_targets.trim_overlapping_notes(notes)
          events = segment_targets.encode_piece(notes, codec, granularity, rounded_order=rounded_order).to_array()
          counts[index + 1] = len(events)
          np.ascontiguousarray(events.T, np.int32).tofile(file)
        np.save(temporary / 'starts.npy', np.cumsum(counts))
        temporary.replace(path)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)


class EventStore:
  """The encoded events of a store's pieces: `events(index)`; what it reads is mapped into memory."""

  def __init__(self, folder: Path):
    self._starts = np.load(folder / 'starts.npy')
    self._events = _mapped(folder / 'events.bin', np.int32)

  def events(self, index: int) -> segment_targets.PieceEvents:
    """Returns the events of a piece."""
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
  """Returns the store of a split, made first where it is not there yet or the source has changed.

  Args:
    source: where pieces come from.
    split: which split.
    sample_rate: of the stored samples, Hz.
    stems: whether to keep the stems apart.
    strict: whether the first piece that would be left out, or of which notes would be dropped, is an error.
    cache_dir: where stores lie; None is the user's cache folder (see `user_cache`).
    workers: processes that read pieces; None is as many as MRMT3_WORKERS says, or one a processor.
    progress: whether to show a bar on stderr.

  Raises:
    UserError: no such split, nothing usable in it, no room to write, or (strict) something wrong with a piece.
  """
  root = Path(cache_dir) if cache_dir is not None else cache_root()
  if root is None:
    raise UserError('there is no home folder to keep prepared pieces in; set MRMT3_CACHE to a folder')
  identity = repr((FORMAT, NOTE_DTYPE.descr, source, split, sample_rate, stems, source.fingerprint(split)))
  digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
  folder = make_folder(root / 'pieces') / f'{type(source).__name__}-{split}-{digest}'
  if not (folder / 'complete.json').exists():
    with _locked(folder.with_suffix('.lock')):
      if not (folder / 'complete.json').exists():
        _fill(folder, source, split, sample_rate, stems, strict, workers, progress)
  store = PieceStore(folder)
  if strict and (wrong := _serious(store.skipped())):
    raise UserError(
      f'{wrong[0]["piece"]}: {wrong[0]["text"]} (strict; {len(wrong)} such lines in {folder / "skipped.jsonl"})'
    )
  if not len(store):
    raise UserError(f'nothing usable in the split {split!r} of {source}: {_first_reason(store)}')
  return store


def _first_reason(store: PieceStore) -> str:
  wrong = store.skipped()
  return f'{wrong[0]["piece"]}: {wrong[0]["text"]}' if wrong else 'it has no pieces'


def _fill(folder, source, split, sample_rate, stems, strict, workers, progress) -> None:
  """Reads all pieces that are not in the store yet, and says how it went."""
  from mrmt3.utils.parallel import parallel_if_long, with_bar

  names = source.list_pieces(split)
  make_folder(folder)
  journal = _read_journal(folder)
  coming = [name for name in names if name not in journal.seen]
  workers = workers or _workers_wanted() or os.cpu_count() or 1
  read = functools.partial(_read, source, split, sample_rate, stems)
  results = with_bar(parallel_if_long(read, coming, workers), len(coming), f'read {split}', 'piece', progress)
  with _writing(folder), _Writer(folder, journal, stems) as writer:
    for name, result in zip(coming, results, strict=True):
      if strict and (wrong := _serious(result.problems)):
        raise UserError(f'{name}: {wrong[0]["text"]} (strict)')
      writer.add(name, result)
    (folder / 'complete.json').write_text(json.dumps({'pieces': len(journal.entries), 'source': repr(source)}) + '\n')
  lines = PieceStore(folder).skipped()
  if lines:
    left_out = len(names) - len(journal.entries)
    dropped = sum(line['count'] for line in lines if line['action'] == DROPPED)
    odd = len({line['piece'] for line in lines})
    print(
      f'mrmt3: {split}: {left_out} of {len(names)} pieces left out, {dropped} notes of others dropped, something odd about '
      f'{odd} pieces: named in {folder / "skipped.jsonl"}',
      file=sys.stderr,
    )


def _workers_wanted() -> int:
  """Returns what MRMT3_WORKERS says, 0 where it is not set; UserError where that is no number."""
  text = os.environ.get('MRMT3_WORKERS', '0')
  if not text.isdecimal():
    raise UserError(f'MRMT3_WORKERS is {text!r}; it is a number of processes')
  return int(text)


@dataclasses.dataclass
class _Result:
  """A piece as it travels from a worker: samples `[stems or 1, n]` as stored, None where the piece is left out."""

  samples: np.ndarray | None
  notes: np.ndarray | None
  note_stem: np.ndarray | None
  problems: list[dict]


def _read(source: PieceSource, split: str, sample_rate: int, stems: bool, name: str) -> _Result:
  """Reads and checks one piece, in a worker."""
  try:
    content = source.read_piece(split, name, sample_rate, stems)
  except UserError as error:
    return _Result(None, None, None, [_problem(name, Problem('unreadable', 1, str(error), LEFT_OUT))])
  checked = check_piece(content, sample_rate)
  problems = [_problem(name, problem) for problem in checked.problems]
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
  """Returns the problems for which a piece was left out or notes were dropped."""
  return [problem for problem in problems if problem['action'] in (LEFT_OUT, DROPPED)]


def _as_stored(samples: np.ndarray) -> np.ndarray:
  """Returns the samples as int16 where that loses nothing, else as float32."""
  scaled = samples * np.float32(_FULL_SCALE)
  if scaled.size and (scaled.min() < -_FULL_SCALE or scaled.max() > _FULL_SCALE - 1):
    return np.asarray(samples, np.float32)
  whole = scaled.astype(np.int16)
  return whole if np.array_equal(whole, scaled) else np.asarray(samples, np.float32)


class _Writer:
  """Appends pieces to a store, the journal line last, so that a piece is there whole or not at all."""

  def __init__(self, folder: Path, journal: _Journal, stems: bool):
    self._journal = journal
    self._files = {}
    sizes = {'audio.bin': journal.audio_bytes, 'notes.bin': journal.notes * NOTE_DTYPE.itemsize}
    if stems:
      sizes['stems.bin'] = journal.notes * 4
    for name, size in sizes.items():
      # What an interrupted run wrote beyond its last journal line is overwritten.
      file = open(folder / name, 'r+b' if (folder / name).exists() else 'w+b')  # noqa: SIM115
      file.truncate(size)
      file.seek(size)
      self._files[name] = file
    for name in ('index.jsonl', 'skipped.jsonl'):
      self._files[name] = open(folder / name, 'a', encoding='utf-8')  # noqa: SIM115

  def add(self, name: str, result: _Result) -> None:
    """Appends one piece, or notes that it was left out."""
    journal, entry = self._journal, None
    if result.samples is not None:
      entry = Entry(
        name=name,
        samples=result.samples.shape[1],
        stems=len(result.samples) if 'stems.bin' in self._files else 0,
        dtype=result.samples.dtype.name,
        audio_offset=journal.audio_bytes,
        notes=len(result.notes),
        notes_offset=journal.notes,
      )
      result.samples.tofile(self._files['audio.bin'])
      padding = -entry.audio_bytes % _ALIGNMENT
      self._files['audio.bin'].write(b'\0' * padding)
      result.notes.tofile(self._files['notes.bin'])
      if result.note_stem is not None:
        result.note_stem.astype(np.int32).tofile(self._files['stems.bin'])
      journal.audio_bytes += entry.audio_bytes + padding
      journal.notes += entry.notes
      journal.entries.append(entry)
    self._files['skipped.jsonl'].writelines(json.dumps(problem) + '\n' for problem in result.problems)
    for file in self._files.values():
      file.flush()
    line = {'name': name} if entry is None else dataclasses.asdict(entry)
    self._files['index.jsonl'].write(json.dumps(line) + '\n')
    self._files['index.jsonl'].flush()

  def __enter__(self):
    return self

  def __exit__(self, *error):
    for file in self._files.values():
      file.close()


def _read_journal(folder: Path) -> _Journal:
  """Reads index.jsonl, dropping a last line that was not finished, and the remarks on pieces that are not in it."""
  path, journal = folder / 'index.jsonl', _Journal([], set())
  if not path.exists():
    return journal
  text = path.read_bytes()
  whole = text[: text.rfind(b'\n') + 1]
  if len(whole) < len(text):
    path.write_bytes(whole)
  for line in whole.splitlines():
    fields = json.loads(line)
    journal.seen.add(fields['name'])
    if len(fields) > 1:
      entry = Entry(**fields)
      journal.entries.append(entry)
      journal.audio_bytes = entry.audio_offset + entry.audio_bytes
      journal.audio_bytes += -journal.audio_bytes % _ALIGNMENT
      journal.notes = entry.notes_offset + entry.notes
  skipped = folder / 'skipped.jsonl'
  if not (folder / 'complete.json').exists() and skipped.exists():
    lines = [line for line in skipped.read_bytes().splitlines(keepends=True) if line.endswith(b'\n')]
    skipped.write_bytes(b''.join(line for line in lines if json.loads(line)['piece'] in journal.seen))
  return journal


def _mapped(path: Path, dtype) -> np.ndarray:
  """Returns a file as a read-only array `[n]` mapped into memory; an empty file cannot be mapped."""
  return np.memmap(path, dtype, mode='r').view(np.ndarray) if path.stat().st_size else np.zeros(0, dtype)


def _locked(path: Path) -> filelock.FileLock:
  """Returns a lock that one process at a time holds; the others wait until it is done (or gone)."""
  # Without the fallback to a file whose existence is the lock: it outlives a process that dies on another machine.
  return filelock.FileLock(path, fallback_to_soft=False)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
  """Turns a full disk into one line; what was written so far is gone on with by the next run."""
  try:
    yield
  except OSError as error:
    raise UserError(f'cannot write {folder}: {error.strerror or error}; free some room or set MRMT3_CACHE') from error
