"""Journals: finished items are found again, wherever a run was killed, and only for their own settings."""

import contextlib
import json
import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.errors import UserError
from mrmt3.utils import journal
from mrmt3.utils.journal import FolderJournal, Journal

SETTINGS = {'model': 'a', 'rates': (16000, 44100)}
RECORDS = [
  {'name': 'x', 'of': [1], 'value': 'é\n'},
  {'name': 'y', 'of': [2], 'value': None},
  {'name': 'z', 'of': [3], 'value': 2.5},
]


def open_journal(path, header=SETTINGS, mismatch=None):
  return Journal(path, settings=header, item=lambda r: r['name'], fingerprint=lambda r: r['of'], mismatch=mismatch)


def fill(path, records=RECORDS, header=SETTINGS):
  with open_journal(path, header) as found:
    for record in records:
      found.add(record)


@pytest.mark.parametrize('header', [SETTINGS, None])
def test_round_trip(tmp_path, header):
  path = tmp_path / 'new' / 'items.jsonl'
  fill(path, RECORDS[:2], header)
  fill(path, RECORDS[2:], header)
  found = open_journal(path, header)
  assert list(found.records) == ['x', 'y', 'z'] and [found.find(r['name'], r['of']) for r in RECORDS] == RECORDS
  assert len(path.read_bytes().splitlines()) == 3 + (header is not None)
  assert found.find('nobody', [1]) is None


def test_a_line_is_in_the_file_when_add_returns(tmp_path):
  found = open_journal(tmp_path / 'items.jsonl')
  assert not found.path.exists()
  found.add(RECORDS[0])
  assert list(open_journal(found.path).records) == ['x']


def test_items_of_another_fingerprint_are_not_found(tmp_path):
  fill(tmp_path / 'items.jsonl')
  found = open_journal(tmp_path / 'items.jsonl')
  assert found.find('x', [2]) is None and found.find('x') is None
  found.add({**RECORDS[0], 'of': [9]})
  again = open_journal(found.path)
  assert again.find('x', [9]) and again.find('x', [1]) is None and len(again.records) == 3


def test_other_settings_start_anew_or_are_an_error(tmp_path):
  path = tmp_path / 'items.jsonl'
  fill(path)
  before = path.read_bytes()
  with pytest.raises(UserError, match=r'^other settings$'):
    open_journal(path, {'model': 'b'}, mismatch='other settings')
  found = open_journal(path, {'model': 'b'})
  assert not found.records and path.read_bytes() == before  # reading changes nothing
  found.add(RECORDS[1])
  assert path.read_bytes().splitlines()[1:] == before.splitlines()[2:3]
  assert not open_journal(path).records and list(open_journal(path, {'model': 'b'}).records) == ['y']


@given(data=st.data(), header=st.sampled_from([SETTINGS, None]), numbered=st.booleans())
@settings(deadline=None, max_examples=150)
def test_cut_off_at_any_byte_it_keeps_whole_lines_and_ends_as_if_never_stopped(data, header, numbered):
  with tempfile.TemporaryDirectory() as folder:
    whole, cut = Path(folder, 'whole'), Path(folder, 'cut')
    records = data.draw(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5)), max_size=5))
    records = [{**record, 'name': number, 'of': 0} for number, record in enumerate(records)]

    def opened(path):
      return Journal(path, settings=header) if numbered else open_journal(path, header)

    with opened(whole) as found:
      for record in records:
        found.add(record)
    content = whole.read_bytes() if whole.exists() else b''
    size = data.draw(st.integers(0, len(content)))
    torn = data.draw(st.sampled_from([b'', b'{', b'\0\0', b'\xff']))
    cut.write_bytes(content[:size] + torn)
    finished = max(content[:size].count(b'\n') - (header is not None), 0)
    with opened(cut) as found:
      assert list(found.records.values()) == records[:finished]
      for record in records[finished:]:
        found.add(record)
    if records[finished:] or not torn:
      assert cut.read_bytes()[: len(content)] == content
    assert list(opened(cut).records.values()) == records


def test_a_broken_line_is_one_missing_item_or_the_end_of_a_numbered_journal(tmp_path):
  path = tmp_path / 'items.jsonl'
  lines = [json.dumps(record) for record in RECORDS]
  path.write_text('\n'.join([lines[0], '{"na', '7', '{"of": 1}', '{"name": ["unhashable"]}', *lines[1:]]) + '\n')
  found = open_journal(path, None)
  assert list(found.records) == ['x', 'y', 'z']
  found.retain('xyz')
  assert path.read_text().splitlines() == lines
  path.write_text('\n'.join([lines[0], '{"na', lines[1]]) + '\n')
  found = Journal(path)
  assert list(found.records.items()) == [(0, RECORDS[0])]
  found.add(5)
  assert path.read_text() == f'{lines[0]}\n5\n' and Journal(path).records == {0: RECORDS[0], 1: 5}


def test_retain(tmp_path):
  path = tmp_path / 'items.jsonl'
  fill(path, [*RECORDS, {**RECORDS[0], 'of': [4]}])
  found = open_journal(path)
  found.retain({'x', 'y'})
  assert [json.loads(line) for line in path.read_text().splitlines()[1:]] == [RECORDS[1], {**RECORDS[0], 'of': [4]}]
  inode = path.stat().st_ino
  found.retain({'x', 'y'})
  assert path.stat().st_ino == inode  # nothing to do
  found.add(RECORDS[2])
  assert list(open_journal(path).records) == ['y', 'x', 'z']
  found.remove()
  assert not path.exists() and not found.records
  found.retain(())
  assert json.loads(path.read_text()) == json.loads(json.dumps(SETTINGS))


def test_large_lines_need_not_be_held_in_memory(tmp_path):
  path = tmp_path / 'items.jsonl'
  fill(path, [*RECORDS, RECORDS[1]])
  whole = path.read_bytes().splitlines()
  found = Journal(
    path, settings=SETTINGS, item=lambda r: r['name'], fingerprint=lambda r: r['of'], keep=lambda r: len(r)
  )
  assert found.records == {'x': 3, 'z': 3, 'y': 3} and found.find('y', [2]) == 3 and found.find('y', [1]) is None
  found.retain('yz')
  found.add({**RECORDS[0], 'more': 1})
  assert path.read_bytes().splitlines()[:3] == [whole[0], whole[3], whole[2]] and found.records['x'] == 4
  found.retain('x')
  assert path.read_bytes().splitlines()[1:] == [json.dumps({**RECORDS[0], 'more': 1}).encode()]


@contextlib.contextmanager
def largest_file(size):
  """A block in which no file can grow beyond a size: a write stops in the middle, as on a disk that is full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_error_and_the_file_stays_readable(tmp_path):
  path = tmp_path / 'items.jsonl'
  fill(path, RECORDS[:1])
  before = path.read_bytes()
  found = open_journal(path)
  for room in (0, 5):
    with (
      largest_file(len(before) + room),
      pytest.raises(UserError, match=f'cannot write {path}: File too large') as error,
    ):
      found.add(RECORDS[1])
    assert '\n' not in str(error.value) and path.read_bytes() == before and list(found.records) == ['x']
  found.add(RECORDS[1])  # there is room again
  assert list(open_journal(path).records) == ['x', 'y']


def test_a_full_device_is_one_error(tmp_path):
  path = tmp_path / 'items.jsonl'
  path.symlink_to('/dev/full')
  with pytest.raises(UserError, match=f'cannot write {path}: No space left on device'):
    fill(path)


def test_what_cannot_be_read_or_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    fill(tmp_path / 'file' / 'items.jsonl')
  (tmp_path / 'folder').mkdir()
  with pytest.raises(UserError, match=r'cannot write .*folder'):
    fill(tmp_path / 'folder')


def test_files_and_folders_as_items(tmp_path):
  items = FolderJournal(tmp_path / 'out', lambda number: f'part{number:02}.txt')
  assert items.todo(range(3)) == [0, 1, 2] and 0 not in items
  with items.writing(1) as temporary:
    temporary.write_text('x')
    assert 1 not in items
  with contextlib.suppress(KeyboardInterrupt), items.writing(2) as temporary:
    temporary.write_text('half')
    raise KeyboardInterrupt
  assert items.todo(range(3)) == [0, 2] and [path.name for path in items.folder.iterdir()] == ['part01.txt']


def test_settings_of_a_folder(tmp_path):
  items = FolderJournal(tmp_path, str)

  def claim(known, only=None):
    items.claim('by.json', known, broken='remove it', mismatch='others ({changed})', only=only)

  claim({'a': 1, 'b': (1, 2), 'c': 0})
  claim({'a': 1, 'b': (1, 2), 'c': 0})
  with pytest.raises(UserError, match=r'^others \(a, c, d\)$'):
    claim({'a': 2, 'b': [1, 2], 'd': None})
  claim({'a': 2, 'b': [1, 2]}, only=['b'])
  assert json.loads((tmp_path / 'by.json').read_text())['a'] == 1  # what was first stays
  for content in (b'{', b'[1]', b'\xff'):
    (tmp_path / 'by.json').write_bytes(content)
    with pytest.raises(UserError, match=r'by\.json is broken; remove it$'):
      claim({})
  assert journal.read_settings(tmp_path / 'no.json', '') is None
