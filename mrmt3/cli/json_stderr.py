"""Standard error as JSON lines, whatever is written to it: by this program, by libraries, or by the interpreter."""

import contextlib
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

INTERRUPTED = {'event': 'error', 'error': 'interrupted'}
_OPTION = '--progress'
_OWN = re.compile(r'mrmt3(?: [a-z]+)?: (error|warning): (.*)', re.DOTALL)
_END = b'\0end\n'  # a child process may hold the pipe open, so its end is no sign


def is_requested(arguments: Sequence[str]) -> bool:
  """Return whether the last --progress of `mrmt3 transcribe` is json; argparse accepts the start of an option."""
  last = ''
  for word, following in zip(arguments, [*arguments[1:], ''], strict=False):
    name, equals, value = word.partition('=')
    if len(name) > len('--p') and _OPTION.startswith(name):
      last = value if equals else following
  return arguments[:1] == ['transcribe'] and last == 'json'


def event(line: str) -> dict | None:
  """Return the event for a line of stderr; None for an empty one. A line that is a JSON object is one already."""
  line = line.rstrip('\r\n')
  if line.startswith('{'):
    with contextlib.suppress(ValueError):
      return json.loads(line)
  if line == 'mrmt3: interrupted':
    return INTERRUPTED
  if own := _OWN.fullmatch(line):
    return {'event': own[1], own[1]: own[2]}
  return {'event': 'log', 'text': line} if line.strip() else None


@contextlib.contextmanager
def redirected() -> Iterator[None]:
  """Turn each line written to file descriptor 2 in the block into a JSON object (`event`).

  An exception of the block is reported in the same way, and the program exits with code 1 (130: interrupted).
  """
  try:
    kept = os.dup(2)
  except OSError:  # there is no standard error
    yield
    return
  reader, writer = os.pipe()
  sys.stderr.flush()
  os.dup2(writer, 2)
  thread = threading.Thread(target=_forward, args=(reader, kept), daemon=True)
  thread.start()
  before = sys.stderr
  sys.stderr = open(2, 'w', buffering=1, errors='backslashreplace', closefd=False)  # noqa: SIM115 - fd 2 stays open
  try:
    yield
  except SystemExit:
    raise
  except BaseException as error:
    # The interpreter would write the traceback after the block.
    traceback.print_exc()
    raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
  finally:
    sys.stderr.flush()
    sys.stderr = before
    os.dup2(kept, 2)
    os.write(writer, b'\n' + _END)
    os.close(writer)
    thread.join()
    os.close(reader)
    os.close(kept)


def _forward(reader, target):
  """Write the events of the lines in a pipe to a file descriptor."""
  rest = b''
  while more := os.read(reader, 1 << 16):
    *lines, rest = (rest + more).split(b'\n')
    for line in lines:
      if line == _END[:-1]:
        return
      found = event(line.decode('utf-8', 'backslashreplace'))
      if found is not None:
        _write(target, json.dumps(found).encode() + b'\n')


def _write(target, data):
  with contextlib.suppress(OSError):  # nobody reads it any more
    while data:
      data = data[os.write(target, data) :]
