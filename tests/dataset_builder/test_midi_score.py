"""Tests of midi_score, MIDI folders as sources, the score cache, and data sets built from MIDI files."""

import contextlib
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mrmt3.data import slakh_layout
from mrmt3.dataset_builder import build, groups, midi_score, score_cache, sources
from mrmt3.dataset_builder.midi_score import read_midi_score
from mrmt3.errors import UserError

TICKS = 480


def number(value):
  data = [value & 127]
  while value := value >> 7:
    data.append(value & 127 | 128)
  return bytes(reversed(data))


def chunk(events):
  """Return a track of (tick, bytes) events, sorted by tick."""
  data, last = b'', 0
  for tick, event in [*events, (events[-1][0] if events else 0, b'\xff\x2f\x00')]:
    data += number(tick - last) + event
    last = tick
  return b'MTrk' + struct.pack('>I', len(data)) + data


def midi_file(*tracks, kind=1, division=TICKS):
  return b'MThd' + struct.pack('>IHHH', 6, kind, len(tracks), division) + b''.join(chunk(track) for track in tracks)


def line(channel, program, pitches, length=TICKS, start=0):
  events = [(start, bytes([0xC0 | channel, program]))]
  for index, pitch in enumerate(pitches):
    events += [
      (start + index * length, bytes([0x90 | channel, pitch, 80])),
      (start + (index + 1) * length - 10, bytes([0x80 | channel, pitch, 0])),
    ]
  return events


def tune(seed, size=64):
  rng = np.random.default_rng(seed)
  return np.clip(60 + np.cumsum(rng.choice([-4, -2, -1, 1, 3, 4], size)), 50, 80).tolist()


def band(seed=0, size=64, **changes):
  return midi_file(
    [(0, b'\xff\x51\x03\x07\xa1\x20'), (0, b'\xff\x58\x04\x03\x02\x18\x08')],  # 120 bpm, 3/4
    line(0, 73, [p + 12 for p in tune(seed, size)]),
    line(1, 24, tune(seed + 1000, size)),
    line(2, 33, [p - 24 for p in tune(seed + 2000, size)]),
    line(9, 0, [36, 38] * (size // 2)),
    **changes,
  )


def test_parts_programs_drums_tempo_and_metre():
  score = read_midi_score(band(), 'midi/x/song.mid')
  assert score.programs == (73, 24, 33) and [len(part) for part in score.parts] == [64, 64, 64]
  assert score.tempo == 120 and set(score.bars['numerator']) == {3}
  assert len(score.drums) == 64 and set(score.drums['pitch']) == {36, 38}
  np.testing.assert_allclose(score.parts[0]['start'], np.arange(64))
  np.testing.assert_allclose(score.parts[0]['length'], 1 - 10 / TICKS)
  assert (score.parts[0]['velocity'] == 80).all()


def test_files_that_libraries_reject_are_read():
  bad_key = (0, b'\xff\x59\x02\x63\x09')
  odd = [bad_key, (0, b'\xff\x58\x04\x00\xff\x18\x08'), (0, b'\xff\x51\x03\x00\x00\x00'), (0, b'\xf0\x03\x01\x02\xf7')]
  score = read_midi_score(midi_file([*odd, *line(0, 0, tune(0))]), 'x')
  assert len(score.parts[0]) == 64 and set(score.bars['numerator']) == {4} and score.tempo == 120
  whole = band()
  cut = read_midi_score(whole[: len(whole) * 2 // 3], 'x')  # in the middle of a chunk
  assert 1 <= len(cut.parts) <= 3 and len(cut.parts[0]) == 64


def test_pedal_running_status_and_zero_lengths():
  events = [
    (0, bytes([0xB0, 64, 127])),
    (0, bytes([0x90, 60, 90])),
    (240, bytes([60, 0])),
    (960, bytes([0xB0, 64, 0])),
    (1000, bytes([0x90, 62, 90])),
    (1000, bytes([62, 0])),
    (1440, bytes([0x90, 64, 90])),
    (1920, bytes([64, 0])),
  ]
  (notes,) = read_midi_score(midi_file(events), 'x').parts
  assert [(n['start'], n['length'], n['pitch']) for n in notes] == [(0, 2, 60), (3, 1, 64)]


def test_extreme_files():
  thousands = midi_file(*[line(index % 9, index % 100, [60 + index % 12], start=index) for index in range(10_000)])
  assert len(read_midi_score(thousands, 'x').parts) <= 100
  silence = midi_file(line(0, 0, tune(0), start=480 * 7000), [(0, bytes([0x91, 60, 9])), (480, bytes([0x81, 60, 0]))])
  score = read_midi_score(silence, 'x')
  assert score.length <= 68 and len(score.parts) == 1 and score.bars['start'][0] == 0
  fast = read_midi_score(band(division=2), 'x')  # 2 ticks per quarter look like a very slow piece
  assert 40 <= fast.tempo <= 220


@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (b'', 'not a MIDI file'),
    (b'MThd', 'not a MIDI file'),
    (b'<html>' * 99, 'not a MIDI file'),
    (band(kind=2), 'patterns'),
    (band(division=0), 'resolution'),
    (midi_file(), 'no notes for pitched'),
    (midi_file(line(9, 0, [36] * 99)), 'no notes for pitched'),
    (midi_file(line(0, 120, [60] * 99)), 'no notes for pitched'),  # breath noise
    (bytes(9_000_000), 'too many'),
  ],
)
def test_files_without_music_raise_user_errors(data, words):
  with pytest.raises(UserError, match=words) as error:
    read_midi_score(data, 'midi/x/song.mid')
  assert 'midi/x/song.mid' in str(error.value) and '\n' not in str(error.value)


def mutate(data, rng):
  data = bytearray(data)
  for _ in range(rng.integers(1, 12)):
    at = int(rng.integers(len(data)))
    kind = rng.integers(4)
    if kind == 0:
      data[at] = rng.integers(256)
    elif kind == 1:
      del data[at : at + int(rng.integers(1, 30))]
    elif kind == 2:
      data[at:at] = rng.bytes(int(rng.integers(1, 30)))
    else:
      data[at : at + 4] = b'\xff\xff\xff\xff'
  return bytes(data[: int(rng.integers(1, len(data) + 1))] if rng.random() < 0.2 else data)


def test_500_mutated_files_are_read_or_raise_user_errors():
  rng = np.random.default_rng(0)
  masters = [band(seed, 32) for seed in range(5)]
  read = 0
  for index in range(500):
    try:
      score = read_midi_score(mutate(masters[index % 5], rng), 'x')
    except UserError as error:
      assert '\n' not in str(error)
      continue
    read += 1
    assert score.parts and score.length > 0 and 40 <= score.tempo <= 220
    ends = score.bars['start'] + score.bars['length']
    np.testing.assert_allclose(score.bars['start'][1:], ends[:-1], atol=1e-6)
    for part in score.parts:
      assert (part['length'] > 0).all() and (part['start'] >= 0).all() and part['start'].max() < ends[-1] + 1e-6
  assert 250 < read < 500


@hypothesis.given(st.binary(max_size=300))
@hypothesis.settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_are_read_or_raise_user_errors(data):
  with contextlib.suppress(UserError):
    assert read_midi_score(b'MThd' + struct.pack('>IHHH', 6, 1, 1, 96) + b'MTrk\x00\x00\xff\xff' + data, 'x').parts


def test_music_in_wad_files(tmp_path, monkeypatch):
  song = band()
  directory = struct.pack('<ii8s', 12, len(song), b'D_E1M1') + struct.pack('<ii8s', 12, 4, b'E1M1')
  (tmp_path / 'freedoom9.wad').write_bytes(struct.pack('<4sii', b'IWAD', 2, 12 + len(song)) + song + directory)
  (tmp_path / 'freedoom8.wad').write_bytes(b'IWAD\xff')
  monkeypatch.setitem(sources.DEBIAN_COLLECTIONS, 'freedoom', sources.Collection('freedoom', 'music', tmp_path))
  library = sources.Library(music21=False, debian=('freedoom',))
  assert library.sources() == ['freedoom/freedoom9.wad/D_E1M1']
  assert len(library.read('freedoom/freedoom9.wad/D_E1M1').parts) == 3


def test_missing_packages_are_listed_with_their_command(tmp_path, monkeypatch):
  monkeypatch.setitem(
    sources.DEBIAN_COLLECTIONS, 'openttd', sources.Collection('openttd-openmsx', 'music', tmp_path / 'none')
  )
  library, missing = sources.open_library(music21=False, debian=True, midi=[])
  assert 'openttd' not in library.debian
  assert [one for one in missing if 'openttd' in one] == [
    'openttd-openmsx is not installed (music); install it with: apt-get install openttd-openmsx'
  ]


@pytest.mark.parametrize(
  ('one', 'other', 'same'),
  [
    ('midi/a/x/Song.mid', 'midi/a/y/song (2).mid', True),
    ('midi/a/song.mid', 'midi/a/song_copy.mid', True),
    ('midi/a/song.mid', 'midi/a/songs.mid', False),
    ('midi/a/12.mid', 'midi/a/13.mid', False),
    ('mma/bossanova/BossaNova', 'mma/bossanova/BossaNova1Sus', True),
    ('mma/bossanova/BossaNova', 'mma/samba/Samba', False),
  ],
)
def test_works_of_midi_files(one, other, same):
  assert (sources.work_of(one) == sources.work_of(other)) == same


def test_near_duplicates_are_one_group():
  original = read_midi_score(band(3), 'a')
  others = [read_midi_score(band(seed), str(seed)) for seed in (40, 50)]
  copy = original.transposed(3).with_parts([1, 2])  # in another key, without its melody
  assert groups.group_scores([original, *others, copy], ['a', 'b', 'c', 'd']) == [0, 1, 2, 0]
  many = [original] * 100
  assert set(groups.group_scores(many, [str(index) for index in range(100)])) == {0}


def test_cache_keeps_scores_and_survives_broken_files(tmp_path, monkeypatch):
  monkeypatch.setattr(score_cache, 'cache_folder', lambda: tmp_path)
  reads = []

  def read():
    reads.append(1)
    return read_midi_score(band(), 'x')

  first = score_cache.cached(read, 'id')
  again = score_cache.cached(read, 'id')
  assert len(reads) == 1 and again.programs == first.programs and again.tempo == first.tempo
  np.testing.assert_array_equal(again.drums, first.drums)
  (path,) = tmp_path.rglob('*.npz')
  for broken in (b'', b'PK\x03\x04 no', path.read_bytes()[:500]):
    path.write_bytes(broken)
    assert len(score_cache.cached(read, 'id').parts) == 3
  assert len(reads) == 4
  with pytest.raises(UserError, match='no MIDI'):
    score_cache.cached(lambda: (_ for _ in ()).throw(UserError('no MIDI')), 'bad')
  with pytest.raises(UserError, match='no MIDI'):  # cached
    score_cache.cached(read, 'bad')


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setattr(score_cache, 'cache_folder', lambda: tmp_path / 'file' / 'x')
  assert score_cache.cached(lambda: read_midi_score(band(), 'x'), 'id').parts


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('songs') / 'songs'
  (folder / 'more').mkdir(parents=True)
  for seed in range(5):
    (folder / f'song{chr(97 + seed)}.mid').write_bytes(band(10 * seed))
  (folder / 'more' / 'SONGA (2).MID').write_bytes(band(0))
  (folder / 'broken.mid').write_text('nothing')
  (folder / 'short.mid').write_bytes(band(7, 4))
  return folder


def test_hidden_midi_files_are_no_sources(tmp_path):
  for name in ('song.mid', '._song.mid', '.old/song.mid', 'more/SONG.MID'):
    (tmp_path / 'music' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'music' / name).write_bytes(band(0, 4))
  library = sources.Library(music21=False, folders=(('music', tmp_path / 'music'),))
  assert [name.partition('music/')[2] for name in library.sources()] == ['more/SONG.MID', 'song.mid']


def test_data_set_of_midi_files(folder, tmp_path, capsys):
  lines = []
  report = build.build(
    tmp_path / 'set',
    midi=[folder],
    takes=2,
    pieces=9,
    seconds=8,
    workers=1,
    extras=True,
    progress=False,
    log=lines.append,
  )
  assert report.made == 9 and len(report.left_out) == 2 == len(lines)
  assert any('broken.mid: not a MIDI file' in line for line in lines) and any('short.mid' in line for line in lines)
  tracks = slakh_layout.find_tracks(tmp_path / 'set')
  assert len(tracks) == 9
  split_of = {}
  for track in tracks:
    source = (
      slakh_layout.read_metadata(track)['lmd_midi_dir'].split('#')[0].lower().replace('more/', '').replace(' (2)', '')
    )
    assert split_of.setdefault(source, track.split) == track.split
    assert {path.name for path in track.path.iterdir()} >= {'mix_16k.wav', 'inst_names.json', 'all_src_v2.mid'}
    stems = slakh_layout.read_stems(track)
    assert stems[-1].is_drum and len(stems) >= 2
  again = build.build(tmp_path / 'set', midi=[folder], takes=2, pieces=9, seconds=8, extras=True, progress=False)
  assert (again.made, again.kept, len(again.left_out)) == (0, 9, 2)


@pytest.mark.parametrize('names', [['a.txt'], ['bad.mid']])
def test_nothing_usable_is_an_error(tmp_path, names):
  (tmp_path / 'songs').mkdir()
  for name in names:
    (tmp_path / 'songs' / name).write_text('x')
  with pytest.raises(UserError, match=r'no MIDI files|0 of 1 pieces'):
    build.build(tmp_path / 'set', midi=[tmp_path / 'songs'], progress=False, workers=1, log=lambda line: None)


def test_reader_is_fast():
  assert midi_score.MidiEvents(band(0, 64)).notes.shape == (256, 8)
