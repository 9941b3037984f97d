"""Downloads from servers that never stop, hardly send, or answer nonsense: bounded in bytes and time, one line each."""

import contextlib
import itertools
import json
import socket
import threading
import time

import file_server
import pytest
from file_server import CONTENT, SIZE, bucket

from mrmt3.checkpoints import download, paced_http
from mrmt3.checkpoints.published import RemoteFile
from mrmt3.errors import UserError

OK = b'HTTP/1.1 200 OK\r\n'


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
  monkeypatch.setattr(download, '_PAUSE', 0.01)
  monkeypatch.setattr(download, 'TIMEOUT', 10.0)


@pytest.fixture
def impatient(monkeypatch):
  monkeypatch.setattr(paced_http, 'GRACE', 0.3)
  monkeypatch.setattr(paced_http, 'MIN_RATE', 1000)


@pytest.fixture
def server():
  with file_server.running() as state:
    yield state


@contextlib.contextmanager
def raw_server(answer):
  """Yield the address of a server that sends the blocks of `answer()`, and the list of how many bytes it has sent."""
  sent, done = [], threading.Event()

  def serve(connection):
    with connection, contextlib.suppress(OSError):
      request = b''
      while b'\r\n\r\n' not in request:
        request += connection.recv(1 << 16) or b'\r\n\r\n'
      for block in answer():
        if done.is_set():
          return
        connection.sendall(block)
        sent.append(len(block))

  def accept(listener):
    with contextlib.suppress(OSError):
      while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

  with socket.create_server(('127.0.0.1', 0)) as listener:
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    try:
      yield f'http://127.0.0.1:{listener.getsockname()[1]}', sent
    finally:
      done.set()


def endless(head, block=bytes(1 << 16), pause=0.0):
  def answer():
    yield head
    for _ in itertools.count():
      time.sleep(pause)
      yield block

  return answer


def assert_fails(action, message, seconds=60.0):
  start = time.monotonic()
  with pytest.raises(UserError, match=message) as error:
    action()
  assert str(error.value).isprintable() and len(str(error.value)) < 600
  assert time.monotonic() - start < seconds


def test_a_body_without_end_stops_at_the_known_size(tmp_path):
  with raw_server(endless(OK + b'\r\n')) as (url, sent):
    remote = RemoteFile('x', f'{url}/x', 1_000_000)
    assert_fails(lambda: download.download(remote, tmp_path / 'x'), 'sends more than 1,000,000 bytes')
    assert sum(sent) < 30_000_000
  assert not list(tmp_path.glob('x*')) or [p.name for p in tmp_path.iterdir()] == ['x.part.etag']


def test_a_body_without_end_of_an_unknown_size(tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_MAX_BYTES', 2_000_000)
  for head in (OK + b'\r\n', OK + b'Content-Length: 99999999999\r\n\r\n'):
    with raw_server(endless(head)) as (url, sent):
      remote = RemoteFile('x', f'{url}/x')
      assert_fails(lambda remote=remote: download.download(remote, tmp_path / 'x'), r'more than 2,000,000')
      assert sum(sent) < 30_000_000


@pytest.mark.parametrize('head', [OK + b'Content-Length: 3000000\r\n\r\n', OK + b'\r\n', OK])
def test_a_body_or_header_of_single_bytes_ends(impatient, tmp_path, head):
  with raw_server(endless(head, b'X-A: 1\r\n'[:1], 0.02)) as (url, _):
    remote = RemoteFile('x', f'{url}/x', 3_000_000)
    assert_fails(lambda: download.download(remote, tmp_path / 'x'), 'less than 1000 bytes per second')
    assert_fails(lambda: download.list_bucket(f'{url}/b/o', 'c/'), 'less than 1000 bytes per second')


def test_the_time_of_all_attempts_is_limited(tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_FILE_SECONDS', 0.5)
  monkeypatch.setattr(download, '_LISTING_SECONDS', 0.5)
  with raw_server(endless(OK + b'\r\n', bytes(1000), 0.01)) as (url, _):
    remote = RemoteFile('x', f'{url}/x', 1 << 33)
    assert_fails(lambda: download.download(remote, tmp_path / 'x'), 'takes too long')
    assert_fails(lambda: download.list_bucket(f'{url}/b/o', 'c/'), 'takes too long')


def test_a_few_bytes_per_connection_are_no_progress(server, tmp_path):
  server.cuts = [1] * 100
  assert_fails(lambda: download.download(server.remote(), tmp_path / 'x'), 'the connection was lost')
  assert len(server.requests) == download.TRIES


@pytest.mark.parametrize(
  'head',
  [
    OK + b'Content-Length: \xb2\r\n\r\n',
    OK + b'Content-Length: -5\r\n\r\n',
    OK + b'Content-Length: ' + b'9' * 5000 + b'\r\n\r\n',
    OK + b'Content-Length: 5\r\nContent-Range: x\r\n\r\n',
    OK + b'ETag: \xff\xfe\x1b[2J\r\n\r\n',
    OK + b'Transfer-Encoding: chunked\r\n\r\nzzz\r\n',
    OK + b'Transfer-Encoding: chunked\r\n\r\n-5\r\n',
    OK + b'Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n',
    OK + b'X: 1\r\n' * 100_000 + b'\r\n',
    OK + b'X: ' + b'1' * 1_000_000,
    b'HTTP/9.9 200 OK\r\n\r\n',
    b'HTTP/1.1 x OK\r\n\r\n',
    b'HTTP/1.1 206 Partial\r\n\r\n',
    b'HTTP/1.1 416 Range\r\nContent-Range: bytes */-1\r\n\r\n',
    b'HTTP/1.1 404 Not\x1b[2J Found\r\n\r\n',
    b'HTTP/1.1 500 Oops\r\n\r\n',
    b'HTTP/1.1 302 Found\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:99999/\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:x/\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://' + b'a' * 300 + b'.b/\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: http://a..b/\xff\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1:1/x\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: data:,x\r\n\r\n',
    b'HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n',
    b'junk',
    b'',
  ],
)
def test_nonsense_is_one_line(tmp_path, head):
  with raw_server(lambda: [head]) as (url, _):
    remote = RemoteFile('x', f'{url}/x', 3)
    assert_fails(lambda: download.download(remote, tmp_path / 'x'), url)
    assert_fails(lambda: download.list_bucket(f'{url}/b/o', 'c/'), url)
  assert not (tmp_path / 'x').exists()


def test_the_body_of_a_redirect_is_not_read(server, tmp_path):
  head = b'HTTP/1.1 302 Found\r\nLocation: ' + f'{server.url}/file'.encode() + b'\r\n\r\n'
  with raw_server(endless(head)) as (url, _):
    download.download(RemoteFile('x', f'{url}/x', SIZE), tmp_path / 'x')
  assert (tmp_path / 'x').read_bytes() == CONTENT


@pytest.mark.parametrize('etag', [b'\xff\xfe', b'a\r\nX-Evil: 1', b'"\x1b"', 'ü'.encode()])
def test_a_damaged_tag_file_is_ignored(server, tmp_path, etag):
  (tmp_path / 'x.part').write_bytes(CONTENT[:1000])
  (tmp_path / 'x.part.etag').write_bytes(etag)
  download.download(server.remote(), tmp_path / 'x')
  assert (tmp_path / 'x').read_bytes() == CONTENT


def test_folders_in_the_way_are_one_line(server, tmp_path):
  (tmp_path / 'x' / 'y').mkdir(parents=True)
  assert_fails(lambda: download.download(server.remote(), tmp_path / 'x'), 'cannot write')
  (tmp_path / 'z.part').mkdir()
  assert_fails(lambda: download.download(server.remote(), tmp_path / 'z'), 'cannot write')
  (tmp_path / 'w.part.etag').mkdir()
  assert_fails(lambda: download.download(server.remote(), tmp_path / 'w'), 'cannot write')
  assert_fails(lambda: download.check_file(server.remote(None), tmp_path / 'x'), 'cannot read')


def page(*names, token='', **more):
  items = [{'name': name, 'size': '1', **more} for name in names]
  return json.dumps({'items': items, **({'nextPageToken': token} if token else {})}).encode()


def test_listings_without_end_stop(server, monkeypatch):
  monkeypatch.setattr(download, '_MAX_PAGES', 20)
  numbers = itertools.count()
  server.files['/b/o'] = lambda _: page(token=f't{next(numbers)}')
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'more under c/ than a checkpoint has')
  assert len(server.requests) == 20
  server.files['/b/o'] = lambda _: page(f'c/{next(numbers)}', token='same')
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'pages have no end')
  assert len(server.requests) == 22
  monkeypatch.setattr(download, '_MAX_OBJECTS', 5)
  server.files['/b/o'] = page(*(f'c/{i}' for i in range(6)))
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'more under c/ than a checkpoint has')
  server.files['/b/o'] = page('c/x', size='99999999999999999999')
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'more under c/ than a checkpoint has')


def test_a_page_without_end_stops(monkeypatch):
  monkeypatch.setattr(download, '_PAGE_BYTES', 1 << 20)
  for head in (OK + b'\r\n', OK + b'Content-Length: 99999999999\r\n\r\n'):
    with raw_server(endless(head, b' ' * (1 << 16))) as (url, sent):
      assert_fails(lambda url=url: download.list_bucket(f'{url}/b/o', 'c/'), 'longer than 1,048,576 bytes')
      assert sum(sent) < 20 << 20


@pytest.mark.parametrize(
  'answer',
  [
    b'[' * 100_000,
    b'{"items": [], "items": []}',
    b'{"items": NaN}',
    b'{"items": ["x"]}',
    b'{"items": {"name": "c/x"}}',
    b'{"items": [], "nextPageToken": {"a": 1}}',
    b'\xff\xfe',
    page('c/x', size='-5'),
    page('c/x', size='x'),
    page('c/x', size='9' * 5000),
    page('c/x', size=None),
    page('c/x', size=1.5),
    page('c/x', md5Hash='!'),
    page('c/x', md5Hash=5),
    page('d/x'),
    page('c/'.ljust(500, 'x')),
    page('c/' + 'x/' * 500 + 'y'),
    page('c/x\x00y'),
    page('c/x\x1b[2J'),
    page('c/x\ny'),
    page('c/./x'),
    page('c/x//y'),
    page('c/..'),
    page('c/\ud800'),
    json.dumps({'items': [{'name': 5, 'size': '1'}]}).encode(),
  ],
)
def test_invalid_listings_are_one_line(server, answer):
  server.files['/b/o'] = answer
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'invalid response')


@pytest.mark.parametrize(
  'names',
  [
    ('x', 'x'),
    ('x', 'X'),
    ('x\u00e9', 'xe\u0301'),
    ('x', 'x/y'),
    ('x/y', 'x'),
    ('X', 'x/y'),
    ('x', 'x.part'),
    ('x', 'x.part.etag'),
    ('x', 'x.part/y'),
    ('.downloading', 'x'),
    ('.downloading/x',),
  ],
)
def test_colliding_names_are_refused(server, names):
  server.files['/b/o'] = page(*(f'c/{name}' for name in names))
  assert_fails(lambda: download.list_bucket(f'{server.url}/b/o', 'c/'), 'an object as well|file name of another')


def test_names_that_do_not_collide(server):
  names = ['x', 'x1/y', 'y.part', 'x2/y', '.zarray', 'target.a/.zarray', 'target.a/0.0']
  bucket(server, {f'c/{name}': b'1' for name in names})
  assert [o.name for o in download.list_bucket(f'{server.url}/b/o', 'c/')] == names
