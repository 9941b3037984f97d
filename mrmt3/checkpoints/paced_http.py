"""An opener of `urllib` for servers that may be slow, endless or hostile.

A socket's timeout ends a silent connection, and not one that sends a byte every few seconds. Here each response has a
deadline as well, headers included, and must arrive at `MIN_RATE`. The bodies of redirects are not read.
"""

import http.client
import io
import time
import urllib.request

from mrmt3.errors import UserError

MIN_RATE = 512  # bytes per second, on average after `GRACE`
GRACE = 60.0  # s


class TooSlow(TimeoutError):
  """The server sends, but too little."""


class Redirects(urllib.request.HTTPRedirectHandler):
  """Follows redirects, but not from HTTPS to HTTP; keeps the sha256 in Hugging Face's X-Linked-ETag header."""

  def __init__(self):
    self.sha256 = None

  def redirect_request(self, request, fp, code, msg, headers, newurl):
    """Return the next request; UserError if it is not a web address, or not encrypted any more."""
    if request.type == 'https' and not newurl.startswith('https:'):
      raise UserError(f'{request.full_url} redirects to an unencrypted address, {newurl!a:.200}; it is not followed')
    if not newurl.startswith(('https:', 'http:')):
      raise UserError(
        f'{request.full_url} redirects to {newurl!a:.200}, which is not a web address; it is not followed'
      )
    linked = (headers.get('X-Linked-ETag') or '').strip('"')
    if len(linked) == 64:
      self.sha256 = linked.lower()
    return super().redirect_request(request, fp, code, msg, headers, newurl)

  def http_error_302(self, req, fp, code, msg, headers):
    """Follow a redirect without its body, which can be endless."""
    fp.close()
    return super().http_error_302(req, fp, code, msg, headers)

  http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def build_opener(redirects: Redirects, deadline: float) -> urllib.request.OpenerDirector:
  """Return an opener whose responses end with TooSlow after `deadline`, s of `time.monotonic`, or below `MIN_RATE`."""

  class Response(http.client.HTTPResponse):
    def __init__(self, *args, **kwargs):
      super().__init__(*args, **kwargs)
      self.fp = io.BufferedReader(_PacedStream(self.fp.detach(), deadline))

  class Http(urllib.request.HTTPHandler):
    def http_open(self, request):
      return self.do_open(_connector(http.client.HTTPConnection, Response), request)

  class Https(urllib.request.HTTPSHandler):
    def https_open(self, request):
      return self.do_open(_connector(http.client.HTTPSConnection, Response), request, context=self._context)

  return urllib.request.build_opener(Http, Https, redirects)


def _connector(connection_class, response_class):
  def connect(host, **options):
    connection = connection_class(host, **options)
    connection.response_class = response_class
    return connection

  return connect


class _PacedStream(io.RawIOBase):
  """What a socket sends, as long as it is in time."""

  def __init__(self, raw: io.RawIOBase, deadline: float):
    self._raw, self._deadline = raw, deadline
    self._start, self._received = time.monotonic(), 0

  def readable(self):
    return True

  def readinto(self, buffer):
    now = time.monotonic()
    if now > self._deadline:
      raise TooSlow('it takes too long')
    if self._received < MIN_RATE * (now - self._start - GRACE):
      raise TooSlow(f'the server sends less than {MIN_RATE} bytes per second')
    count = self._raw.readinto(buffer)
    self._received += count or 0
    return count

  def close(self):
    self._raw.close()
    super().close()
