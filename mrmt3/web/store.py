"""The folder of the jobs: temporary, or kept over a restart.

A job's folder has the uploaded file, and job.json when the job is done. Names of clients are never part of a path.
A temporary folder that a killed server has left is removed by the next one.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import filelock
import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.note_array import NOTE_DTYPE
from mrmt3.utils import interrupts
from mrmt3.utils.files import atomic_path, make_folder
from mrmt3.web import jobs

_PREFIX = 'mrmt3-serve-'
_LOCK = '.lock'
_ID = re.compile(r'[A-Za-z0-9_-]{22}')
_SAVED = ('name', 'created', 'started', 'finished', 'seconds', 'done_seconds', 'warnings', 'facts')


def is_id(text: str) -> bool:
  """Return whether a text has the form of a job's id."""
  return _ID.fullmatch(text) is not None


class Store:
  """The folder of the jobs, which no other server uses at the same time."""

  def __init__(self, data: str | os.PathLike | None = None):
    """Make or open the folder.

    Args:
      data: a folder in which finished jobs are kept; None for a temporary one.

    Raises:
      UserError: the folder cannot be made, or another server uses it.
    """
    self.is_kept = data is not None
    if data is None:
      _remove_left(Path(tempfile.gettempdir()))
      parent = Path(tempfile.gettempdir())
      try:
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
      except OSError as error:
        raise UserError(f'cannot make a temporary folder in {parent}: {error.strerror}; set TMPDIR') from error
    else:
      self.root = make_folder(data)
    self._lock = _locked(self.root)
    if self._lock is None:
      raise UserError(f'--data {self.root}: another server uses this folder; stop it, or name another folder')
    make_folder(self._folder)
    shutil.rmtree(self.uploads, ignore_errors=True)
    make_folder(self.uploads)
    self._removal = contextlib.ExitStack()
    if not self.is_kept:
      self._removal.enter_context(interrupts.removing(self.root))

  @property
  def uploads(self) -> Path:
    """The folder of files that are being uploaded."""
    return self.root / 'uploads'

  @property
  def _folder(self) -> Path:
    return self.root / 'jobs'

  def new_folder(self) -> Path:
    """Make the folder of a new job; its name is the job's id."""
    folder = self._folder / jobs.new_id()
    folder.mkdir(mode=0o700)
    return folder

  def save(self, job: jobs.Job) -> None:
    """Write a finished job, if jobs are kept."""
    if not self.is_kept:
      return
    notes, _ = job.notes_from()
    record = {name: getattr(job, name) for name in _SAVED}
    record |= {'options': dataclasses.asdict(job.options)}
    record |= {'columns': list(notes.dtype.names), 'table': [list(row) for row in notes.tolist()]}
    with atomic_path(job.folder / 'job.json') as path:
      path.write_text(json.dumps(record), encoding='utf-8')

  def load(self) -> list[jobs.Job]:
    """Return the finished jobs of earlier runs, oldest first; folders of unfinished ones are removed."""
    found = []
    for folder in sorted(self._folder.iterdir()):
      job = _read(folder) if is_id(folder.name) else None
      if job is None:
        shutil.rmtree(folder, ignore_errors=True)
      else:
        found.append(job)
    return sorted(found, key=lambda job: job.created)

  def remove(self, job: jobs.Job) -> None:
    """Remove a job's files."""
    shutil.rmtree(job.folder, ignore_errors=True)

  def close(self) -> None:
    """Remove a temporary folder; unlock one that is kept."""
    if self._lock is None:  # closed already
      return
    if not self.is_kept:
      shutil.rmtree(self.root, ignore_errors=True)
    self._removal.close()
    self._lock.release()
    self._lock = None


def _read(folder):
  try:
    record = json.loads((folder / 'job.json').read_text(encoding='utf-8'))
    columns, rows = record['columns'], record['table']
    notes = np.zeros(len(rows), NOTE_DTYPE)
    for number, name in enumerate(columns):
      if name in NOTE_DTYPE.names:
        notes[name] = [row[number] for row in rows]
    job = jobs.Job(record['name'], folder, jobs.Options(**record['options']))
    job.add(notes, record['done_seconds'])
    for name in _SAVED:
      setattr(job, name, record[name])
    job.state = jobs.DONE
    return job if job.audio.is_file() else None
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _locked(folder: Path) -> filelock.BaseFileLock | None:
  """Return a lock on a folder, which ends with this process, however that ends; None if another one has it."""
  lock = filelock.FileLock(folder / _LOCK, thread_local=False)
  try:
    lock.acquire(blocking=False)
  except filelock.Timeout:
    return None
  return lock


def _remove_left(parent: Path) -> None:
  """Remove the folders of servers that were killed. `mrmt3` itself puts them into a temporary folder of its own."""
  for folder in [*parent.glob(f'{_PREFIX}*'), *parent.parent.glob(f'mrmt3-*/{_PREFIX}*')]:
    with contextlib.suppress(OSError):
      if folder.is_symlink() or not _is_own(folder) or not (folder / _LOCK).is_file():
        continue
      lock = _locked(folder)
      if lock is None:
        continue
      shutil.rmtree(folder, ignore_errors=True)
      lock.release()
      if folder.parent.name.startswith('mrmt3-'):
        folder.parent.rmdir()  # if nothing else is in it


def _is_own(folder: Path) -> bool:
  return not hasattr(os, 'getuid') or folder.stat().st_uid == os.getuid()
