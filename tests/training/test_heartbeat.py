"""The relay to JAX's coordination service, with sockets in the place of JAX."""

import os
import socket
import subprocess
import sys

import pytest

from mrmt3.training import heartbeat

CLIENT = """
import socket, sys
from mrmt3.training import heartbeat
heartbeat.Watch.running = object()
host, port = heartbeat.relay(sys.argv[1]).split(':')
for _ in range(2):
  client = socket.create_connection((host, int(port)))
  client.sendall(b'hello')
  while client.recv(100):
    pass
  print('closed', flush=True)
client.recv(100)
"""


@pytest.fixture
def service():
  with socket.create_server(('127.0.0.1', 0)) as server:
    server.settimeout(60)
    yield server, f'127.0.0.1:{server.getsockname()[1]}'


def test_everything_is_passed_on_both_ways(service, monkeypatch):
  monkeypatch.setenv(heartbeat.NO_PROXY, 'elsewhere')
  server, address = service
  host, port = heartbeat.relay(address).split(':')
  assert os.environ[heartbeat.NO_PROXY] == 'elsewhere,127.0.0.1'
  sent = bytes(range(256)) * 4000
  with socket.create_connection((host, int(port)), timeout=60) as client:
    there, _ = server.accept()
    with there:
      client.sendall(sent)
      assert there.makefile('rb').read(len(sent)) == sent
      there.sendall(sent[::-1])
      assert client.makefile('rb').read(len(sent)) == sent[::-1]
    assert client.recv(1) == b''  # closed there, so closed here


def test_a_service_that_is_gone_ends_the_process_before_its_client_sees_it(service):
  server, address = service
  process = subprocess.Popen(
    [sys.executable, '-c', CLIENT, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  first, _ = server.accept()
  assert first.recv(5) == b'hello'
  first.close()
  # It still listens: only a connection was closed, and there is a new one, after one to look.
  assert process.stdout.readline() == 'closed\n'
  while True:
    second, _ = server.accept()
    if second.recv(5) == b'hello':
      break
  server.close()
  second.close()
  said = process.communicate(timeout=60)
  assert process.returncode == heartbeat.EXIT_CODE
  assert said[0] == '' and 'another process of this run is lost (process 0 does not answer)' in said[1]
  assert len(said[1].splitlines()) == 1
