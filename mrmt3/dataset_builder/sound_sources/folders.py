"""Where the files of sound sources are, and how they get there.

Packages are fetched with npm and apt-get as the user has configured them, and unpacked without root into
`sounds/packages/NAME` of mrmt3's cache. Debian packages that are installed are used where they are.
"""

import importlib.util
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_folder, make_folder
from mrmt3.utils.user_cache import cache_root_or_temporary

_TIMEOUT = 900  # s for one download
_NAMES = {'npm': 'npm', 'deb': 'apt-get'}


def sounds_folder() -> Path:
  """Return the folder of all sounds in the cache; it may not exist."""
  return cache_root_or_temporary() / 'sounds'


def package_folder(package: str) -> Path:
  """Return the folder in the cache to which a package ('npm:NAME@VERSION', 'deb:NAME') is unpacked."""
  _, name = package.split(':', 1)
  return sounds_folder() / 'packages' / name.lstrip('@').replace('/', '-').replace('@', '-')


def find_path(package: str, path: str) -> Path | None:
  """Return the file or folder `path` of a package if it is on this machine, else None."""
  kind, name = package.split(':', 1)
  if kind == 'python':
    spec = importlib.util.find_spec(name)
    candidates = [Path(spec.origin).parent / path] if spec is not None and spec.origin else []
  else:
    candidates = [package_folder(package) / path] + ([Path('/') / path] if kind == 'deb' else [])
  return next((candidate for candidate in candidates if candidate.exists()), None)


def install_line(package: str) -> str:
  """Return the command that brings a package."""
  kind, name = package.split(':', 1)
  if kind == 'python':
    return f'pip install {name}'
  if kind == 'deb':
    return f'mrmt3 dataset sounds --fetch, or apt-get install {name}'
  return 'mrmt3 dataset sounds --fetch'


def fetch_package(package: str) -> Path:
  """Download and unpack a package to `package_folder`, unless it is there; nothing half-written stays.

  Raises UserError if the program that downloads it is missing or fails, or if the package is empty.
  """
  target = package_folder(package)
  if target.exists():
    return target
  kind, name = package.split(':', 1)
  program = _NAMES.get(kind)
  if program is None:
    raise UserError(f'cannot fetch the package {name}; get it with: {install_line(package)}')
  if shutil.which(program) is None:
    raise UserError(f'cannot fetch the package {name}: {program} is not installed; install it, or copy {target} here')
  make_folder(target.parent)
  try:
    with tempfile.TemporaryDirectory(prefix='.fetch-', dir=target.parent) as folder:
      _download(kind, name, Path(folder))
      with atomic_folder(target) as unpacked:
        _unpack(kind, name, Path(folder), unpacked)
  except OSError as error:
    raise UserError(f'cannot unpack {name} to {target}: {error.strerror or error}') from error
  return target


def _download(kind, name, folder):
  command = ['npm', 'pack', '--silent', name] if kind == 'npm' else ['apt-get', 'download', name]
  try:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
  except subprocess.TimeoutExpired as error:
    raise UserError(f'{" ".join(command)} took longer than {_TIMEOUT} s; try again') from error
  if done.returncode:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    raise UserError(f'{" ".join(command)} failed ({lines[-1].strip() if lines else "no message"}); try again later')


def _unpack(kind, name, folder, target):
  archives = [path for path in folder.iterdir() if path.suffix in ('.tgz', '.deb')]
  if len(archives) != 1 or not archives[0].stat().st_size:
    raise UserError(f'the package {name} is empty; try again later')
  if kind == 'npm':
    try:
      with tarfile.open(archives[0]) as archive:
        archive.extractall(target, filter='data')
    except (tarfile.TarError, EOFError) as error:
      raise UserError(f'the package {name} is broken ({error}); try again later') from error
  else:
    if shutil.which('dpkg-deb') is None:
      raise UserError(f'cannot unpack {name}: dpkg-deb is not installed; apt-get install {name}')
    done = subprocess.run(['dpkg-deb', '-x', archives[0], target], capture_output=True, text=True, check=False)
    if done.returncode:
      raise UserError(f'cannot unpack the package {name}: {done.stderr.strip() or "dpkg-deb failed"}')
  if not any(path.is_file() for path in target.rglob('*')):
    raise UserError(f'the package {name} has no files; try again later')
