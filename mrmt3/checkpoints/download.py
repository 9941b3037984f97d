"""HTTP downloads with the standard library: resumable, verified, and renamed to their final name when complete."""

import contextlib
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mrmt3.checkpoints.published import RemoteFile
from mrmt3.errors import UserError, first_line
from mrmt3.utils import files

TRIES = 4  # consecutive attempts without a new byte
TIMEOUT = 20.0  # s without a response or a byte
_BLOCK = 1 << 20
_PAUSE = 1.0  # s between attempts, doubled each time
_AGENT = 'mrmt3'
_MAX_OBJECTS = 100_000
_TEMPORARY_ERRORS = (408, 425, 429, 500, 502, 503, 504)


class Unreachable(UserError):
  """The server cannot be reached, even after several attempts."""


class _Redirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects, but not from HTTPS to HTTP; keeps the sha256 in Hugging Face's X-Linked-ETag header."""

  def __init__(self):
    self.sha256 = None

  def redirect_request(self, request, fp, code, msg, headers, newurl):
    """Return the next request; UserError if it is not encrypted any more."""
    if request.type == 'https' and not newurl.startswith('https:'):
      raise UserError(f'{request.full_url} redirects to an unencrypted address, {newurl}; it is not followed')
    linked = (headers.get('X-Linked-ETag') or '').strip('"')
    if len(linked) == 64:
      self.sha256 = linked.lower()
    return super().redirect_request(request, fp, code, msg, headers, newurl)


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
  redirects = _Redirects()
  opener = urllib.request.build_opener(redirects)
  tries, pause = 0, _PAUSE
  while True:
    before = _size(part)
    try:
      if _fetch_rest(opener, remote, part, progress):
        break
      error = 'the connection was lost'
    except urllib.error.HTTPError as failure:
      error = _temporary_error(remote.url, failure)
    except (http.client.HTTPException, OSError) as failure:
      if getattr(failure, 'filename', None) is not None or isinstance(failure, _WriteError):
        raise UserError(f'cannot write {part}: {failure.strerror or failure}') from failure
      error = getattr(failure, 'reason', None) or failure
    tries = 1 if _size(part) > before else tries + 1
    if tries >= TRIES:
      raise Unreachable(
        f'{remote.url}: {first_line(error)} ({tries} times); the partial download is kept, run it again to resume'
      )
    time.sleep(pause if tries > 1 else 0)
    pause = min(pause * 2, 30) if tries > 1 else _PAUSE
  return _check(remote, part, path, redirects.sha256)


def _temporary_error(url: str, error: urllib.error.HTTPError) -> str:
  """Return the message of a temporary error; UserError for a permanent one."""
  if error.code not in _TEMPORARY_ERRORS:
    raise UserError(f'{url}: the server answers {error.code} {error.reason}; the file may have moved') from error
  return f'{error.code} {error.reason}'


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
    etag = etag_file.read_text() if etag_file.exists() else ''
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
    length = response.headers.get('Content-Length')
    total = have + int(length) if length and length.isdigit() else None
    if remote.size is not None and total is not None and total != remote.size:
      part.unlink(missing_ok=True)
      raise UserError(
        f'{remote.url} has {total:,} bytes, not {remote.size:,}: it is not the published file and was not downloaded'
      )
    _check_room(part, (total or remote.size or 0) - have)
    try:
      etag_file.write_text(response.headers.get('ETag', ''))
      with part.open('ab' if have else 'wb') as file:
        while block := response.read(_BLOCK):
          _write(file, block)
          have += len(block)
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
    with path.open('rb') as file:
      found = hashlib.file_digest(file, 'sha256').hexdigest()
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
  objects, token = [], ''
  while True:
    query = {
      'prefix': prefix,
      'fields': 'items(name,size,md5Hash),nextPageToken',
      **({'pageToken': token} if token else {}),
    }
    answer = _get_json(f'{listing}?{urllib.parse.urlencode(query)}')
    try:
      objects += [_object(item, listing, prefix) for item in answer.get('items', []) if not item['name'].endswith('/')]
      token = answer.get('nextPageToken', '')
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise UserError(f'{listing}: invalid response ({first_line(error)}); try again later') from error
    if not token or len(objects) > _MAX_OBJECTS:
      break
  if not objects:
    raise UserError(f'{listing}: no objects under {prefix}; they may have moved')
  return objects


def _object(item: dict, listing: str, prefix: str) -> RemoteFile:
  import base64

  name = item['name'].removeprefix(prefix)
  parts = PurePosixPath(name).parts
  if not parts or name.startswith('/') or '..' in parts or '\\' in name:
    raise ValueError(f'object name {item["name"]!r}')
  md5 = base64.b64decode(item['md5Hash']).hex() if item.get('md5Hash') else None
  return RemoteFile(
    name, f'{listing}/{urllib.parse.quote(item["name"], safe="")}?alt=media', int(item['size']), md5=md5
  )


def _get_json(url: str) -> dict:
  request = urllib.request.Request(url, headers={'User-Agent': _AGENT})
  opener = urllib.request.build_opener(_Redirects())
  for attempt in range(TRIES):
    try:
      with opener.open(request, timeout=TIMEOUT) as response:
        content = response.read(_BLOCK * 16)
      if len(content) < int(response.headers.get('Content-Length') or 0):
        raise ConnectionError('the connection was lost')
      answer = json.loads(content)
      if not isinstance(answer, dict):
        raise ValueError('not a JSON object')
      return answer
    except urllib.error.HTTPError as error:
      reason = _temporary_error(url, error)
    except ValueError as error:
      raise UserError(f'{url}: invalid response ({first_line(error)}); try again later') from error
    except (http.client.HTTPException, OSError) as error:
      reason = getattr(error, 'reason', None) or error
    if attempt + 1 < TRIES:
      time.sleep(_PAUSE * 2**attempt)
  raise Unreachable(f'{url}: {first_line(reason)}')


def _size(path: Path) -> int:
  with contextlib.suppress(OSError):
    return path.stat().st_size
  return 0
