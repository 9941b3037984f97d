"""Atomic writing of files and folders."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils import interrupts
from mrmt3.utils.file_names import MAX_NAME_BYTES, shortened


def make_folder(folder: str | os.PathLike) -> Path:
  """Create `folder` and its parents if missing and return it; UserError if that fails."""
  if '://' in str(folder):
    raise UserError(f'cannot write to {folder}: it is not a local folder; mount it, or name a local one')
  folder = Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    in_the_way = next(
      (path for path in (folder, *folder.parents) if os.path.exists(path) and not os.path.isdir(path)), None
    )
    reason = error.strerror if in_the_way is None else f'{in_the_way} is a file; move it, or choose another folder'
    raise UserError(f'cannot make the folder {folder}: {reason}') from error
  return folder


def check_writable(files: Iterable[Path]) -> None:
  """Raise UserError if a file cannot be written: a folder is in its place, or a file in that of its folder."""
  files = list(files)
  for folder in sorted({file.absolute().parent for file in files}):
    nearest = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not nearest.is_dir():
      raise UserError(f'cannot write to {folder}: {nearest} is a file; move it, or choose another folder')
    if not os.access(nearest, os.W_OK | os.X_OK):
      raise UserError(f'cannot write to {nearest}: no permission; choose another folder')
  for file in files:
    if file.is_dir():
      raise UserError(f'cannot write {file}: it is a folder; choose another name')


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
  """Let `tempfile` use a folder within the block that is removed at its end, or when the process is interrupted.

  For programs, not for libraries. TensorFlow, for one, leaves temporary files to an orderly exit.
  """
  before = tempfile.tempdir
  with contextlib.suppress(OSError):  # the first one to need a temporary file reports that
    tempfile.tempdir = tempfile.mkdtemp(prefix='mrmt3-')
  if tempfile.tempdir == before:
    yield
    return
  folder = Path(tempfile.tempdir)
  try:
    with interrupts.removing(folder):
      yield
  finally:
    tempfile.tempdir = before
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
  """Yield a temporary path in the folder of `path`; when the block succeeds, the file is renamed to `path`.

  If the block raises, the temporary file is removed and `path` is unchanged. The temporary name keeps the suffix,
  because writers of audio and images choose their format by it. A device or pipe (/dev/stdout) is written directly.

  Raises:
    UserError: `path` is a folder or cannot be written, or the block raised an OSError; with the system's reason.
  """
  path = Path(path)
  if path.is_dir():
    raise UserError(f'cannot write {path}: it is a folder; name a file')
  make_folder(path.parent)
  is_regular = path.is_file() or not path.exists()
  temporary = _temporary_name(path) if is_regular else path
  try:
    with interrupts.removing(temporary) if is_regular else contextlib.nullcontext():
      yield temporary
      if is_regular:
        temporary.replace(path)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror or error}') from error
  finally:
    if is_regular:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
  """Yield a new empty folder in the parent of `path`; when the block succeeds, it is renamed to `path`.

  If the block raises, the new folder is removed.

  Raises:
    UserError: `path` exists or cannot be written, or the block raised an OSError; with the system's reason.
  """
  path = Path(path)
  if path.exists():
    raise UserError(f'cannot write {path}: it already exists; remove it, or choose another name')
  temporary = None
  try:
    temporary = Path(tempfile.mkdtemp(prefix=f'.{shortened(path.name, 200)}.', dir=make_folder(path.parent)))
    with interrupts.removing(temporary):
      yield temporary
      temporary.chmod(0o755)
      temporary.rename(path)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror or error}') from error
  finally:
    if temporary is not None:
      shutil.rmtree(temporary, ignore_errors=True)


def _temporary_name(path):
  end = f'.{secrets.token_hex(4)}{path.suffix}'
  return path.with_name(f'.{shortened(path.stem, MAX_NAME_BYTES - 1 - len(os.fsencode(end)))}{end}')
