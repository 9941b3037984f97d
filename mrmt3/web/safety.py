"""Refuses requests of other sites and of clients without the token, and sets the headers that protect the page."""

import hmac
import json
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mrmt3.web.metrics import Metrics
from mrmt3.web.settings import LOCAL_NAMES, Settings

COOKIE = 'mrmt3_token'
TOKEN_PARAMETER = 'token'
HEADERS = {
  'content-security-policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  ),
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=(self)',
}
_SAFE_METHODS = ('GET', 'HEAD', 'OPTIONS')
_OPEN_PATHS = ('/health',)  # without a token, for probes


class Safety:
  """ASGI middleware around the whole server; see the module's docstring."""

  def __init__(self, app, settings: Settings, metrics: Metrics):
    """Protect an ASGI app."""
    self._app, self._settings, self._metrics = app, settings, metrics

  async def __call__(self, scope, receive, send):
    """Answer a request."""
    if scope['type'] != 'http':
      if scope['type'] == 'websocket':
        await send({'type': 'websocket.close', 'code': 1008})
        return
      await self._app(scope, receive, send)
      return

    async def guarded(message):
      if message['type'] == 'http.response.start':
        self._metrics.count('http_requests_total', status=message['status'])
        own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        message = {**message, 'headers': [*message.get('headers', ()), *own]}
      await send(message)

    headers = {name.decode('latin-1').lower(): value.decode('latin-1') for name, value in scope['headers']}
    for status, reason, text in self._faults(scope, headers):
      self._metrics.count('refused_total', reason=reason)
      await _answer(guarded, status, text)
      return
    if self._settings.token and scope['path'] not in _OPEN_PATHS and not self._knows_token(headers):
      query = dict(parse_qsl(scope['query_string'].decode('latin-1')))
      if scope['method'] == 'GET' and self._is_token(query.pop(TOKEN_PARAMETER, '')):
        # The address with the token that the server prints: the token goes to a cookie, and out of the address.
        target = '/' + scope['path'].lstrip('/') + (f'?{urlencode(query)}' if query else '')
        cookie = f'{COOKIE}={quote(self._settings.token, safe="")}; Path=/; HttpOnly; SameSite=Strict'
        more = [(b'location', target.encode()), (b'set-cookie', cookie.encode('latin-1'))]
        await _answer(guarded, 303, 'the token is in a cookie now', more)
        return
      self._metrics.count('refused_total', reason='token')
      text = 'a token is needed: open the address that the server printed, or send Authorization: Bearer TOKEN'
      await _answer(guarded, 401, text, [(b'www-authenticate', b'Bearer')])
      return
    await self._app(scope, receive, guarded)

  def _faults(self, scope, headers):
    """Yield (status, reason, text) of what is wrong with where a request comes from."""
    host = headers.get('host', '')
    if not self._is_own_name(_host_name(host)):
      yield 421, 'host', f'this server does not answer to the name {host[:100]!r}; add it with --allow-host'
    if scope['method'] in _SAFE_METHODS:
      return
    origin, site = headers.get('origin'), headers.get('sec-fetch-site', 'none')
    is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    if is_foreign or site not in ('same-origin', 'none'):
      yield 403, 'origin', 'requests of other sites are refused'

  def _is_own_name(self, name):
    """Whether a name in a Host header is the server's: a page of a name that was rebound to it sends its own."""
    allowed = {other.lower() for other in self._settings.allowed_hosts}
    if self._settings.is_local:
      return name in allowed or name in LOCAL_NAMES or name == self._settings.host
    return not allowed or name in allowed or name in LOCAL_NAMES  # here the token protects

  def _knows_token(self, headers: Mapping[str, str]) -> bool:
    scheme, _, value = headers.get('authorization', '').partition(' ')
    if scheme.lower() == 'bearer' and self._is_token(value.strip()):
      return True
    try:
      cookie = SimpleCookie(headers.get('cookie', '')).get(COOKIE)
    except CookieError:
      return False
    return cookie is not None and self._is_token(unquote(cookie.value))

  def _is_token(self, text: str) -> bool:
    return hmac.compare_digest(text.encode('utf-8', 'replace'), self._settings.token.encode())


def _host_name(host: str) -> str:
  """Return the name in a Host header without the port, in lower case."""
  if host.startswith('['):
    return host[1:].partition(']')[0].lower()
  return host.partition(':')[0].rstrip('.').lower()


async def _answer(send, status, text, more=()):
  body = json.dumps({'error': text}).encode()
  headers = [(b'content-type', b'application/json'), (b'content-length', str(len(body)).encode()), *more]
  headers.append((b'connection', b'close'))  # the rest of an upload is not read
  await send({'type': 'http.response.start', 'status': status, 'headers': headers})
  await send({'type': 'http.response.body', 'body': body})
