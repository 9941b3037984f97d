"""Writing files so that nobody ever sees half of one."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mrmt3.errors import UserError


def make_folder(folder: str | os.PathLike) -> Path:
  """Makes `folder` and its parents where missing and returns it; UserError if that cannot be done."""
  if '://' in str(folder):
    raise UserError(f'cannot write to {folder}: it is not a folder on this machine; mount it, or name a local one')
  folder = Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    in_the_way = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    reason = error.strerror if in_the_way is None else f'{in_the_way} is a file; move it, or choose another folder'
    raise UserError(f'cannot make the folder {folder}: {reason}') from error
  return folder


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
  """Yields a temporary path beside `path`, which takes its place when the block ends well.

  If the block raises, the temporary file is removed and `path` is as it was. The temporary name keeps the
  suffix, because writers of audio and pictures choose their format by it. A device or pipe (/dev/stdout) is written to
  directly. Raises UserError (an OSError inside the block included) with the path and the system's reason.
  """
  path = Path(path)
  if path.is_dir():
    raise UserError(f'cannot write {path}: it is a folder; name a file')
  make_folder(path.parent)
  is_plain = path.is_file() or not path.exists()
  temporary = path.with_name(f'.{path.stem}.{secrets.token_hex(4)}{path.suffix}') if is_plain else path
  try:
    yield temporary
    if is_plain:
      temporary.replace(path)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror or error}') from error
  finally:
    if is_plain:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
  """Yields a new empty folder beside `path`, which takes its place when the block ends well.

  If the block raises, the folder is removed. Raises UserError if `path` is there already, or for an OSError inside the
  block, with the path and the system's reason.
  """
  path = Path(path)
  if path.exists():
    raise UserError(f'cannot write {path}: it is there already; remove it, or name another')
  temporary = None
  try:
    temporary = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=make_folder(path.parent)))
    yield temporary
    temporary.chmod(0o755)
    temporary.rename(path)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror or error}') from error
  finally:
    if temporary is not None:
      shutil.rmtree(temporary, ignore_errors=True)
