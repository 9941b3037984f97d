"""Tests of the piece cache: it returns what was stored, is built once, and resumes after an interruption."""

import dataclasses
import json
import multiprocessing
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from mrmt3 import vocabularies
from mrmt3.data import piece_cache
from mrmt3.data.piece_source import PieceContent
from mrmt3.errors import DataWarning, UserError
from mrmt3.notes import note_array as note_tables
from mrmt3.notes.note_array import trim_overlapping_notes
from mrmt3.tokens import segment_targets
from mrmt3.utils import parallel

CODEC = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))


@dataclasses.dataclass(frozen=True)
class MadeUp:
  """Pieces of random samples and notes; piece `broken` cannot be read. Logs the pieces that it reads in a file."""

  count: int
  log: str
  broken: int = -1
  fail_at: int = -1
  float_at: int = -1
  version: int = 0

  def splits(self):
    return ('train', 'empty')

  def list_pieces(self, split):
    return [] if split == 'empty' else [f'piece{k}' for k in range(self.count)]

  def fingerprint(self, split):
    return f'{split} {self.version}'

  def reads(self):
    return Path(self.log).read_text().split()

  def content(self, number, stems=False):
    rng = np.random.default_rng(number)
    samples = rng.integers(-20000, 20000, (2, 3000 + 700 * number)).astype(np.float32) / 65536
    if number == self.float_at:
      samples *= np.float32(0.7)
    rows = [(0.05 * k, 0.05 * k + 0.4, 60 + k % 2, 90, 8 * (k % 2), 0) for k in range(3 + number)]
    table = note_tables.as_notes(rows)
    mix = samples.sum(axis=0)
    if stems:
      return PieceContent(mix, table, samples, (table['program'] // 8).astype(np.int32))
    return PieceContent(mix, table)

  def read_piece(self, split, name, sample_rate, stems=False):
    number = int(name[5:])
    with open(self.log, 'a') as file:
      file.write(f'{number}\n')
    if number == self.fail_at:
      raise KeyboardInterrupt
    if number == self.broken:
      raise UserError(f'{name}.wav is broken')
    return self.content(number, stems)


@pytest.fixture
def made_up(tmp_path):
  return MadeUp(4, str(tmp_path / 'reads'))


def prepare(source, tmp_path, **kwargs):
  return piece_cache.prepare(source, 'train', 16000, cache_dir=tmp_path / 'cache', progress=False, **kwargs)


def test_what_comes_out_is_what_went_in(made_up, tmp_path):
  source = dataclasses.replace(made_up, float_at=2)
  store = prepare(source, tmp_path)
  assert store.names == ['piece0', 'piece1', 'piece2', 'piece3'] and not store.has_stems
  for index in range(4):
    content = source.content(index)
    np.testing.assert_array_equal(store.audio(index), content.samples)
    np.testing.assert_array_equal(store.notes(index), content.notes)
    assert store.lengths[index] == len(content.samples)


def test_16_bit_samples_are_stored_as_such(tmp_path, made_up):
  store = prepare(dataclasses.replace(made_up, float_at=1), tmp_path)
  assert [entry.dtype for entry in store.entries] == ['float32'] * 4  # halves of a 16-bit step
  whole = np.arange(-32768, 32768, dtype=np.float32) / 32768
  assert piece_cache._as_stored(whole).dtype == np.int16
  np.testing.assert_array_equal(piece_cache._as_stored(whole) / np.float32(32768), whole)
  assert piece_cache._as_stored(np.array([1.0], np.float32)).dtype == np.float32  # full scale does not fit


def test_windows_beyond_the_piece_are_padded(made_up, tmp_path):
  store, content = prepare(made_up, tmp_path), made_up.content(1)
  padded = np.pad(content.samples, 500)
  np.testing.assert_array_equal(store.audio(1, -500, len(content.samples) + 500), padded)
  assert not store.audio(1, 10**6, 10**6 + 10).any() and len(store.audio(1, -20, -10)) == 10


def test_stems_add_up(made_up, tmp_path):
  store = prepare(made_up, tmp_path, stems=True)
  content = made_up.content(3, stems=True)
  np.testing.assert_array_equal(store.audio(3), content.stems.sum(axis=0))
  np.testing.assert_array_equal(store.audio(3, 5, 90, np.array([False, True])), content.stems[1, 5:90])
  np.testing.assert_array_equal(store.note_stems(3), content.note_stem)


def test_made_once_and_again_when_the_source_changes(made_up, tmp_path):
  for _ in range(2):
    prepare(made_up, tmp_path)
  assert made_up.reads() == ['0', '1', '2', '3']
  prepare(dataclasses.replace(made_up, version=1), tmp_path)
  assert len(made_up.reads()) == 8


def test_resumes_where_it_was_interrupted(made_up, tmp_path, monkeypatch):
  whole = prepare(made_up, tmp_path / 'whole')
  stopping = dataclasses.replace(made_up, fail_at=2)
  monkeypatch.setattr(MadeUp, '__repr__', lambda self: 'made up')  # the same store for both
  with pytest.raises(KeyboardInterrupt):
    prepare(stopping, tmp_path)
  (folder,) = [path for path in (tmp_path / 'cache' / 'pieces').iterdir() if path.is_dir()]
  for name in ('audio.bin', 'notes.bin', 'index.jsonl', 'skipped.jsonl'):  # killed in the middle of the next piece
    with open(folder / name, 'ab') as file:
      file.write(b'{"half')
  Path(made_up.log).write_text('')
  store = prepare(made_up, tmp_path)
  assert made_up.reads() == ['2', '3']
  assert store.entries == whole.entries
  for name in ('audio.bin', 'notes.bin', 'index.jsonl'):
    assert (store.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_workers_change_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'SPAWN_AFTER', 0.0)
  source = MadeUp(9, str(tmp_path / 'reads'), broken=4)
  one, two = (prepare(source, tmp_path / str(workers), workers=workers) for workers in (1, 2))
  assert one.entries == two.entries
  for name in ('audio.bin', 'notes.bin', 'skipped.jsonl'):
    assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_one_broken_piece_is_named_and_the_rest_goes_on(tmp_path, capsys):
  source = MadeUp(4, str(tmp_path / 'reads'), broken=1)
  store = prepare(source, tmp_path)
  assert store.names == ['piece0', 'piece2', 'piece3']
  lines = [json.loads(line) for line in (store.folder / 'skipped.jsonl').read_text().splitlines()]
  (line,) = [line for line in lines if line['action'] == 'left out']
  assert line == {
    'piece': 'piece1',
    'problem': 'unreadable',
    'count': 1,
    'text': 'piece1.wav is broken',
    'action': 'left out',
  }
  assert '1 of 4 pieces left out' in capsys.readouterr().err
  with pytest.raises(UserError, match=r'piece1\.wav is broken'):
    prepare(source, tmp_path, strict=True)
  with pytest.raises(UserError, match=r'piece1\.wav is broken'):
    prepare(source, tmp_path / 'other', strict=True)


@dataclasses.dataclass(frozen=True)
class Odd(MadeUp):
  """Pieces whose MIDI files are odd, or have lost notes."""

  def read_piece(self, split, name, sample_rate, stems=False):
    oddities = ('the last byte is missing',) if name == 'piece1' else ()
    warnings.warn(DataWarning(f'{name}.mid: the last byte is missing', 1, oddities), stacklevel=2)
    return super().read_piece(split, name, sample_rate, stems)


def test_odd_files_are_kept_and_listed(tmp_path, capsys):
  store = prepare(Odd(3, str(tmp_path / 'reads')), tmp_path)
  assert store.names == ['piece0', 'piece1', 'piece2']
  lines = [json.loads(line) for line in (store.folder / 'skipped.jsonl').read_text().splitlines()]
  odd = [(line['piece'], line['text'], line['action']) for line in lines if line['problem'] == 'odd-file']
  # Lost notes alone are counted by the source, as lost-in-midi.
  assert odd == [('piece1', 'piece1.mid: the last byte is missing', 'kept')]


def test_nothing_usable_is_an_error(tmp_path):
  with pytest.raises(UserError, match=r'no usable piece.*piece0\.wav is broken'):
    prepare(MadeUp(1, str(tmp_path / 'reads'), broken=0), tmp_path)


def test_no_room_is_one_line(made_up, tmp_path):
  (tmp_path / 'cache').write_text('a file')
  with pytest.raises(UserError, match='cannot make the folder'):
    prepare(made_up, tmp_path)
  (tmp_path / 'cache').unlink()
  monkey = tmp_path / 'cache' / 'pieces'
  monkey.mkdir(parents=True)
  identity = prepare(made_up, tmp_path).folder
  for file in identity.iterdir():
    file.unlink()
  (identity / 'audio.bin').symlink_to('/dev/full')
  with pytest.raises(UserError, match='cannot write'):
    prepare(made_up, tmp_path)


def _replace(path, content):
  path.unlink()  # a file that is mapped must not be shortened in place
  path.write_bytes(content)


def _shorten(path):
  _replace(path, path.read_bytes()[:-5])


def _lengthen(path):
  _replace(path, path.read_bytes() + b'12345')


def _fill_with_garbage(path):
  _replace(path, b'\xffgarbage\n' * 3)


DAMAGE = [_shorten, _lengthen, _fill_with_garbage, Path.unlink]
# A run that was stopped leaves a longer index, or no complete.json: that is no damage.
STOPPED = [('index.jsonl', _lengthen), ('complete.json', Path.unlink)]
DAMAGED_FILES = [
  (name, damage, stems)
  for name in ('audio.bin', 'notes.bin', 'stems.bin', 'index.jsonl', 'complete.json')
  for damage in DAMAGE
  for stems in ([True] if name == 'stems.bin' else [False, True])
  if (name, damage) not in STOPPED
]


@pytest.mark.parametrize('name, damage, stems', DAMAGED_FILES)
def test_a_damaged_store_is_built_again(made_up, tmp_path, capsys, name, damage, stems):
  whole = prepare(made_up, tmp_path, stems=stems)
  contents = {path.name: path.read_bytes() for path in whole.folder.iterdir() if path.is_file()}
  damage(whole.folder / name)
  capsys.readouterr()
  store = prepare(made_up, tmp_path, stems=stems)
  (line,) = [line for line in capsys.readouterr().err.splitlines() if 'is damaged' in line]
  assert f'{whole.folder} is damaged (' in line and line.endswith('its pieces are read again')
  assert {path.name: path.read_bytes() for path in store.folder.iterdir() if path.is_file()} == contents
  np.testing.assert_array_equal(whole.audio(3), store.audio(3))  # those who had opened the old files still read them
  prepare(made_up, tmp_path, stems=stems)
  assert capsys.readouterr().err == ''


def test_a_build_that_lost_samples_starts_anew(made_up, tmp_path, capsys):
  whole = prepare(made_up, tmp_path)
  audio = whole.audio(2).copy()
  (whole.folder / 'complete.json').unlink()
  _shorten(whole.folder / 'audio.bin')
  store = prepare(made_up, tmp_path)
  assert 'damaged (audio.bin has' in capsys.readouterr().err
  np.testing.assert_array_equal(store.audio(2), audio)


def test_damaged_remarks_are_left_out(tmp_path):
  source = MadeUp(3, str(tmp_path / 'reads'), broken=1)
  store = prepare(source, tmp_path)
  remarks = store.skipped()
  assert 'piece1' in [line['piece'] for line in remarks]
  with open(store.folder / 'skipped.jsonl', 'ab') as file:
    file.write(b'\xff{half\n[]\n')
  assert prepare(source, tmp_path).skipped() == remarks


# numpy ignores what follows an array, so a longer starts.npy is no damage.
@pytest.mark.parametrize(
  'name, damage',
  [
    (name, damage)
    for name in ('events.bin', 'starts.npy')
    for damage in DAMAGE
    if (name, damage) != ('starts.npy', _lengthen)
  ],
)
def test_damaged_events_are_written_again(made_up, tmp_path, capsys, name, damage):
  store = prepare(made_up, tmp_path)
  before = store.encode(CODEC).events(3).to_array()
  (path,) = store.folder.glob(f'events-*/{name}')
  capsys.readouterr()
  damage(path)
  np.testing.assert_array_equal(store.encode(CODEC).events(3).to_array(), before)
  output = capsys.readouterr().err
  assert 'is damaged; it is written again' in output and len(output.splitlines()) == 1
  store.encode(CODEC)
  assert capsys.readouterr().err == ''


def test_events_are_kept_and_equal(made_up, tmp_path):
  store = prepare(made_up, tmp_path)
  for _ in range(2):
    events = store.encode(CODEC)
    for index in range(4):
      wanted = segment_targets.encode_piece(trim_overlapping_notes(np.array(store.notes(index))), CODEC)
      np.testing.assert_array_equal(events.events(index).to_array(), wanted.to_array())
  untrimmed = store.encode(CODEC, trim=False).events(3)
  assert (
    len(untrimmed) != len(events.events(3)) or untrimmed.to_array().tolist() != events.events(3).to_array().tolist()
  )
  assert len(list(store.folder.glob('events-*/events.bin'))) == 2


def _prepare_in_process(source, folder, queue):
  store = piece_cache.prepare(source, 'train', 16000, cache_dir=folder, progress=False)
  queue.put(len(store))


def test_processes_make_a_store_once_together(tmp_path):
  source = MadeUp(6, str(tmp_path / 'reads'))
  context = multiprocessing.get_context('spawn')
  queue = context.Queue()
  processes = [
    context.Process(target=_prepare_in_process, args=(source, str(tmp_path / 'cache'), queue)) for _ in range(2)
  ]
  for process in processes:
    process.start()
  assert [queue.get(timeout=60) for _ in processes] == [6, 6]
  for process in processes:
    process.join()
  assert len(source.reads()) == 6


def test_a_script_without_a_main_guard_does_not_hang(tmp_path, small_data):
  """Worker processes would run the caller's script again and wait for the caller's lock."""
  script = tmp_path / 'script.py'
  script.write_text(
    textwrap.dedent(f"""
      from mrmt3.data import piece_cache
      from mrmt3.data.sources.slakh import SlakhFolder
      from mrmt3.utils import parallel
      parallel.SPAWN_AFTER = 0.0
      source = SlakhFolder({str(small_data)!r})
      store = piece_cache.prepare(source, 'train', 16000, cache_dir={str(tmp_path / 'c')!r}, workers=2)
      print(len(store))
      """)
  )
  result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
  assert result.stdout.strip() == '3', result.stderr


def test_number_of_workers_from_the_environment(made_up, tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, 'SPAWN_AFTER', 0.0)
  asked = []
  monkeypatch.setattr(
    parallel, 'parallel', lambda function, items, workers: asked.append(workers) or map(function, items)
  )
  monkeypatch.setenv('MRMT3_WORKERS', '3')
  prepare(made_up, tmp_path)
  assert asked == [3]
  monkeypatch.setenv('MRMT3_WORKERS', 'many')
  with pytest.raises(UserError, match=r"MRMT3_WORKERS is 'many'"):
    prepare(made_up, tmp_path / 'other')
