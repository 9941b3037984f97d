"""A transcription job: its state, the notes so far, and those who wait for news of it."""

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mrmt3.notes.instruments import instrument_name, instruments_of, notes_of
from mrmt3.notes.note_array import empty_notes, sort_notes
from mrmt3.utils import console

QUEUED, RUNNING, DONE, FAILED, CANCELLED = 'queued', 'running', 'done', 'failed', 'cancelled'
FINISHED = frozenset([DONE, FAILED, CANCELLED])
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED)
MAX_NAME = 120  # characters of a file's name that are kept
MEMORY_MODES = ('predicted', 'none')
_MAX_WARNINGS = 20


def new_id() -> str:
  """Return the id of a job, which nobody can guess: 22 characters."""
  return secrets.token_urlsafe(16)


def display_name(name: str | None) -> str:
  """Return what to show of the name of a client's file: its last part, without characters that act on a terminal."""
  last = (name or '').replace('\\', '/').rsplit('/', 1)[-1].strip()
  return console.printable(last.encode('utf-8', 'replace').decode())[:MAX_NAME] or 'recording'


@dataclasses.dataclass(frozen=True)
class Options:
  """How a job is decoded.

  Attributes:
    instruments: the only ones that there are (`inference.instrument_filter`), or None: any.
    memory: 'predicted', or 'none': every segment is decoded as if it were the first one.
    of: id of the job whose audio is decoded again, or None.
  """

  instruments: str | None = None
  memory: str = 'predicted'
  of: str | None = None


class Job:
  """A job. The worker writes to it, the server reads it, each in a thread of its own.

  Attributes:
    id: of the job, part of its addresses.
    name: what to show of its file's name.
    folder: its files: `audio`, and `job.json` when it is finished.
    options: how it is decoded.
    client: (address, browser), for the order of the queue.
    state: one of `STATES`.
  """

  def __init__(self, name: str, folder: Path, options: Options, client: tuple[str, str] = ('', ''), seconds=None):
    """Make a queued job; `seconds` is the length of the audio, if its header has one."""
    self.id, self.name, self.folder, self.options, self.client = folder.name, name, folder, options, client
    self.state, self.error, self.warnings = QUEUED, None, []
    self.created, self.started, self.finished = time.time(), None, None
    self.seconds, self.done_seconds = seconds, 0.0
    self.facts = {}
    self.is_cancelled = False
    self._notes: list[np.ndarray] = []
    self._count = 0
    self._lock = threading.Lock()
    self._listeners: set[Callable[[], None]] = set()

  @property
  def audio(self) -> Path:
    """The uploaded file."""
    return self.folder / 'audio'

  @property
  def is_finished(self) -> bool:
    """Whether nothing about it will change."""
    return self.state in FINISHED

  def start(self) -> None:
    """Note that decoding begins."""
    self.state, self.started = RUNNING, time.time()
    self.tell()

  def add(self, notes: np.ndarray, seconds: float) -> None:
    """Take the notes that are complete now that `seconds` of the audio are decoded."""
    with self._lock:
      if len(notes):
        self._notes.append(notes)
        self._count += len(notes)
      self.done_seconds = seconds
    self.tell()

  def warn(self, text: str) -> None:
    """Take a line about something odd in the audio."""
    text = self.without_path(text)
    if text not in self.warnings and len(self.warnings) < _MAX_WARNINGS:
      self.warnings.append(text)

  def finish(self, state: str, error: str | None = None, **facts) -> None:
    """Note that it is done, failed or cancelled."""
    with self._lock:
      self._notes = [np.concatenate(self._notes)] if self._notes else []
    self.error = None if error is None else self.without_path(error)
    self.facts = facts
    self.finished = self.finished or time.time()
    self.state = state
    self.tell()

  def without_path(self, text: str) -> str:
    """Return a message in which the client's name of the file replaces that of the server's."""
    return console.printable(text.replace(str(self.audio), self.name))

  def notes_from(self, start: int = 0) -> tuple[np.ndarray, int]:
    """Return (the notes from number `start`, in the order of completion; how many there are in all)."""
    with self._lock:
      parts, count = list(self._notes), self._count
    notes = np.concatenate(parts) if parts else empty_notes()
    return notes[max(start, 0) :], count

  def notes(self) -> np.ndarray:
    """Return all notes so far, sorted."""
    return sort_notes(self.notes_from()[0])

  def record(self, position: int | None = None) -> dict:
    """Return what the API tells about it; `position` is its place in the queue, from 1."""
    notes, count = self.notes_from()
    return {
      'id': self.id,
      'name': self.name,
      'state': self.state,
      'position': position,
      'seconds': self.seconds,
      'done_seconds': round(self.done_seconds, 3),
      'notes': count,
      'instruments': [
        {
          'program': program,
          'is_drum': is_drum,
          'name': instrument_name(program, is_drum),
          'notes': len(notes_of(notes, program, is_drum)),
        }
        for program, is_drum in instruments_of(notes)
      ],
      'options': dataclasses.asdict(self.options),
      'warnings': list(self.warnings),
      'error': self.error,
      'created': self.created,
      'started': self.started,
      'finished': self.finished,
      **self.facts,
    }

  def listen(self, listener: Callable[[], None]) -> None:
    """Call `listener`, in the worker's thread, whenever something about the job has changed."""
    with self._lock:
      self._listeners.add(listener)

  def unlisten(self, listener: Callable[[], None]) -> None:
    """Call `listener` no more."""
    with self._lock:
      self._listeners.discard(listener)

  def tell(self) -> None:
    """Call the listeners."""
    with self._lock:
      listeners = list(self._listeners)
    for listener in listeners:
      listener()
