"""Fetches published checkpoints: downloads, verifies and converts them, so that they are found by name."""

import concurrent.futures
import shutil
import sys
from pathlib import Path, PurePosixPath

from mrmt3.checkpoints import conversion, download, published
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints.published import Published
from mrmt3.errors import UserError
from mrmt3.utils import files

_PARALLEL_DOWNLOADS = 8  # of a bucket's many small files
_OPTIMIZER = 'state.'  # prefix of t5x's optimizer state, which is not needed


def is_here(what: Published) -> bool:
  """Return whether a published checkpoint has been fetched and converted."""
  return orbax_checkpoints.latest_step(published.checkpoint_folder(what.name)) is not None


def fetch(what: Published, *, keep: bool = False, quiet: bool = False) -> Path:
  """Download and convert a published checkpoint unless that is done, and return its folder.

  A file that already exists where it would be downloaded to is used without asking a server.

  Args:
    what: the checkpoint.
    keep: keep the downloaded files after conversion.
    quiet: show no progress on stderr.

  Raises:
    UserError: a server cannot be reached (with instructions to download by hand), the download is not the published
      file, or it cannot be converted.
  """
  folder = published.checkpoint_folder(what.name)
  if is_here(what):
    return folder
  by_hand = _is_placed(what)
  if by_hand and what.file:
    download.check_file(what.file, what.source)
  elif not by_hand:
    try:
      _download(what, quiet)
    except download.Unreachable as error:
      by_hand = not what.file and _has_checkpoint(what.source)  # placed after a download had begun
      if not by_hand:
        raise UserError(f'{error}. Without internet: {what.by_hand()}, then run this command again') from error
  source = conversion.open_source(what.source)
  spec = conversion.model_spec(source, conversion.Choices())
  params = conversion.params_of(source, spec)
  conversion.write(folder, conversion.OURS, params, spec, source.step)
  if not by_hand and not keep:
    shutil.rmtree(published.downloads_folder() / what.name, ignore_errors=True)
  return folder


def _marker(what: Published) -> Path:
  """Return the file that marks an unfinished download of a bucket."""
  return published.downloads_folder() / what.name / download.MARKER


def _is_placed(what: Published) -> bool:
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
      print(f'{what.file.name}: sha256 {sha256} (not verified: the published sum is unknown)', file=sys.stderr)
    return
  objects = [o for o in download.list_bucket(what.listing, what.prefix) if not _is_optimizer_state(o.name)]
  files.make_folder(_marker(what).parent)
  try:
    _marker(what).touch()
  except OSError as error:
    raise UserError(f'cannot write {_marker(what)}: {error.strerror or error}') from error
  missing = [o for o in objects if not (what.source / o.name).is_file()]
  with _Progress(what.name, quiet, sum(o.size for o in missing)) as progress:
    pool = concurrent.futures.ThreadPoolExecutor(_PARALLEL_DOWNLOADS)
    try:
      jobs = [pool.submit(download.download, o, what.source / o.name, progress.of(o.name)) for o in missing]
      for job in concurrent.futures.as_completed(jobs):
        job.result()
    finally:
      pool.shutdown(cancel_futures=True)


class _Progress:
  """Progress bar on stderr for the bytes of one or more files; updated every 10 s if stderr is not a terminal."""

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
    self._received = {}

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()

  def of(self, name: str):
    """Return the callback of a file, which takes (bytes received, total bytes)."""

    def update(received, total):
      if not self._has_total:
        self._bar.total = total
      self._bar.update(received - self._received.get(name, 0))
      self._received[name] = received

    return update
