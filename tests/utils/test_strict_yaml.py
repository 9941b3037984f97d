import time

import pytest

from mrmt3.utils import strict_yaml


def test_reads_yaml():
  text = b"a: 1\nb: [x, 'y', null, true, -2.5]\nc:\n  d: {e: .nan}\n1: 2001-01-01\n? k\n: [{a: 1}, {a: 2}]\n"
  value = strict_yaml.loads(text)
  assert value['a'] == 1 and value['b'] == ['x', 'y', None, True, -2.5] and value['k'] == [{'a': 1}, {'a': 2}]
  assert strict_yaml.loads(b'') is None


LAUGHS = b'a0: &a0 [x, x]\n' + b''.join(b'a%d: &a%d [*a%d, *a%d]\n' % (i, i, i - 1, i - 1) for i in range(1, 60))
MERGES = b'a0: &a0 {x: 1}\n' + b''.join(b'a%d: &a%d {<<: [*a%d, *a%d]}\n' % (i, i, i - 1, i - 1) for i in range(1, 60))


@pytest.mark.parametrize(
  'data, message',
  [
    (LAUGHS, r'aliases \(line 2\)'),
    (MERGES, r'aliases \(line 2\)'),
    (b'&a [*a]', 'aliases'),
    (b'[' * 100_000, 'deeply|nesting depth'),
    (b'{a: ' * 100_000, 'deeply'),
    (b''.join(b' ' * i + b'a:\n' for i in range(2000)), 'deeply'),
    (b'a: 1\nb: 2\na: 3\n', "'a' is there twice .line 3"),
    (b'x: {S00: {}, S01: [1], S00: {}}', "'S00' is there twice"),
    (b'a: !!python/object/apply:os.system [x]', 'could not determine a constructor'),
    (b'a: !!int x', 'invalid literal'),
    (b'a: 2001-99-99', 'month must be'),
    (b'a: 1' + b':1' * 1_000_000, 'longer than 10,000'),
    (b'a: 1' + b':1' * 4000, '64 bits'),
    (b'a: 0x' + b'f' * 9000, '64 bits'),
    (b'a: ' + b'9' * 9000, '4300 digits'),
    (b'? [a]\n: b', 'unhashable'),
    (b'a: 1\n---\nb: 1\n', 'expected a single document'),
    (b'\xff\xff\xff', 'invalid'),
    (b'a: [', 'expected'),
    (b'x' * (1 << 23), 'longer than'),
    (b'a: \x00', 'control characters|special characters'),
  ],
)
def test_errors_are_short_and_quick(data, message):
  start = time.process_time()
  with pytest.raises(ValueError, match=message) as error:
    strict_yaml.loads(data)
  assert len(str(error.value)) < 300 and '\n' not in str(error.value)
  assert time.process_time() - start < 3
