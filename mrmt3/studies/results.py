"""Stored results of a study, one file each, so that a stopped study can resume; and a lock on the study's folder."""

import contextlib
import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils import files, journal

LINES_NAME = 'results.jsonl'
_MADE_BY_NAME = 'made_by.json'
_LOCK_NAME = '.lock'


def slug(name: str) -> str:
  """Return a name in a form that is safe in paths."""
  return re.sub(r'[^\w.-]+', '_', name).strip('_')


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
  """Lock a study's folder during a block; UserError if another study has locked it.

  Yields a file descriptor. A process that inherits it keeps the folder locked until it ends, so that a training that
  outlives a killed study is not started twice.
  """
  # A plain flock lasts until every process that inherited the descriptor has closed it. filelock keeps its descriptor
  # to itself, and its release unlocks for all of them.
  with open(files.make_folder(folder) / _LOCK_NAME, 'a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UserError(
        f'another study, or the training it began, is at work in {folder}; wait for it, or choose another folder'
      ) from None
    yield lock.fileno()


class Results:
  """Results by name, one JSON file each in folder/results. `write_lines` writes all of them to results.jsonl.

  Args:
    folder: the study's folder.
    made_by: the settings that the results depend on, JSON. Results with other settings are refused.
  """

  def __init__(self, folder: Path, made_by: Mapping):
    self._folder, self._made_by = folder, json.loads(json.dumps(made_by))
    self._items = journal.FolderJournal(folder / 'results', lambda name: f'{slug(name)}.json')
    self._found: dict[str, dict] = {}

  def begin(self, made: bool) -> None:
    """Record the settings before there are results.

    A later run reuses data sets and partly trained networks, which do not record their settings themselves.

    Args:
      made: whether the folder has data sets or networks.

    Raises:
      UserError: they were made with other settings.
    """
    path = self._folder / _MADE_BY_NAME
    known = journal.read_settings(path, 'choose another folder with -o') if made else None
    if known is not None:
      self._check(path, known, self._made_by)
    journal.write_settings(path, self._made_by)

  @staticmethod
  def _check(path, known, made_by, remedy=''):
    mismatch = f'{path} was made with other settings ({{changed}}); {remedy}choose another folder with -o'
    journal.check_settings(known, made_by, mismatch)

  def get(self, name: str, compute: Callable[[], Mapping], **more) -> dict:
    """Return a stored result; if there is none, call `compute` and store its result (JSON).

    Args:
      name: name of the result.
      compute: computes the result.
      **more: additional settings that this result depends on.

    Raises:
      UserError: the stored result has other settings, or the result cannot be written.
    """
    made_by = {**self._made_by, **json.loads(json.dumps(more))}
    path = self._items.path(name)
    if name in self._items:
      known = self._read(path)
      self._check(path, known['made_by'], made_by, 'remove it, or ')
    else:
      known = {'name': name, 'made_by': made_by, 'result': compute()}
      with self._items.writing(name) as temporary:
        temporary.write_text(json.dumps(known) + '\n', encoding='utf-8')
    self._found[name] = known
    return known['result']

  @staticmethod
  def _read(path):
    try:
      known = json.loads(path.read_text(encoding='utf-8'))
      return {'made_by': known['made_by'], 'result': known['result'], 'name': known['name']}
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(f'{path} is not a result of a study; remove it') from error

  def write_lines(self) -> Path:
    """Write all results of this run to results.jsonl, one per line, and return its path."""
    path = self._folder / LINES_NAME
    with files.atomic_path(path) as temporary:
      temporary.write_text(''.join(json.dumps(known) + '\n' for known in self._found.values()), encoding='utf-8')
    return path
