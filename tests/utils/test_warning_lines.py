"""Tests of how warnings about odd files appear on the terminal."""

import warnings

import pytest

from mrmt3.errors import DataWarning
from mrmt3.utils import warning_lines


def warn(text='song.mid: it is odd', category=DataWarning):
  warnings.warn(category(text), stacklevel=1)


@pytest.fixture
def others():
  """Show warnings as lines, and return a list of those of other categories."""
  with warnings.catch_warnings(record=True) as others:
    warning_lines.show_as_lines()
    warning_lines.show_as_lines()  # a second call changes nothing
    warnings.simplefilter('always', UserWarning)
    warnings.simplefilter('default', DataWarning)
    yield others


def test_a_warning_is_one_line_and_is_shown_once(others, capsys):
  for _ in range(3):
    warn('song.mid: it is strange')
  warn('other.mid: it is strange')
  lines = [f'mrmt3: warning: {name}.mid: it is strange' for name in ('song', 'other')]
  assert capsys.readouterr().err.splitlines() == lines and not others


def test_collected_warnings_are_not_shown_and_others_stay_as_they_are(others, capsys):
  warn('take care', UserWarning)
  with warning_lines.collected_warnings() as collected:
    warn()
    warn()
    warn('take more care', UserWarning)
  assert [str(one) for one in collected] == ['song.mid: it is odd']
  assert [str(one.message) for one in others] == ['take care', 'take more care']
  assert not capsys.readouterr().err
  assert warning_lines.with_warnings(warn, 'a') == (None, ['a'])
