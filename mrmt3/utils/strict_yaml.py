"""YAML from files that may be broken or hostile: plain tables and lists, bounded, and nothing is dropped or guessed.

PyYAML's safe loader runs no code, but it takes the last of two equal keys, nests until the interpreter's stack ends,
and expands merged aliases without limit. Here the events are checked before anything is built of them.
"""

from mrmt3.errors import first_line

MAX_BYTES = 1 << 22
_MAX_DEPTH = 32
_MAX_SCALAR_LENGTH = 10_000
_MAX_INTEGER = 1 << 63


def loads(data: bytes):
  """Return the value of a YAML document.

  Raises:
    ValueError: it is not YAML, is longer than `MAX_BYTES`, has aliases, a key twice, a number beyond 64 bits, or values
      that are too deep or long.
  """
  import yaml

  if len(data) > MAX_BYTES:
    raise ValueError(f'it is longer than {MAX_BYTES:,} bytes')
  loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
  try:
    _check_events(yaml.parse(data, Loader=loader))
    value = yaml.load(data, Loader=loader)
  except yaml.YAMLError as error:
    raise ValueError(' '.join(str(error).split())[:200]) from None
  except (ValueError, TypeError, ArithmeticError) as error:  # of dates and numbers
    raise ValueError(first_line(error)) from None
  _check_numbers(value)
  return value


def _check_events(events) -> None:
  """Raise ValueError for aliases, equal keys, and values that are too deep or long."""
  import yaml

  open_nodes = []  # of each container: the keys so far (None: a list), and whether a key comes next
  for event in events:
    if isinstance(event, yaml.AliasEvent):
      raise ValueError(f'it has aliases (line {event.start_mark.line + 1})')
    if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
      open_nodes.pop()
      continue
    is_scalar = isinstance(event, yaml.ScalarEvent)
    if not is_scalar and not isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
      continue
    if is_scalar and len(event.value) > _MAX_SCALAR_LENGTH:
      raise ValueError(f'a value is longer than {_MAX_SCALAR_LENGTH:,} characters (line {event.start_mark.line + 1})')
    if open_nodes and open_nodes[-1][0] is not None:
      keys, is_key = open_nodes[-1]
      open_nodes[-1] = keys, not is_key
      if is_key and is_scalar:
        if event.value in keys:
          raise ValueError(f'the key {event.value!r:.80} is there twice (line {event.start_mark.line + 1})')
        keys.add(event.value)
    if not is_scalar:
      open_nodes.append((set(), True) if isinstance(event, yaml.MappingStartEvent) else (None, False))
      if len(open_nodes) > _MAX_DEPTH:
        raise ValueError(f'its values nest too deeply (line {event.start_mark.line + 1})')


def _check_numbers(value) -> None:
  pending = [value]
  while pending:
    node = pending.pop()
    if isinstance(node, dict):
      pending += node.keys()
      pending += node.values()
    elif isinstance(node, (list, tuple, set)):
      pending += node
    elif isinstance(node, int) and abs(node) >= _MAX_INTEGER:
      raise ValueError('a number has more than 64 bits')
