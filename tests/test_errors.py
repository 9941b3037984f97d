"""One-line messages of other programs' exceptions."""

import pytest

from mrmt3.errors import first_line


@pytest.mark.parametrize(
  'error, line',
  [
    (ValueError('\n broken\nat line 3'), 'broken'),
    (ValueError(), 'ValueError'),
    (OSError(' \n'), 'OSError'),
    ('the connection was cut', 'the connection was cut'),
    (ValueError('x' * 300), 'x' * 200),
  ],
)
def test_first_line(error, line):
  assert first_line(error) == line
