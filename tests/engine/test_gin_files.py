"""Gin files that cannot be parsed: found before anything slow is imported, with one line."""

import argparse
import time

import pytest

from mrmt3.engine import gin_utils
from mrmt3.errors import UserError


def check(tmp_path, contents, first='a.gin'):
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
  flags = argparse.Namespace(gin_file=[first], gin_search_paths=[str(tmp_path)])
  start = time.process_time()
  try:
    gin_utils.check_files(flags)
  finally:
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
  ('contents', 'words'),
  [
    ({'a.gin': "include 'a.gin'\n"}, 'a.gin includes itself'),
    ({'a.gin': "include 'b.gin'\n", 'b.gin': 'include "c.gin"\n', 'c.gin': "X = 1\ninclude 'a.gin'\n"}, '3 files'),
    ({f'{i}.gin': f"include '{i + 1}.gin'\n" for i in range(200)} | {'a.gin': "include '0.gin'\n"}, 'more than 100'),
    (
      {f'{i}{side}.gin': f"include '{i + 1}l.gin'\ninclude '{i + 1}r.gin'\n" for i in range(40) for side in 'lr'}
      | {'a.gin': "include '0l.gin'\n"},
      'more than 100 files',
    ),
    ({'a.gin': 'X = 1\n' * 300_000}, 'longer than'),
    ({'a.gin': b'X = 1\nY = "caf\xe9"\n'}, 'line 2: it is not text in UTF-8'),
    ({'a.gin': b'\xff\xfeX\0'}, 'line 1: it is not text'),
    ({'a.gin': b'\xef\xbb\xbfX = 1\n'}, 'byte order mark'),
    ({'a.gin': "include 'b.gin'\n", 'b.gin': b'\xff'}, 'b.gin, line 1'),
  ],
)
def test_files_that_are_refused(tmp_path, contents, words):
  with pytest.raises(UserError) as error:
    check(tmp_path, contents)
  assert words in str(error.value) and '\n' not in str(error.value) and len(str(error.value)) < 500


def test_a_file_may_be_included_twice(tmp_path):
  check(tmp_path, {'a.gin': "include 'b.gin'\ninclude 'c.gin'\n", 'b.gin': "include 'c.gin'\n", 'c.gin': 'X = 1\n'})
  check(tmp_path, {'a.gin': "# include 'a.gin'\ninclude 'missing.gin'\n"})  # gin reports it
