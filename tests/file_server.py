"""A local HTTP server that can cut connections, send wrong answers, and lack features."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

import numpy as np

from mrmt3.checkpoints.published import RemoteFile

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server:
  """Behavior of a server; `requests` lists the (path, Range) of each request."""

  def __init__(self):
    self.files = {'/file': CONTENT}
    self.requests = []
    self.cuts = []  # bytes to send of the next answers before the connection is cut; None: all
    self.statuses = []  # codes to answer with before anything else
    self.ranges = True
    self.length = True  # whether Content-Length is sent
    self.etag = '"one"'
    self.redirect = {}  # path -> (path, headers)
    self.url = ''

  def remote(self, size=SIZE, sha256=SHA256, path='/file', **more):
    return RemoteFile('file', self.url + path, size, sha256, **more)


@contextlib.contextmanager
def running():
  """Yield a `Server` that runs during the block."""
  state = Server()

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      path = urllib.parse.urlparse(self.path).path
      asked = self.headers.get('Range')
      state.requests.append((path, asked))
      if state.statuses:
        return self.send_error(state.statuses.pop(0))
      if path in state.redirect:
        to, headers = state.redirect[path]
        self.send_response(302)
        self.send_header('Location', to)
        for name, value in headers.items():
          self.send_header(name, value)
        return self.end_headers()
      if path not in state.files:
        return self.send_error(404)
      content, start = state.files[path], 0
      if callable(content):
        content = content(self.path)
      match = re.fullmatch(r'bytes=(\d+)-', asked or '')
      if match and state.ranges and self.headers.get('If-Range', state.etag) == state.etag:
        start = int(match[1])
        if start >= len(content):
          self.send_response(416)
          self.send_header('Content-Range', f'bytes */{len(content)}')
          self.send_header('Content-Length', '0')
          return self.end_headers()
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
      else:
        self.send_response(200)
      if state.length:
        self.send_header('Content-Length', str(len(content) - start))
      self.send_header('ETag', state.etag)
      self.end_headers()
      cut = state.cuts.pop(0) if state.cuts else None
      self.wfile.write(content[start:] if cut is None else content[start : start + cut])
      self.close_connection = True

    def log_message(self, *_):
      pass

  httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=httpd.serve_forever, daemon=True)
  thread.start()
  state.url = f'http://127.0.0.1:{httpd.server_port}'
  try:
    yield state
  finally:
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def bucket(server, items, page=2):
  """Serve a bucket's listing in pages, and its objects."""

  def listing(path):
    query = urllib.parse.parse_qs(urllib.parse.urlparse(path).query)
    start = int(query.get('pageToken', ['0'])[0])
    chosen = [name for name in items if name.startswith(query['prefix'][0])]
    answer = {'items': [{'name': name, 'size': str(len(items[name]))} for name in chosen[start : start + page]]}
    if start + page < len(chosen):
      answer['nextPageToken'] = str(start + page)
    return json.dumps(answer).encode()

  server.files['/b/o'] = listing
  for name, content in items.items():
    server.files['/b/o/' + urllib.parse.quote(name, safe='')] = content
