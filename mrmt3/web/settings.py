"""Settings of the server, with the limits that keep one client from using up the machine."""

import dataclasses
import ipaddress

from mrmt3.errors import UserError

MEGABYTE = 2**20
LOCAL_NAMES = ('localhost', '127.0.0.1', '::1')


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of `mrmt3 serve`.

  Attributes:
    host: address to listen on.
    port: to listen on; 0 takes a free one.
    token: what clients must know; '' asks for none, which only a loopback address allows.
    allowed_hosts: further names under which clients reach the server, for proxies.
    max_megabytes: size limit of an upload, MiB.
    max_minutes: length limit of a recording.
    max_queue: how many jobs may wait.
    max_jobs: how many jobs are decoded at the same time, in turns.
    keep: how many finished jobs are kept; the oldest are removed.
  """

  host: str = '127.0.0.1'
  port: int = 8765
  token: str = ''
  allowed_hosts: tuple[str, ...] = ()
  max_megabytes: float = 200.0
  max_minutes: float = 30.0
  max_queue: int = 100
  max_jobs: int = 2
  keep: int = 200

  def check(self) -> None:
    """Raise UserError if a setting makes no sense or is not safe."""
    for name, low, high in (
      ('port', 0, 65535),
      ('max_megabytes', 0.001, 100_000),
      ('max_minutes', 0.01, 10_000),
      ('max_queue', 1, 100_000),
      ('max_jobs', 1, 64),
      ('keep', 1, 1_000_000),
    ):
      if not low <= getattr(self, name) <= high:
        option = f'--{name.replace("_", "-")}'
        raise UserError(f'{option} is {getattr(self, name):g}; it must lie in {low:g} .. {high:g}')
    if self.token and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
      raise UserError('--token is too short; give at least 8 printable ASCII characters')
    if not self.token and not self.is_local:
      raise UserError(
        f'--host {self.host}: other machines could use the server; add --token SECRET, or listen on 127.0.0.1'
      )

  @property
  def is_local(self) -> bool:
    """Whether only this machine can connect."""
    try:
      return ipaddress.ip_address(self.host).is_loopback
    except ValueError:
      return self.host == 'localhost'

  @property
  def max_bytes(self) -> int:
    """Size limit of an upload, bytes."""
    return int(self.max_megabytes * MEGABYTE)

  @property
  def max_seconds(self) -> float:
    """Length limit of a recording, s."""
    return self.max_minutes * 60
