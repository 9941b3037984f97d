"""Published checkpoints onto this machine: downloaded, checked, converted, and found by name from then on."""

import concurrent.futures
import shutil
import sys
from pathlib import Path, PurePosixPath

from mrmt3.checkpoints import conversion, download, published
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints.published import Published
from mrmt3.errors import UserError
from mrmt3.utils import files

_AT_ONCE = 8  # of the many small files of a bucket
_OPTIMIZER = 'state.'  # what the names of t5x's optimizer state begin with; not needed


def is_here(what: Published) -> bool:
  """Returns whether a published checkpoint has been fetched and converted."""
  return orbax_checkpoints.latest_step(published.checkpoint_folder(what.name)) is not None


def fetch(what: Published, *, keep: bool = False, quiet: bool = False) -> Path:
  """Downloads and converts a published checkpoint unless it is here, and returns its folder.

  A file that lies where it would have been downloaded to is taken, and no server asked.

  Args:
    what: which one.
    keep: keep what was downloaded, too, and not the converted checkpoint alone.
    quiet: no progress on stderr.

  Raises:
    UserError: where a server cannot be reached, with how to get the checkpoint by hand; if what arrives is not what was
      published, or cannot be converted.
  """
  folder = published.checkpoint_folder(what.name)
  if is_here(what):
    return folder
  by_hand = _lies_there(what)
  if by_hand and what.file:
    download.check_file(what.file, what.source)
  elif not by_hand:
    try:
      _download(what, quiet)
    except download.Unreachable as error:
      by_hand = not what.file and _has_checkpoint(what.source)  # put there after a download had begun
      if not by_hand:
        raise UserError(f'{error}. Without internet: {what.by_hand()}, then run this again') from error
  source = conversion.open_source(what.source)
  spec = conversion.model_spec(source, conversion.Choices())
  params = conversion.params_of(source, spec)
  conversion.write(folder, conversion.OURS, params, spec, source.step)
  if not by_hand and not keep:
    shutil.rmtree(published.downloads_folder() / what.name, ignore_errors=True)
  return folder


def _marker(what: Published) -> Path:
  """Returns the file that says that a bucket is being downloaded, so that what is there may be half of it."""
  return published.downloads_folder() / what.name / '.downloading'


def _lies_there(what: Published) -> bool:
  if what.file:
    return what.source.is_file()
  return _has_checkpoint(what.source) and not _marker(what).exists()


def _has_checkpoint(folder: Path) -> bool:
  try:
    orbax_checkpoints.find_checkpoint(folder)
  except UserError:
    return False
  return True


def _is_optimizer_state(name: str) -> bool:
  return any(part.startswith(_OPTIMIZER) for part in PurePosixPath(name).parts)


def _download(what: Published, quiet: bool) -> None:
  if what.file:
    with _Progress(what.name, quiet) as progress:
      sha256 = download.download(what.file, what.source, progress.of(what.file.name))
    if not quiet and not what.file.sha256:
      print(f'{what.file.name}: sha256 {sha256} (what it should be is not known here)', file=sys.stderr)
    return
  objects = [o for o in download.list_bucket(what.listing, what.prefix) if not _is_optimizer_state(o.name)]
  files.make_folder(_marker(what).parent)
  _marker(what).touch()
  missing = [o for o in objects if not (what.source / o.name).is_file()]
  with _Progress(what.name, quiet, sum(o.size for o in missing)) as progress:
    pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
    try:
      jobs = [pool.submit(download.download, o, what.source / o.name, progress.of(o.name)) for o in missing]
      for job in concurrent.futures.as_completed(jobs):
        job.result()
    finally:
      pool.shutdown(cancel_futures=True)


class _Progress:
  """A bar on stderr of the bytes of one or more files; a line every ten seconds where that is no terminal."""

  def __init__(self, name: str, quiet: bool, total: int | None = None):
    from tqdm import tqdm

    pause = 0.2 if sys.stderr.isatty() else 10
    self._bar = tqdm(
      desc=name,
      total=total,
      unit='B',
      unit_scale=True,
      leave=False,
      disable=quiet,
      mininterval=pause,
      maxinterval=pause,
    )
    self._has_total = total is not None
    self._there = {}

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()

  def of(self, name: str):
    """Returns the function that takes (bytes there, all bytes) of a file."""

    def update(there, total):
      if not self._has_total:
        self._bar.total = total
      self._bar.update(there - self._there.get(name, 0))
      self._there[name] = there

    return update
