"""JSON from files and servers that may be broken or hostile: bounded, and nothing is dropped or guessed.

Python's parser takes the last of two equal keys, reads NaN, Infinity and 1e999, and lets containers nest until the
interpreter's stack ends. Here each of these is an error.
"""

import json
import math

MAX_BYTES = 1 << 20
_MAX_DEPTH = 64


def loads(text: str | bytes, max_bytes: int = MAX_BYTES):
  """Return the value of a JSON text.

  Args:
    text: str, or UTF-8 bytes.
    max_bytes: the longest text to read.

  Raises:
    ValueError: it is not JSON, is longer, nests too deeply, has a key twice, or a number that is not finite.
  """
  if len(text) > max_bytes:
    raise ValueError(f'it is longer than {max_bytes:,} bytes')
  if isinstance(text, bytes):
    text = text.decode('utf-8-sig')
  try:
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
  except RecursionError:
    raise ValueError('its values nest too deeply') from None
  _check_depth(value)
  return value


def _object(pairs):
  made = dict(pairs)
  if len(made) < len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in made if keys.count(key) > 1)
    raise ValueError(f'the key {twice!r:.80} is there twice')
  return made


def _no_constant(text):
  raise ValueError(f'{text} is not a number of JSON')


def _finite(text):
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f'the number {text:.40} is too large')
  return value


def _check_depth(value) -> None:
  level = [value]
  for _ in range(_MAX_DEPTH):
    level = [
      child
      for node in level
      if isinstance(node, (dict, list))
      for child in (node.values() if isinstance(node, dict) else node)
    ]
    if not level:
      return
  raise ValueError('its values nest too deeply')
