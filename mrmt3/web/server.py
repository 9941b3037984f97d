"""Runs the server until it is stopped."""

import contextlib
import signal
import socket
import threading
import webbrowser

import uvicorn

from mrmt3.errors import UserError
from mrmt3.web.app import Server
from mrmt3.web.safety import TOKEN_PARAMETER
from mrmt3.web.settings import Settings

_MAX_CONNECTIONS = 1000
_GRACE_SECONDS = 3  # for open requests when the server is stopped


class _Uvicorn(uvicorn.Server):
  """Stops at SIGINT and SIGTERM, and then lets the command clean up: uvicorn would send the signal once more."""

  @contextlib.contextmanager
  def capture_signals(self):
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
    try:
      yield
    finally:
      for kind, handler in before.items():
        signal.signal(kind, handler)


def listen(settings: Settings) -> socket.socket:
  """Return a socket that listens on the address of the settings; UserError if it is taken."""
  family = socket.AF_INET6 if ':' in settings.host else socket.AF_INET
  listening = socket.socket(family, socket.SOCK_STREAM)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listening.bind((settings.host, settings.port))
    listening.listen(1024)
  except (OSError, UnicodeError) as error:
    listening.close()
    reason = getattr(error, 'strerror', None) or error
    raise UserError(
      f'cannot listen on {settings.host}:{settings.port}: {reason}; choose another --port (0: any)'
    ) from error
  return listening


def address(settings: Settings, listening: socket.socket) -> str:
  """Return the address of the page, with the token if there is one."""
  host = f'[{settings.host}]' if ':' in settings.host else settings.host
  token = f'?{TOKEN_PARAMETER}={settings.token}' if settings.token else ''
  return f'http://{host}:{listening.getsockname()[1]}/{token}'


def make(app) -> uvicorn.Server:
  """Return what serves an ASGI app; see `run`."""
  config = uvicorn.Config(
    app,
    access_log=False,
    log_level='warning',
    server_header=False,
    proxy_headers=False,
    limit_concurrency=_MAX_CONNECTIONS,
    timeout_graceful_shutdown=_GRACE_SECONDS,
    ws='none',
  )
  return _Uvicorn(config)


def run(server: Server, listening: socket.socket, page: str | None = None) -> None:
  """Serve until SIGINT or SIGTERM; `page` is an address to open in the browser."""
  if page is not None:
    threading.Timer(0.5, webbrowser.open, [page]).start()
  make(server.app()).run(sockets=[listening])
