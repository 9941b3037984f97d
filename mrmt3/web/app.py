"""The routes of the server."""

import contextlib
import functools
import json
import logging
import os
import secrets
import shutil
from pathlib import Path
from urllib.parse import quote

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mrmt3.errors import UserError
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.score.options import NO_TEMPO, ScoreOptions
from mrmt3.version import __version__
from mrmt3.web import events, jobs, openapi, rendering, uploads, wire
from mrmt3.web.metrics import Metrics
from mrmt3.web.render_process import RenderProcess
from mrmt3.web.safety import Safety
from mrmt3.web.settings import Settings
from mrmt3.web.store import Store, is_id
from mrmt3.web.worker import QueueFull, Worker

STATIC = Path(__file__).parent / 'static'
_LOG = logging.getLogger(__name__)
_BROWSER_COOKIE = 'mrmt3_browser'
_MAX_RENDER_BYTES = 64 * 2**20  # of the notes in a request
_RETRY_SECONDS = 10
_CHECKS_AT_ONCE = 2  # uploads that are decoded to see whether they are audio
_FRAME_LEVEL_MEMORY = (
  'This is a frame-level model: its memory is the counts of instruments so far and the notes that continue.'
)


class Server:
  """The server's parts and its routes."""

  def __init__(self, transcriber, store: Store, settings: Settings, model: str = ''):
    """Put the server together.

    Args:
      transcriber: the model.
      store: the folder of the jobs.
      settings: limits and addresses.
      model: what to tell about the model.
    """
    self.metrics = Metrics()
    self.store, self.settings, self.model = store, settings, model
    self.worker = Worker(transcriber, store, settings, self.metrics)
    self.renderer = RenderProcess()
    self._arriving = 0  # uploads; they take room on the disk as waiting jobs do
    self._renders = anyio.CapacityLimiter(1)  # the others wait without a thread
    self._checks = anyio.CapacityLimiter(_CHECKS_AT_ONCE)
    network = transcriber.spec.network
    self._uses_prior = bool(network.uses_prior)
    self._memory_remark = '' if getattr(network, 'has_decoder', True) else _FRAME_LEVEL_MEMORY

  def app(self) -> Safety:
    """Return the ASGI app."""
    routes = [
      Route('/', self.page),
      Route('/health', self.health),
      Route('/metrics', self.metrics_text),
      Route('/api/openapi.json', self.description),
      Route('/api/model', self.about),
      Route('/api/jobs', self.list_jobs, methods=['GET']),
      Route('/api/jobs', self.create, methods=['POST']),
      Route('/api/jobs/{id}', self.show, methods=['GET']),
      Route('/api/jobs/{id}', self.remove, methods=['DELETE']),
      Route('/api/jobs/{id}/again', self.again, methods=['POST']),
      Route('/api/jobs/{id}/events', self.events),
      Route('/api/jobs/{id}/notes', self.notes),
      Route('/api/jobs/{id}/audio', self.audio),
      Route('/api/jobs/{id}/{kind}', self.result),
      Route('/api/render/{kind}', self.render, methods=['POST']),
      Mount('/static', StaticFiles(directory=STATIC)),
    ]
    handlers = {
      HTTPException: _http_error,
      QueueFull: _queue_full,
      UserError: _user_error,
      OSError: _system_error,
      Exception: _own_error,
    }
    return Safety(
      Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan), self.settings, self.metrics
    )

  @contextlib.asynccontextmanager
  async def _lifespan(self, app):
    self.worker.start()
    try:
      yield
    finally:
      await run_in_threadpool(self.close)

  def close(self) -> None:
    """Stop decoding and remove temporary files."""
    self.worker.stop()
    self.renderer.close()
    self.store.close()

  async def page(self, request: Request) -> Response:
    """The page."""
    response = FileResponse(STATIC / 'index.html', headers={'cache-control': 'no-cache'})
    if _BROWSER_COOKIE not in request.cookies:
      response.set_cookie(_BROWSER_COOKIE, secrets.token_hex(8), httponly=True, samesite='strict')
    return response

  async def health(self, request: Request) -> Response:
    """Whether jobs are decoded."""
    is_well = self.worker.is_alive
    return JSONResponse({'status': 'ok' if is_well else 'stopped', 'version': __version__}, 200 if is_well else 503)

  async def metrics_text(self, request: Request) -> Response:
    """Counters for Prometheus."""
    counts = dict.fromkeys(jobs.STATES, 0)
    for job in self.worker.all():
      counts[job.state] += 1
    return PlainTextResponse(self.metrics.text(counts), media_type='text/plain; version=0.0.4')

  async def description(self, request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(openapi.document())

  async def about(self, request: Request) -> Response:
    """The model and the limits."""
    return JSONResponse(
      {
        'model': self.model,
        'version': __version__,
        'uses_memory': self._uses_prior,
        'memory_remark': self._memory_remark,
        'max_bytes': self.settings.max_bytes,
        'max_seconds': self.settings.max_seconds,
        'has_sound': _is_there('symusic'),
        'has_sheets': _is_there('verovio'),
      }
    )

  async def list_jobs(self, request: Request) -> Response:
    """All jobs, newest first."""
    positions = self.worker.positions()
    found = reversed(self.worker.all())
    return JSONResponse({'jobs': [job.record(positions.get(job.id)) for job in found]})

  async def create(self, request: Request) -> Response:
    """Queue an upload."""
    options = _options(request)
    self.worker.check_room(self._arriving)
    upload = self.store.uploads / jobs.new_id()
    self._arriving += 1
    try:
      name = await uploads.receive(request, upload, self.settings)
      try:
        check = functools.partial(uploads.check_audio, upload, name or '', self.settings)
        seconds = await anyio.to_thread.run_sync(check, limiter=self._checks)
      except UserError as error:
        self.metrics.count('refused_total', reason='audio')
        raise HTTPException(422, str(error)) from error
      job = self._new_job(name, upload, options, seconds, request)
    finally:
      self._arriving -= 1
      upload.unlink(missing_ok=True)
    return self._created(job)

  async def again(self, request: Request) -> Response:
    """Queue the audio of a job once more, with other options."""
    job = self._job(request)
    options = _options(request, of=job.id)
    self.worker.check_room()
    if not job.audio.is_file():
      raise HTTPException(409, f'the audio of this job is gone; its state is {job.state}')
    upload = self.store.uploads / jobs.new_id()
    try:
      await run_in_threadpool(_link_or_copy, job.audio, upload)
      other = self._new_job(job.name, upload, options, job.seconds, request)
    finally:
      upload.unlink(missing_ok=True)
    return self._created(other)

  def _new_job(self, name, upload, options, seconds, request):
    folder = self.store.new_folder()
    upload.rename(folder / 'audio')
    address = request.client.host if request.client else ''
    browser = request.cookies.get(_BROWSER_COOKIE, '')[:64]
    job = jobs.Job(jobs.display_name(name), folder, options, (address, browser), seconds)
    try:
      self.worker.submit(job)
    except UserError:
      self.store.remove(job)
      raise
    return job

  def _created(self, job):
    record = job.record(self.worker.position(job))
    return JSONResponse(record, 201, headers={'location': f'/api/jobs/{job.id}'})

  async def show(self, request: Request) -> Response:
    """One job."""
    job = self._job(request)
    return JSONResponse(job.record(self.worker.position(job)))

  async def remove(self, request: Request) -> Response:
    """Cancel a job, or remove a finished one."""
    job = self._job(request)
    await run_in_threadpool(self.worker.cancel, job)
    return Response(status_code=204)

  async def events(self, request: Request) -> Response:
    """News of a job."""
    job = self._job(request)
    last = request.headers.get('last-event-id', '')
    start = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
    stream = events.stream(job, lambda: self.worker.position(job), start)
    headers = {'cache-control': 'no-store', 'x-accel-buffering': 'no'}
    return StreamingResponse(stream, media_type='text/event-stream', headers=headers)

  async def notes(self, request: Request) -> Response:
    """The notes so far."""
    job = self._job(request)
    records = await run_in_threadpool(lambda: wire.note_records(job.notes()))
    return JSONResponse({'id': job.id, 'state': job.state, 'notes': records})

  async def audio(self, request: Request) -> Response:
    """The uploaded file as it is, or as FLAC."""
    job = self._job(request)
    if not job.audio.is_file():
      raise HTTPException(409, f'the audio of this job is gone; its state is {job.state}')
    form = request.query_params.get('format', 'original')
    if form == 'original':
      # Browsers must not take a client's file for a page.
      return FileResponse(job.audio, media_type='application/octet-stream', headers=_attachment(job.name, ''))
    if form != 'flac':
      raise HTTPException(422, 'format must be original or flac')
    data = await self._call('decoded_audio', os.fspath(job.audio))
    return Response(data, media_type='audio/flac', headers=_attachment(job.name, '.flac'))

  async def result(self, request: Request) -> Response:
    """The notes of a finished job as a file."""
    kind = _kind(request)
    job = self._job(request)
    if job.state != jobs.DONE:
      raise HTTPException(409, f'the job is {job.state}; its results are there when it is done')
    query = _query(request, 'tempo', 'quantize', 'program', 'drums')
    notes = job.notes()
    if query['program'] is not None or query['drums'] is not None:
      notes = _of_instrument(notes, query['program'], query['drums'])
    what = rendering.Request(kind, notes, _title(job.name), job.seconds or 0.0, _score(query))
    return await self._rendered(what, job.name)

  async def render(self, request: Request) -> Response:
    """The notes of a request as a file."""
    kind = _kind(request)
    body = await _json(request)
    notes = await run_in_threadpool(wire.notes_from_records, body.get('notes'))
    title = body.get('title', '')
    seconds = body.get('seconds', None)
    if not isinstance(title, str):
      raise HTTPException(422, 'title: a text is needed')
    if seconds is None:
      seconds = float(notes['offset'].max(initial=0.0))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= wire.MAX_SECONDS:
      raise HTTPException(422, f'seconds: a number in 0 .. {wire.MAX_SECONDS:g} is needed')
    if kind == 'sound' and seconds > self.settings.max_seconds:
      raise HTTPException(422, f'seconds: sound is limited to {self.settings.max_seconds:g} s')
    query = {name: body.get(name) for name in ('tempo', 'quantize')}
    if any(value is not None and not isinstance(value, str) for value in query.values()):
      raise HTTPException(422, 'tempo and quantize: a text is needed')
    title = jobs.display_name(title) if title else ''
    return await self._rendered(rendering.Request(kind, notes, title, float(seconds), _score(query)), title or 'notes')

  async def _rendered(self, what, name):
    data = await self._call('render', what)
    media_type, suffix = rendering.KINDS[what.kind]
    return Response(data, media_type=media_type, headers={**_attachment(name, suffix), 'cache-control': 'no-store'})

  async def _call(self, function, *arguments):
    try:
      return await anyio.to_thread.run_sync(self.renderer.call, function, *arguments, limiter=self._renders)
    except ModuleNotFoundError as error:
      raise HTTPException(422, f'this server cannot do that: {error.name} is not installed') from error

  def _job(self, request) -> jobs.Job:
    job_id = request.path_params['id']
    job = self.worker.get(job_id) if is_id(job_id) else None
    if job is None:
      raise HTTPException(404, 'no such job; it may have been removed')
    return job


def _is_there(package: str) -> bool:
  import importlib.util

  return importlib.util.find_spec(package) is not None


def _options(request, of=None) -> jobs.Options:
  query = _query(request, 'instruments', 'memory', 'name')
  instruments, memory = query['instruments'], query['memory'] or 'predicted'
  if memory not in jobs.MEMORY_MODES:
    raise HTTPException(422, f'memory must be {" or ".join(jobs.MEMORY_MODES)}')
  if instruments is not None:
    InstrumentChoice.parse(instruments)
  return jobs.Options(instruments, memory, of)


def _query(request, *names) -> dict[str, str | None]:
  unknown = set(request.query_params) - {*names, 'token'}
  if unknown:
    raise HTTPException(422, f'unknown parameter {sorted(unknown)[0]!r:.60}; there are {", ".join(names)}')
  if any(len(value) > 2000 for value in request.query_params.values()):
    raise HTTPException(422, 'a parameter is too long')
  return {name: request.query_params.get(name) for name in names}


def _kind(request) -> str:
  kind = request.path_params['kind']
  if kind not in rendering.KINDS:
    raise HTTPException(404, f'no such output; there are {", ".join(rendering.KINDS)}')
  return kind


def _score(query) -> ScoreOptions:
  options = ScoreOptions(query['tempo'] or (NO_TEMPO if not query['quantize'] else 'auto'), query['quantize'] or None)
  options.check()
  return options


def _of_instrument(notes, program, drums):
  if drums is not None and drums not in ('true', 'false'):
    raise HTTPException(422, 'drums must be true or false')
  if drums == 'true':
    return notes[notes['is_drum']]
  if program is None or not (program.isascii() and program.isdigit()) or int(program[:4]) > 127:
    raise HTTPException(422, 'program must be a whole number in 0 .. 127')
  return notes[~notes['is_drum'] & (notes['program'] == int(program))]


async def _json(request) -> dict:
  data = bytearray()
  async for chunk in request.stream():
    data += chunk
    if len(data) > _MAX_RENDER_BYTES:
      raise HTTPException(413, f'the notes are larger than {_MAX_RENDER_BYTES} bytes')
  try:
    body = await run_in_threadpool(json.loads, bytes(data), parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    raise HTTPException(422, 'the body is not JSON') from error
  if not isinstance(body, dict):
    raise HTTPException(422, 'the body must be an object with the field notes')
  return body


def _no_constant(text):
  raise ValueError(text)


def _title(name: str) -> str:
  stem, dot, suffix = name.rpartition('.')
  return stem if dot and stem and len(suffix) <= 5 else name


def _attachment(name: str, suffix: str) -> dict[str, str]:
  """Return the header that gives a download its name."""
  return {'content-disposition': f"attachment; filename*=UTF-8''{quote((_title(name) if suffix else name) + suffix)}"}


def _link_or_copy(source: Path, target: Path) -> None:
  try:
    os.link(source, target)
  except OSError:
    shutil.copyfile(source, target)


async def _http_error(request, error):
  # The router's own texts are the names of the status codes.
  text = {'Not Found': 'there is nothing at this address', 'Method Not Allowed': 'this address has no such method'}
  return JSONResponse({'error': text.get(error.detail, error.detail)}, error.status_code, headers=error.headers)


async def _queue_full(request, error):
  return JSONResponse({'error': str(error)}, 429, headers={'retry-after': str(_RETRY_SECONDS)})


async def _user_error(request, error):
  return JSONResponse({'error': str(error)}, 422)


async def _system_error(request, error):
  _LOG.error('%s: %s', request.url.path, error)
  return JSONResponse({'error': f'the server cannot store it ({error.strerror or error}); try again later'}, 507)


async def _own_error(request, error):
  _LOG.error('%s failed', request.url.path)  # uvicorn logs where
  return JSONResponse({'error': 'the server has failed here; its log tells more'}, 500)
