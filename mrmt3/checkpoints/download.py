"""HTTP downloads with the standard library: resumable, verified, and renamed to their final name when complete."""

import contextlib
import hashlib
import http.client
import re
import shutil
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mrmt3.checkpoints import limits, paced_http
from mrmt3.checkpoints.published import RemoteFile
from mrmt3.errors import UserError, first_line
from mrmt3.utils import files, strict_json

TRIES = 4  # consecutive attempts without progress
TIMEOUT = 20.0  # s without a response or a byte
_BLOCK = 1 << 20
_PAUSE = 1.0  # s between attempts, doubled each time
_AGENT = 'mrmt3'
_MAX_BYTES = 1 << 34  # of a file whose size is unknown, and of all objects of a listing
_FILE_SECONDS = 24 * 3600.0  # for a file, all attempts together
_MIN_PROGRESS = 1 << 16  # bytes, for which an attempt counts as one with progress
_MAX_OBJECTS = 100_000
_MAX_PAGES = 1000
_PAGE_BYTES = 1 << 24
_LISTING_SECONDS = 600.0
MARKER = '.downloading'  # name of the file that `fetch` puts next to a bucket's objects
_TEMPORARY_ERRORS = (408, 425, 429, 500, 502, 503, 504)


class Unreachable(UserError):
  """The server cannot be reached, even after several attempts."""


def download(remote: RemoteFile, path: Path, progress: Callable[[int, int | None], None] | None = None) -> str:
  """Download a file to `path`, which appears when the file is complete and verified; returns its sha256.

  An earlier partial download in `<path>.part` is resumed if the server supports it.

  Args:
    remote: the file; its size and digests are verified if they are known.
    path: where to store it.
    progress: called with (bytes received, total bytes or None) after every block.

  Raises:
    Unreachable: the server cannot be reached; the partial download is kept.
    UserError: the server does not have the file, sends another one (which is removed), or it cannot be written.
  """
  files.make_folder(path.parent)
  part = path.with_name(f'{path.name}.part')
  redirects = paced_http.Redirects()
  try:
    _fetch(remote, part, redirects, progress)
    return _check(remote, part, path, redirects.sha256)
  except OSError as error:
    raise UserError(f'cannot write {path}: {error.strerror or _plain(error)}') from error


def _fetch(remote: RemoteFile, part: Path, redirects: paced_http.Redirects, progress) -> None:
  """Complete the partial file, in as many attempts as make progress."""
  deadline = time.monotonic() + _FILE_SECONDS
  opener = paced_http.build_opener(redirects, deadline)
  tries, pause = 0, _PAUSE
  while True:
    before, slow = _size(part), False
    try:
      if _fetch_rest(opener, remote, part, progress):
        return
      error = 'the connection was lost'
    except urllib.error.HTTPError as failure:
      error = _temporary_error(remote.url, failure)
    except (http.client.HTTPException, OSError) as failure:
      if getattr(failure, 'filename', None) is not None or isinstance(failure, _WriteError):
        raise UserError(f'cannot write {part}: {failure.strerror or failure}') from failure
      error, slow = getattr(failure, 'reason', None) or failure, isinstance(failure, paced_http.TooSlow)
    except ValueError as failure:  # of urllib and http.client, for addresses and headers that they cannot parse
      raise UserError(f'{remote.url}: invalid response ({_plain(failure)}); try again later') from failure
    tries = 1 if _size(part) >= before + _MIN_PROGRESS and not slow else tries + 1
    if tries >= TRIES or time.monotonic() > deadline:
      raise Unreachable(
        f'{remote.url}: {_plain(error)} ({tries} times); the partial download is kept, run it again to resume'
      )
    time.sleep(pause if tries > 1 else 0)
    pause = min(pause * 2, 30) if tries > 1 else _PAUSE


def _temporary_error(url: str, error: urllib.error.HTTPError) -> str:
  """Return the message of a temporary error; UserError for a permanent one."""
  error.close()
  answer = f'{error.code} {_plain(error.reason)}'
  if error.code not in _TEMPORARY_ERRORS:
    raise UserError(f'{url}: the server answers {answer}; the file may have moved') from error
  return answer


def _content_length(response) -> int | None:
  length = response.headers.get('Content-Length') or ''
  return int(length) if re.fullmatch(r'[0-9]{1,18}', length) else None


def _read_etag(path: Path) -> str:
  """Return the tag that is stored next to a partial file; '' if there is none that a header can hold."""
  with contextlib.suppress(OSError, ValueError):
    etag = path.read_text(encoding='utf-8')
    if etag.isascii() and etag.isprintable():
      return etag
  return ''


class _WriteError(OSError):
  """A write error, as opposed to a network error."""


def _fetch_rest(opener, remote: RemoteFile, part: Path, progress) -> bool:
  """Append what the server sends to the partial file; returns whether it is complete."""
  etag_file = part.with_name(f'{part.name}.etag')
  have = _size(part)
  if remote.size is not None and have > remote.size:
    part.unlink()
    have = 0
  if remote.size is not None and have == remote.size:
    return True
  headers = {'User-Agent': _AGENT, 'Accept-Encoding': 'identity'}
  if have:
    headers['Range'] = f'bytes={have}-'
    etag = _read_etag(etag_file)
    if etag and not etag.startswith('W/'):
      headers['If-Range'] = etag
  try:
    response = opener.open(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code != 416 or not have:
      raise
    # Either nothing is left to send, or the partial file belongs to another file.
    if remote.size is None and error.headers.get('Content-Range', '').endswith(f'/{have}'):
      return True
    part.unlink()
    return False
  with response:
    if response.status != 206 or not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
      have = 0
      if response.status == 206:  # not the requested range
        part.unlink(missing_ok=True)
        return False
    length = _content_length(response)
    total = None if length is None else have + length
    if remote.size is not None and total is not None and total != remote.size:
      part.unlink(missing_ok=True)
      raise UserError(
        f'{remote.url} has {total:,} bytes, not {remote.size:,}: it is not the published file and was not downloaded'
      )
    most = _MAX_BYTES if remote.size is None else remote.size
    if (total or 0) > most:
      raise UserError(f'{remote.url} has {total:,} bytes, more than {most:,}; it was not downloaded')
    _check_room(part, (total or remote.size or 0) - have)
    try:
      etag_file.write_text(response.headers.get('ETag', ''), encoding='utf-8')
      with part.open('ab' if have else 'wb') as file:
        while block := response.read1(_BLOCK):
          have += len(block)
          if have > most:
            part.unlink()
            raise UserError(
              f'{remote.url} sends more than {most:,} bytes: it is not the published file; it was removed'
            )
          _write(file, block)
          if progress:
            progress(have, total or remote.size)
    except http.client.IncompleteRead as error:
      with part.open('ab') as file:
        _write(file, error.partial)
      return False
  return total is None or have == total


def _write(file, block: bytes) -> None:
  try:
    file.write(block)
    file.flush()
  except OSError as error:
    raise _WriteError(error.errno, error.strerror) from error


def _check_room(part: Path, needed: int) -> None:
  free = shutil.disk_usage(part.parent).free
  if needed > free:
    raise UserError(
      f'{part.parent}: not enough space, {needed:,} bytes are needed and {free:,} are free; '
      'free some, or set MRMT3_CACHE to another folder'
    )


def _check(remote: RemoteFile, part: Path, path: Path, linked_sha256: str | None) -> str:
  """Rename a complete download if it is the right file, else remove it; returns its sha256."""
  published = {'sha256': remote.sha256 or linked_sha256, 'md5': remote.md5}
  expected = {name: value.lower() for name, value in published.items() if value is not None}
  sums = {name: hashlib.new(name, usedforsecurity=False) for name in {'sha256', *expected}}
  size = 0
  with part.open('rb') as file:
    while block := file.read(_BLOCK):
      size += len(block)
      for digest in sums.values():
        digest.update(block)
  problem = None
  if remote.size is not None and size != remote.size:
    problem = f'has {size:,} bytes, not {remote.size:,}'
  for name, value in expected.items():
    if sums[name].hexdigest() != value:
      problem = f'has the {name} sum {sums[name].hexdigest()}, not {value}'
  part.with_name(f'{part.name}.etag').unlink(missing_ok=True)
  if problem:
    part.unlink()
    raise UserError(f'{remote.url}: the download {problem}; it was removed, try again')
  part.replace(path)
  return sums['sha256'].hexdigest()


def check_file(remote: RemoteFile, path: Path) -> None:
  """Raise UserError if a file that the user placed is not the published one; it is not removed."""
  size = _size(path)
  if remote.size is not None and size != remote.size:
    raise UserError(f'{path} has {size:,} bytes, not {remote.size:,}; remove it, or download it again')
  if remote.sha256:
    try:
      with path.open('rb') as file:
        found = hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
      raise UserError(f'cannot read {path}: {error.strerror or error}') from error
    if found != remote.sha256:
      raise UserError(f'{path} has the sha256 sum {found}, not {remote.sha256}; remove it, or download it again')


def list_bucket(listing: str, prefix: str) -> list[RemoteFile]:
  """List the objects of a public Google Cloud Storage bucket below `prefix`, which is removed from their names.

  Args:
    listing: `https://.../storage/v1/b/<bucket>/o`.
    prefix: e.g. 'checkpoints/mt3/'.

  Raises:
    Unreachable: the server cannot be reached.
    UserError: there is no object below `prefix`, or the response is invalid.
  """
  objects, tokens = [], ['']
  deadline = time.monotonic() + _LISTING_SECONDS
  for _ in range(_MAX_PAGES):
    query = {
      'prefix': prefix,
      'fields': 'items(name,size,md5Hash),nextPageToken',
      **({'pageToken': tokens[-1]} if tokens[-1] else {}),
    }
    answer = _get_json(f'{listing}?{urllib.parse.urlencode(query)}', deadline)
    try:
      objects += [_object(item, listing, prefix) for item in answer.get('items', []) if not item['name'].endswith('/')]
      token = answer.get('nextPageToken', '')
      if not isinstance(token, str) or (token and token in tokens):
        raise ValueError('its pages have no end')
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise UserError(f'{listing}: invalid response ({_plain(error)}); try again later') from error
    tokens.append(token)
    if not token or len(objects) > _MAX_OBJECTS:
      break
  if tokens[-1] or len(objects) > _MAX_OBJECTS or sum(o.size for o in objects) > _MAX_BYTES:
    raise UserError(f'{listing}: there is more under {prefix} than a checkpoint has; was the address changed?')
  if not objects:
    raise UserError(f'{listing}: no objects under {prefix}; they may have moved')
  _check_collisions(objects, listing)
  return objects


def _object(item: dict, listing: str, prefix: str) -> RemoteFile:
  import base64

  full_name, size = item['name'], int(str(item['size']))
  if not full_name.startswith(prefix) or size < 0:
    raise ValueError(f'object {full_name!r:.80}')
  name = full_name.removeprefix(prefix)
  limits.check_path(name.split('/'))
  md5 = base64.b64decode(item['md5Hash'], validate=True).hex() if item.get('md5Hash') else None
  return RemoteFile(name, f'{listing}/{urllib.parse.quote(full_name, safe="")}?alt=media', size, md5=md5)


def _check_collisions(objects: list[RemoteFile], listing: str) -> None:
  """Raise UserError if two objects need one path, on file systems that ignore case as well, or one needs our own."""

  def key(name):
    return unicodedata.normalize('NFC', name).casefold()

  taken = {key(MARKER)}
  for remote in objects:
    for name in (key(f'{remote.name}{suffix}') for suffix in ('', '.part', '.part.etag')):
      if name in taken:
        raise UserError(f'{listing}: the object {remote.name!r} has the file name of another one; was it changed?')
      taken.add(name)
  for remote in objects:
    if any(key(str(parent)) in taken for parent in PurePosixPath(remote.name).parents):
      raise UserError(f'{listing}: a folder of the object {remote.name!r} is an object as well; was it changed?')


def _get_json(url: str, deadline: float) -> dict:
  request = urllib.request.Request(url, headers={'User-Agent': _AGENT})
  opener = paced_http.build_opener(paced_http.Redirects(), deadline)
  for attempt in range(TRIES):
    try:
      with opener.open(request, timeout=TIMEOUT) as response:
        content = response.read(_PAGE_BYTES + 1)
        length = _content_length(response)
      if len(content) <= _PAGE_BYTES and len(content) < (length or 0):
        raise ConnectionError('the connection was lost')
      answer = strict_json.loads(content, _PAGE_BYTES)
      if not isinstance(answer, dict):
        raise ValueError('not a JSON object')
      return answer
    except urllib.error.HTTPError as error:
      reason = _temporary_error(url, error)
    except ValueError as error:
      raise UserError(f'{url}: invalid response ({_plain(error)}); try again later') from error
    except (http.client.HTTPException, OSError) as error:
      reason = getattr(error, 'reason', None) or error
    if attempt + 1 < TRIES and time.monotonic() < deadline:
      time.sleep(_PAUSE * 2**attempt)
  raise Unreachable(f'{url}: {_plain(reason)}')


def _plain(error) -> str:
  """Return the first line of what a server or the system says, without control characters."""
  return ''.join(c if c.isprintable() else '?' for c in first_line(error))


def _size(path: Path) -> int:
  with contextlib.suppress(OSError):
    return path.stat().st_size
  return 0
