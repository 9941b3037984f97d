"""Receives an upload: to a file of the server's own name, up to the size limit, and only if it is audio."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mrmt3.audio import files as audio_files
from mrmt3.errors import UserError
from mrmt3.utils import warning_lines
from mrmt3.web import jobs
from mrmt3.web.settings import MEGABYTE, Settings
from mrmt3.web.worker import check_length

_STALLED_SECONDS = 60.0  # without a byte
_COPY_BYTES = MEGABYTE


async def receive(request: Request, target: Path, settings: Settings) -> str | None:
  """Write the audio in a request to a file, and return the client's name of it, if it sends one.

  The body is the file itself, or a form with the file in the field `file`.

  Raises:
    HTTPException: it is too large, stalls, or is empty.
  """
  declared = request.headers.get('content-length', '')
  if declared.isdigit() and int(declared) > settings.max_bytes + MEGABYTE:
    raise _too_large(settings)
  if request.headers.get('content-type', '').lower().startswith('multipart/form-data'):
    return await _receive_form(request, target, settings)
  size = 0
  async with await anyio.open_file(target, 'wb') as file:
    async for chunk in _limited(request, settings.max_bytes, settings):
      size += len(chunk)
      await file.write(chunk)
  if not size:
    raise HTTPException(422, 'the body is empty; send an audio file')
  return request.query_params.get('name')


async def _receive_form(request, target, settings):
  # A part's file has no name on disk until it is complete, so that nothing is left after a kill.
  parser = MultiPartParser(
    request.headers, _limited(request, settings.max_bytes + MEGABYTE, settings), max_files=1, max_fields=10
  )
  try:
    form = await parser.parse()
  except MultiPartException as error:
    raise HTTPException(422, f'the form cannot be read: {error.message}') from error
  except (ValueError, KeyError, UnicodeDecodeError) as error:
    raise HTTPException(422, 'the form cannot be read; send the audio in its field "file"') from error
  async with contextlib.AsyncExitStack() as stack:
    stack.push_async_callback(form.close)
    part = form.get('file')
    if part is None or isinstance(part, str):
      raise HTTPException(422, 'the form has no file in a field "file"')
    if not part.size:
      raise HTTPException(422, 'the file is empty; send an audio file')
    if part.size > settings.max_bytes:
      raise _too_large(settings)

    def copy():
      with open(target, 'wb') as file:
        shutil.copyfileobj(part.file, file, _COPY_BYTES)

    await anyio.to_thread.run_sync(copy)
    return request.query_params.get('name') or part.filename


async def _limited(request, most, settings) -> AsyncIterator[bytes]:
  """Yield the body; HTTPException if it is too large or stalls."""
  count, stream = 0, request.stream()
  while True:
    try:
      with anyio.fail_after(_STALLED_SECONDS):
        chunk = await anext(stream, None)
    except TimeoutError as error:
      raise HTTPException(408, f'nothing was sent for {_STALLED_SECONDS:g} s') from error
    if chunk is None:
      return
    count += len(chunk)
    if count > most:
      raise _too_large(settings)
    yield chunk


def _too_large(settings):
  return HTTPException(413, f'the file is larger than {settings.max_megabytes:g} MiB; compress it, or send a part')


def check_audio(path: Path, name: str, settings: Settings) -> float | None:
  """Decode the beginning of a file, whatever its name is, and return the length in its header, s.

  Raises:
    UserError: it is not audio, or too long.
  """
  try:
    with warning_lines.in_this_thread(lambda message: None):  # the job will have them
      seconds = audio_files.promised_seconds(path)
      if seconds is not None:
        check_length(seconds, settings)
      next(audio_files.audio_blocks(path))
  except UserError as error:
    raise UserError(str(error).replace(os.fspath(path), jobs.display_name(name))) from error
  return seconds
