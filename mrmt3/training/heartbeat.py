"""What happens when one of several processes is lost: the others end within a minute and report it in one line.

A step is done by all processes together, so those that are left would wait for ever. During training each process
comes, every few seconds, to a barrier of JAX's coordination service; when one does not, the others end. JAX's own
heartbeats do the same a little later, with an abort.

The service runs in process 0. When that is lost, its connections close, and JAX's client aborts the other processes at
once. Its public API has no callback for this, and the one within (missed_heartbeat_callback) aborts too, because jaxlib
0.10 cannot hand it the status. So the other processes reach the service through `relay`, which sees first that it has
gone.
"""

import contextlib
import os
import re
import socket
import sys
import threading
from typing import NoReturn

HEARTBEAT_SECONDS = 50  # of jax.distributed; 100 by default
EXIT_CODE = 75  # as sysexits.h's EX_TEMPFAIL: start again
PERIOD, PATIENCE = 5.0, 30.0  # seconds between two barriers, and to wait at one
ANSWER_SECONDS = 2.0  # to wait for process 0 to take a new connection, after it has closed one
END_SECONDS = 86400.0  # to wait for the others at the end; who is lost meanwhile is noticed as ever
NO_PROXY = 'no_grpc_proxy'  # gRPC's variable, in lower case; without it gRPC takes no_proxy

_LOST = re.compile(r'\bGloo\b|NCCL|coordination service|Connection (reset|closed)|heartbeat', re.IGNORECASE)


def report_lost_process(reason: str) -> None:
  """Print that another process is lost, in one line."""
  print(
    f'mrmt3: error: another process of this run is lost ({reason}); see the end of each log, and start all of them '
    'again to resume from the last checkpoint',
    file=sys.stderr,
    flush=True,
  )


def is_loss(error: BaseException) -> bool:
  """Return whether an exception is the loss of another process, in a run of several."""
  return Watch.running is not None and _LOST.search(str(error)) is not None


class Watch:
  """Looks after the other processes from now on; `jax.distributed` is initialised.

  Attributes:
    running: the process's watch, if there is one.
  """

  running: 'Watch | None' = None

  def __init__(self):
    import jax
    from jax._src import distributed  # the service's barriers are not public yet

    self._client, self._count = distributed.global_state.client, jax.process_count()
    self._ended = threading.Event()
    Watch.running = self
    threading.Thread(target=self._watch, name='watch', daemon=True).start()

  def _watch(self) -> None:
    number = 0
    while not self._ended.wait(PERIOD):
      try:
        self._client.wait_at_barrier(f'mrmt3_alive_{number}', int(1000 * PATIENCE))
      except Exception as error:
        if self._ended.is_set():
          return
        _end(_reason(error))
      number += 1

  def end(self) -> None:
    """Wait until all processes have come to their end."""
    try:
      self._client.wait_at_barrier('mrmt3_end', int(1000 * END_SECONDS))
    except Exception as error:
      _end(_reason(error))
    self._ended.set()
    Watch.running = None


def relay(address: str) -> str:
  """Return HOST:PORT on this machine; threads of this process forward its connections to another address and back.

  When nothing listens at that address any more, the process ends as for a loss. A client of the relay does not see the
  connection close before.

  Args:
    address: HOST:PORT of JAX's coordination service.
  """
  # gRPC would ask a proxy for this machine too. Where none is set, the variable would make JAX warn of one.
  if any('_proxy' in name.lower() for name in os.environ):
    exempt = os.environ.get(NO_PROXY) or os.environ.get('no_proxy')
    os.environ[NO_PROXY] = f'{exempt},127.0.0.1' if exempt else '127.0.0.1'
  server = socket.create_server(('127.0.0.1', 0))
  threading.Thread(target=_accept, args=(server, address), name='relay', daemon=True).start()
  return f'127.0.0.1:{server.getsockname()[1]}'


def _accept(server: socket.socket, address: str) -> None:
  while True:
    client, _ = server.accept()
    try:
      service = _connect(address)
    except OSError:
      _end_if_gone(address)
      client.close()
      continue
    service.settimeout(None)
    for source, target in ((client, service), (service, client)):
      source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      threading.Thread(target=_pass_on, args=(source, target, address), name='relay', daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, address: str) -> None:
  try:
    while data := source.recv(1 << 16):
      target.sendall(data)
  except OSError:
    pass  # closed as well, if not in order
  _end_if_gone(address)
  for side in (source, target):
    with contextlib.suppress(OSError):
      side.shutdown(socket.SHUT_RDWR)  # which ends the other thread


def _end_if_gone(address: str) -> None:
  if Watch.running is None:
    return
  try:
    _connect(address).close()
  except OSError:
    _end('process 0 does not answer')


def _connect(address: str) -> socket.socket:
  host, _, port = address.rpartition(':')
  return socket.create_connection((host.strip('[]'), int(port)), timeout=ANSWER_SECONDS)


def _end(reason: str) -> NoReturn:
  report_lost_process(reason)
  os._exit(EXIT_CODE)


def _reason(error: BaseException) -> str:
  """Return the processes that a barrier has waited for in vain if the error names them, else its first words."""
  text = ' '.join(str(error).split())
  missing = re.search(r'timed out task names: *(.{1,80}?)(?= The| \[|$)', text)
  return missing[1] if missing else text[:120]
