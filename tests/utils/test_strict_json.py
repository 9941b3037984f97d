import time

import pytest

from mrmt3.utils import strict_json


def test_reads_json():
  text = '{"a": [1, -2.5, "x", null, true], "b": {"c": 1e3}}'
  for given in (text, text.encode(), b'\xef\xbb\xbf' + text.encode()):
    assert strict_json.loads(given) == {'a': [1, -2.5, 'x', None, True], 'b': {'c': 1000.0}}


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'Expecting value'),
    ('{"a": 1, "a": 2}', 'twice'),
    ('[{"x": {"b": 1, "b": 1}}]', 'twice'),
    ('[NaN]', 'NaN'),
    ('[-Infinity]', 'Infinity'),
    ('[1e999]', 'too large'),
    ('[' + '9' * 5000 + ']', '4300 digits'),
    ('[' * 70 + ']' * 70, 'deeply'),
    ('[' * 100_000 + ']' * 100_000, 'deeply'),
    ('{"a":' * 100_000, 'deeply'),
    ('"' + 'x' * (1 << 20) + '"', 'longer than'),
    (b'"\xff"', 'decode'),
  ],
)
def test_errors_are_short_and_quick(text, message):
  start = time.process_time()
  with pytest.raises(ValueError, match=message) as error:
    strict_json.loads(text)
  assert len(str(error.value)) < 300 and time.process_time() - start < 2


def test_many_keys_are_read_in_time():
  text = '{' + ','.join(f'"{i}": 0' for i in range(80_000)) + ', "7": 0}'
  start = time.process_time()
  with pytest.raises(ValueError, match="'7'"):
    strict_json.loads(text)
  assert time.process_time() - start < 2
