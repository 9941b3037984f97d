"""What a study has found so far, kept so that a run that was stopped goes on: one file a result, and one run at a time."""

import contextlib
import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils import files

LINES_NAME = 'results.jsonl'
_MADE_BY_NAME = 'made_by.json'
_LOCK_NAME = '.lock'


def slug(name: str) -> str:
  """Returns a name as part of a path."""
  return re.sub(r'[^\w.-]+', '_', name).strip('_')


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
  """A block in which no other run of a study works in the folder; UserError if one does.

  Yields a file descriptor; a process that inherits it keeps the folder locked for as long as it lives, so that nothing is
  trained twice where a run was killed and its training was not.
  """
  # A plain flock lasts until every process that inherited the descriptor has closed it. filelock keeps its descriptor to itself,
  # and its release unlocks for all of them.
  with open(files.make_folder(folder) / _LOCK_NAME, 'a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UserError(
        f'another study, or the training it began, is at work in {folder}; wait for it, or choose another folder'
      ) from None
    yield lock.fileno()


class Results:
  """Results by name, a JSON file each in folder/results; all of them in results.jsonl when `write_lines` is called.

  Args:
    folder: of the study.
    made_by: what the results depend on, JSON. Results of other settings are not taken.
  """

  def __init__(self, folder: Path, made_by: Mapping):
    self._folder, self._made_by = folder, json.loads(json.dumps(made_by))
    self._found: dict[str, dict] = {}

  def begin(self, made: bool) -> None:
    """Writes down what the results depend on, before there are any.

    Data sets and half-trained networks are taken up by a later run, and no result tells what they were made with.

    Args:
      made: whether the folder has such things in it.

    Raises:
      UserError: it has, of other settings.
    """
    path = self._folder / _MADE_BY_NAME
    if made and path.exists():
      try:
        known = json.loads(path.read_text(encoding='utf-8'))
      except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}; choose another folder with -o') from error
      self._check(path, known, self._made_by)
    with files.atomic_path(path) as temporary:
      temporary.write_text(json.dumps(self._made_by) + '\n', encoding='utf-8')

  @staticmethod
  def _check(path, known, made_by, remedy=''):
    if known != made_by:
      known = known if isinstance(known, dict) else {}
      changed = sorted(
        key for key in {*known, *made_by} if key not in known or key not in made_by or known[key] != made_by[key]
      )
      raise UserError(
        f'{path} was made with other settings ({", ".join(changed)}); {remedy}choose another folder with -o'
      )

  def get(self, name: str, compute: Callable[[], Mapping], **more) -> dict:
    """Returns the result of that name: what is there, or else what `compute` returns (JSON), which is kept.

    Args:
      name: of the result.
      compute: finds it out.
      **more: what this result depends on besides.

    Raises:
      UserError: what is there was made with other settings, or cannot be written.
    """
    made_by = {**self._made_by, **json.loads(json.dumps(more))}
    path = self._folder / 'results' / f'{slug(name)}.json'
    if path.exists():
      known = self._read(path)
      self._check(path, known['made_by'], made_by, 'remove it, or ')
    else:
      known = {'name': name, 'made_by': made_by, 'result': compute()}
      with files.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known) + '\n', encoding='utf-8')
    self._found[name] = known
    return known['result']

  @staticmethod
  def _read(path):
    try:
      known = json.loads(path.read_text(encoding='utf-8'))
      return {'made_by': known['made_by'], 'result': known['result'], 'name': known['name']}
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise UserError(f'{path} is no result of a study; remove it') from error

  def write_lines(self) -> Path:
    """Writes all results that were asked for to results.jsonl, a line each, and returns its path."""
    path = self._folder / LINES_NAME
    with files.atomic_path(path) as temporary:
      temporary.write_text(''.join(json.dumps(known) + '\n' for known in self._found.values()), encoding='utf-8')
    return path
