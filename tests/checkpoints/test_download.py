"""Downloads from a server that drops connections, sends wrong data, and omits headers."""

import urllib.request

import file_server
import pytest
from file_server import CONTENT, MD5, SHA256, SIZE, bucket

from mrmt3.checkpoints import download, paced_http
from mrmt3.checkpoints.published import RemoteFile
from mrmt3.errors import UserError


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(download, '_PAUSE', 0.01)
  monkeypatch.setattr(download, 'TIMEOUT', 2.0)
  with file_server.running() as state:
    yield state


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_whole_file_with_progress(server, tmp_path):
  calls = []
  assert download.download(server.remote(), tmp_path / 'deep' / 'file', lambda *args: calls.append(args)) == SHA256
  assert (tmp_path / 'deep' / 'file').read_bytes() == CONTENT
  assert names(tmp_path / 'deep') == ['file']
  assert calls[-1] == (SIZE, SIZE) and [c[0] for c in calls] == sorted(c[0] for c in calls)


@pytest.mark.parametrize('known', [True, False])
def test_lost_connections_are_resumed(server, tmp_path, known):
  server.cuts = [1_000_000, 10, 0, 500_000]
  remote = server.remote() if known else server.remote(None, None)
  assert download.download(remote, tmp_path / 'file') == SHA256
  assert (tmp_path / 'file').read_bytes() == CONTENT
  starts = [int(asked[6:-1]) if asked else 0 for _, asked in server.requests]
  assert starts == [0, 1_000_000, 1_000_010, 1_000_010, 1_500_010]
  assert names(tmp_path) == ['file']


def test_server_without_ranges_restarts(server, tmp_path):
  server.ranges, server.cuts = False, [1_000_000]
  assert download.download(server.remote(), tmp_path / 'file') == SHA256
  assert len(server.requests) == 2


def test_a_later_run_resumes_and_a_changed_file_restarts(server, tmp_path):
  server.cuts = [700_000] + [0] * 9
  with pytest.raises(download.Unreachable, match='the connection was lost'):
    download.download(server.remote(None, None), tmp_path / 'file')
  assert (tmp_path / 'file.part').stat().st_size == 700_000
  server.cuts, server.requests = [], []
  other = CONTENT[::-1]
  server.files['/file'], server.etag = other, '"two"'
  download.download(server.remote(None, None), tmp_path / 'file')
  assert (tmp_path / 'file').read_bytes() == other
  assert server.requests == [('/file', 'bytes=700000-')]


def test_nothing_left_to_send(server, tmp_path):
  (tmp_path / 'file.part').write_bytes(CONTENT)
  assert download.download(server.remote(None, None), tmp_path / 'file') == SHA256
  (tmp_path / 'file.part').write_bytes(CONTENT + b'more')
  assert download.download(server.remote(None, None), tmp_path / 'file') == SHA256
  server.requests.clear()
  (tmp_path / 'file.part').write_bytes(CONTENT)
  assert download.download(server.remote(), tmp_path / 'file') == SHA256
  assert server.requests == []


def test_a_wrong_partial_file_of_the_right_size_is_removed(server, tmp_path):
  (tmp_path / 'file.part').write_bytes(bytes(1000))
  with pytest.raises(UserError, match='sha256'):
    download.download(server.remote(), tmp_path / 'file')
  assert names(tmp_path) == []
  assert download.download(server.remote(), tmp_path / 'file') == SHA256


@pytest.mark.parametrize(
  'change, message',
  [
    ({'sha256': '0' * 64}, 'has the sha256 sum'),
    ({'md5': '0' * 32}, 'has the md5 sum'),
    ({'size': SIZE + 1}, '3,000,000 bytes, not 3,000,001'),
    ({'size': SIZE - 1}, '3,000,000 bytes, not 2,999,999|more than 2,999,999 bytes'),
  ],
)
@pytest.mark.parametrize('length', [True, False])
def test_wrong_sums_and_sizes_leave_nothing(server, tmp_path, change, message, length):
  server.length = length
  with pytest.raises(UserError, match=message) as error:
    download.download(server.remote(**change), tmp_path / 'file')
  assert '\n' not in str(error.value) and server.url in str(error.value)
  assert not (tmp_path / 'file').exists() and not (tmp_path / 'file.part').exists()


def test_right_md5(server, tmp_path):
  assert download.download(server.remote(sha256=None, md5=MD5.upper()), tmp_path / 'file') == SHA256
  assert (tmp_path / 'file').read_bytes() == CONTENT


def test_digest_in_the_redirect_is_verified(server, tmp_path):
  server.redirect['/hub'] = ('/file', {'X-Linked-ETag': f'"{SHA256}"'})
  assert download.download(server.remote(None, None, '/hub'), tmp_path / 'file') == SHA256
  server.redirect['/hub'] = ('/file', {'X-Linked-ETag': '"' + '0' * 64 + '"'})
  with pytest.raises(UserError, match='sha256'):
    download.download(server.remote(None, None, '/hub'), tmp_path / 'other')
  assert names(tmp_path) == ['file']


def test_busy_servers_are_retried_and_missing_files_are_not(server, tmp_path):
  server.statuses = [503, 429, 500]
  assert download.download(server.remote(), tmp_path / 'file') == SHA256
  with pytest.raises(UserError, match='404'):
    download.download(server.remote(path='/none'), tmp_path / 'x')
  server.statuses, before = [503] * 9, len(server.requests)
  with pytest.raises(download.Unreachable, match='503'):
    download.download(server.remote(), tmp_path / 'x')
  assert len(server.requests) - before == download.TRIES


def test_no_server(server, tmp_path, monkeypatch):
  remote = RemoteFile('file', 'http://127.0.0.1:1/file')
  with pytest.raises(download.Unreachable, match='refused') as error:
    download.download(remote, tmp_path / 'file')
  assert '\n' not in str(error.value)


def test_a_silent_server_times_out(tmp_path, monkeypatch):
  import socket

  monkeypatch.setattr(download, '_PAUSE', 0.01)
  monkeypatch.setattr(download, 'TIMEOUT', 0.2)
  with socket.create_server(('127.0.0.1', 0)) as silent:
    url = f'http://127.0.0.1:{silent.getsockname()[1]}/file'
    with pytest.raises(download.Unreachable, match='timed out'):
      download.download(RemoteFile('file', url), tmp_path / 'file')


def test_redirects_to_http_are_not_followed():
  redirects = paced_http.Redirects()
  with pytest.raises(UserError, match='unencrypted'):
    redirects.redirect_request(urllib.request.Request('https://a.b/c'), None, 302, 'Found', {}, 'http://a.b/c')


def test_unwritable_targets_raise_user_errors(server, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    download.download(server.remote(), tmp_path / 'file' / 'x')
  (tmp_path / 'full.part').symlink_to('/dev/full')
  with pytest.raises(UserError, match=r'cannot write .*No space left'):
    download.download(server.remote(), tmp_path / 'full')
  monkeypatch.setattr(download.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': 5}))
  with pytest.raises(UserError, match='not enough space'):
    download.download(server.remote(), tmp_path / 'x')


def test_listing_a_bucket(server):
  bucket(server, {'c/mt3/a': b'1', 'c/mt3/b/0.0': b'22', 'c/mt3/b/.zarray': b'', 'c/other': b'', 'c/mt3/dir/': b''})
  objects = download.list_bucket(f'{server.url}/b/o', 'c/mt3/')
  assert [(o.name, o.size) for o in objects] == [('a', 1), ('b/0.0', 2), ('b/.zarray', 0)]
  assert objects[1].url == f'{server.url}/b/o/c%2Fmt3%2Fb%2F0.0?alt=media'
  with pytest.raises(UserError, match='no objects under c/none/'):
    download.list_bucket(f'{server.url}/b/o', 'c/none/')


@pytest.mark.parametrize('name', ['c/../../evil', 'c//etc/passwd', 'c/a/../../b', 'c/a\\b'])
def test_object_names_outside_the_folder_are_rejected(server, name):
  bucket(server, {name: b''})
  with pytest.raises(UserError, match='invalid response'):
    download.list_bucket(f'{server.url}/b/o', 'c/')


@pytest.mark.parametrize('answer', [b'junk', b'[]', b'{"items": [{"name": "c/x"}]}', b'{"items": 5}'])
def test_invalid_listings_raise_user_errors(server, answer):
  server.files['/b/o'] = answer
  with pytest.raises(UserError, match='invalid response'):
    download.list_bucket(f'{server.url}/b/o', 'c/')
  with pytest.raises(UserError, match='404'):
    download.list_bucket(f'{server.url}/none', 'c/')
