"""Journals of finished items, from which a stopped run resumes.

There are two kinds, by what a finished item leaves behind:

  Journal         one file with a line of JSON per item
  FolderJournal   a file or folder per item, each of which appears whole

Items are valid only for the settings that they were made with. Settings that all items share are recorded once: in the
first line of a `Journal`, or in a JSON file next to the items of a `FolderJournal`. What a single item depends on is
recorded with the item.

A process may be killed at any moment. Finished items are kept, and an item that was being written is made again. Lines
are passed to the operating system one by one, but not synced to the disk: items lost in a power failure are made again
as well. Neither kind locks its files: callers that must exclude a second writer hold a lock of their own.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mrmt3.errors import UserError
from mrmt3.utils import files


class Journal:
  """An append-only file with one line of JSON per finished item.

  A last line without a newline is ignored, and cut off before the next line is written. Other unreadable lines count as
  missing. The last of several lines of an item counts. The file is created when the first line is added.

  Attributes:
    path: the file.
    records: item -> the parsed line, or what is kept of it, in the order of the file.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    settings: Mapping | None = None,
    item: Callable[[Any], Hashable] | None = None,
    fingerprint: Callable[[Any], Any] | None = None,
    keep: Callable[[Any], Any] = lambda record: record,
    mismatch: str | None = None,
  ):
    """Read the existing lines.

    Args:
      path: the file; it need not exist.
      settings: JSON object that all items depend on, the first line of the file. None: the file has no such line.
      item: parsed line -> the item's key; KeyError or TypeError for a line without one. None: items are numbered from
        0, and all lines after an unreadable one are ignored.
      fingerprint: parsed line -> what this item alone depends on, as JSON has it. None: nothing.
      keep: parsed line -> what `records` holds of it, not None; for lines that are large.
      mismatch: error message for a file with other settings. None: adding the first line replaces such a file.

    Raises:
      UserError: the file cannot be read, or has other settings and there is a `mismatch`.
    """
    self.path = Path(path)
    self._settings = None if settings is None else json.loads(json.dumps(settings))
    self._item, self._fingerprint, self._keep = item, fingerprint, keep
    self._file = None
    self.records: dict[Hashable, Any] = {}
    self._fingerprints: dict[Hashable, Any] = {}
    self._places: dict[Hashable, tuple[int, int]] = {}  # where the items' lines begin and end in the file, bytes
    lines = self._read_lines()
    if self._settings is not None and lines:
      if _parsed(lines[0]) != self._settings:
        if mismatch is not None:
          raise UserError(mismatch)
        lines = []
      else:
        self._end, lines = len(lines[0]) + 1, lines[1:]
    self._num_lines = 0
    self._read_records(lines)

  def _read_lines(self) -> list[bytes]:
    """Return the lines that end with a newline."""
    self._end = 0  # bytes that stay when the next line is added
    try:
      # A device or pipe has nothing to read; /dev/full would never end.
      content = self.path.read_bytes() if self.path.is_file() else b''
    except OSError as error:
      raise UserError(f'cannot read {self.path}: {error.strerror}') from error
    return content.split(b'\n')[:-1]

  def _read_records(self, lines: list[bytes]) -> None:
    for number, line in enumerate(lines):
      place = self._end, self._end + len(line) + 1
      try:
        self._include(number, json.loads(line), place)
      except (ValueError, KeyError, TypeError):
        if self._item is None:
          break
      self._end = place[1]
      self._num_lines += 1

  def _include(self, number: int, record: Any, place: tuple[int, int]) -> None:
    """Add the parsed line of that number; KeyError or TypeError if it is not an item's."""
    key = number if self._item is None else self._item(record)
    fingerprint, kept = self._fingerprint and self._fingerprint(record), self._keep(record)
    self.records.pop(key, None)
    self.records[key], self._fingerprints[key], self._places[key] = kept, fingerprint, place

  def find(self, item: Hashable, fingerprint: Any = None) -> Any:
    """Return the entry of an item in `records`, or None if there is none with this fingerprint."""
    if item not in self.records or (self._fingerprint is not None and self._fingerprints[item] != fingerprint):
      return None
    return self.records[item]

  def retain(self, items: Collection[Hashable]) -> None:
    """Rewrite the file atomically with the settings and only these of its items; UserError if that fails."""
    kept = {item: record for item, record in self.records.items() if item in items}
    if self._end and len(kept) == self._num_lines and self.path.is_file():
      return
    self.close()
    with files.atomic_path(self.path) as temporary, open(temporary, 'wb') as new:
      if self._settings is not None:
        new.write(_line(self._settings))
      old = self.path.read_bytes() if kept else b''
      places = {}
      for item in kept:
        start, end = self._places[item]
        places[item] = new.tell(), new.tell() + end - start
        new.write(old[start:end])
      end = new.tell()
    self.records, self._places, self._num_lines, self._end = kept, places, len(kept), end

  def add(self, record: Any) -> None:
    """Append a finished item; it is in the file when this returns.

    Args:
      record: JSON that the `item` and `fingerprint` functions accept.

    Raises:
      UserError: the line cannot be written, e.g. on a full disk. The file then ends with the previous line.
    """
    try:
      if self._file is None:
        self._open()
      start = self._end
      self._append(_line(record))
    except OSError as error:
      self.close()
      raise UserError(f'cannot write {self.path}: {error.strerror or error}') from error
    self._include(self._num_lines, record, (start, self._end))
    self._num_lines += 1

  def _open(self) -> None:
    files.make_folder(self.path.parent)
    if self.path.exists() and not self.path.is_file():
      self._file = open(self.path, 'wb', buffering=0)  # noqa: SIM115  a device or pipe
    else:
      self._file = open(self.path, 'r+b' if self.path.exists() else 'w+b', buffering=0)  # noqa: SIM115
      self._file.truncate(self._end)
      self._file.seek(self._end)
    if self._settings is not None and not self._end:
      self._append(_line(self._settings))

  def _append(self, line: bytes) -> None:
    """Write a whole line or nothing; raises OSError."""
    rest = memoryview(line)
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError:
      with contextlib.suppress(OSError):
        self._file.truncate(self._end)
      raise
    self._end += len(line)

  def close(self) -> None:
    """Close the file; a later `add` opens it again."""
    if self._file is not None:
      self._file.close()
      self._file = None

  def remove(self) -> None:
    """Close the file, and delete it if it exists."""
    self.close()
    self.path.unlink(missing_ok=True)
    self.records, self._places, self._num_lines, self._end = {}, {}, 0, 0

  def __enter__(self) -> 'Journal':
    return self

  def __exit__(self, *error) -> None:
    self.close()


class FolderJournal:
  """Finished items that are files or folders of their own below one folder.

  An item is finished when its file or folder exists. Write items atomically: with `writing`, or `files.atomic_path` and
  `files.atomic_folder`.

  Args:
    folder: the folder.
    name: item -> path of its file or folder, relative to `folder`.
  """

  def __init__(self, folder: str | os.PathLike, name: Callable[[Any], str]):
    self.folder, self._name = Path(folder), name

  def path(self, item: Any) -> Path:
    """Return the path of an item, finished or not."""
    return self.folder / self._name(item)

  def __contains__(self, item: Any) -> bool:
    return self.path(item).exists()

  def todo(self, items: Iterable) -> list:
    """Return the items that are not finished, in the same order."""
    return [item for item in items if item not in self]

  @contextlib.contextmanager
  def writing(self, item: Any) -> Iterator[Path]:
    """Yield a temporary path that becomes an item's file at the end; UserError if that fails."""
    with files.atomic_path(self.path(item)) as temporary:
      yield temporary

  def claim(
    self, name: str, settings: Mapping, *, broken: str, mismatch: str, only: Collection[str] | None = None
  ) -> None:
    """Record the settings of all items in a JSON file, or check that they equal the recorded ones.

    Args:
      name: of the file, in the folder.
      settings: JSON object.
      broken: what to do about an unreadable file, the end of the error message.
      mismatch: error message for other settings; {changed} is replaced by the names of those that differ.
      only: names of the settings that are compared; None: all of them.

    Raises:
      UserError: the file cannot be read or written, or has other settings.
    """
    path = self.folder / name
    known = read_settings(path, broken)
    if known is None:
      write_settings(path, settings)
    else:
      check_settings(known, settings, mismatch, only)


def read_settings(path: Path, broken: str) -> dict | None:
  """Return the JSON object in a file, None if there is no file; UserError ending in `broken` for anything else."""
  try:
    found = _parsed(path.read_bytes())
  except FileNotFoundError:
    return None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}; {broken}') from error
  if not isinstance(found, dict):
    raise UserError(f'{path} is broken; {broken}')
  return found


def write_settings(path: Path, settings: Mapping) -> None:
  """Write a JSON object to a file atomically; UserError if that fails."""
  with files.atomic_path(path) as temporary:
    temporary.write_text(json.dumps(settings, indent=1) + '\n', encoding='utf-8')


def check_settings(known: Any, settings: Mapping, mismatch: str, only: Collection[str] | None = None) -> None:
  """Raise UserError if settings (JSON) differ from the known ones.

  Args:
    known: the recorded settings.
    settings: the requested settings.
    mismatch: the message; {changed} is replaced by the names of those that differ.
    only: names of the settings that are compared; None: all of them.
  """
  known = known if isinstance(known, dict) else {}
  settings = json.loads(json.dumps(settings))
  names = known.keys() | settings.keys() if only is None else set(only)
  absent = object()
  changed = sorted(name for name in names if known.get(name, absent) != settings.get(name, absent))
  if changed:
    raise UserError(mismatch.replace('{changed}', ', '.join(changed)))


def _line(record: Any) -> bytes:
  return (json.dumps(record) + '\n').encode('ascii')


def _parsed(line: bytes) -> Any:
  """Return the parsed line, None if it is not JSON."""
  try:
    return json.loads(line)
  except ValueError:
    return None
