"""Tests of `mrmt3 dataset check` and `report`, of tuning and families of soundfonts, and of interrupted builds."""

import dataclasses
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import command_line
import numpy as np
import pytest
import soundfile

from mrmt3.audio import soundfont_tuning, soundfonts
from mrmt3.audio import synthesizer as render
from mrmt3.cli import dataset as dataset_cli
from mrmt3.dataset_builder import check, layout, plan, report, settings
from mrmt3.dataset_builder.arrange import INSTRUMENTS
from mrmt3.errors import UserError
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes

RATE = 16000


@pytest.fixture(scope='module')
def synth():
  return render.Synth(render.default_soundfont(), RATE)


def melody(low=60, step=0.5, count=12, program=0):
  return as_notes([(0.2 + i * step, 0.2 + (i + 0.8) * step, low + 5 * i % 12, 90, program, 0) for i in range(count)])


def write_set(folder, synth, change=None):
  """Write a data set of a training and a test track with piano, flute and drums; `change` modifies the labels."""
  drums = as_notes([(0.2 + i / 2, 0.3 + i / 2, 36 + 2 * (i % 2), 100, 0, 1) for i in range(12)])
  tables = [(0, False, melody()), (73, False, melody(72)), (0, True, drums)]
  for name in ('train/Track00001', 'test/Track00003'):
    stems = []
    for program, is_drum, notes in tables:
      audio = synth.render(notes, program, is_drum, 7.0)
      labels = change(notes.copy()) if change else notes
      stems.append(layout.Stem(program, is_drum, labels, audio, 'font'))
    layout.write_track(folder / name, stems, source=f'test/{name}')
  return folder


@pytest.fixture(scope='module')
def good_set(tmp_path_factory, synth):
  return write_set(tmp_path_factory.mktemp('good'), synth)


def run(*arguments):
  return command_line.run(dataset_cli, 'dataset', *arguments)


# Tuning


@pytest.mark.parametrize('program', [0, 16, 24, 32, 40, 48, 56, 70, 73])
def test_presets_sound_at_their_pitch(synth, program):
  (instrument,) = (one for one in INSTRUMENTS if one.program == program)
  low = (instrument.low + instrument.high) // 2 - 6
  notes = melody(low, program=program)
  audio = synth.render(notes, program, False, 7.0)
  assert check.has_pitch(audio, notes['onset'], notes['pitch'], RATE).mean() > 0.75
  for semitones in (-1, 1):
    assert check.has_pitch(audio, notes['onset'], notes['pitch'] + semitones, RATE).mean() < 0.2


def test_original_soundfont_is_out_of_tune_and_unchanged():
  import symusic

  path = render.default_soundfont()
  before = path.read_bytes()
  plain = render.Synth(path, RATE)
  assert path.read_bytes() == before
  plain._load = lambda: symusic.Synthesizer(path, RATE, 2)
  notes = melody()
  # If this fails, symusic applies the tuning itself and soundfont_tuning can be removed.
  assert check.has_pitch(plain.render(notes, 0, False, 7.0), notes['onset'], notes['pitch'], RATE).mean() < 0.5


# Playing the same each time


def font_bytes(samples, headers, zones, vorbis=False):
  """Return a soundfont with one preset; headers are (begin, end, loop begin, loop end, rate), zones generators."""

  def part(name, content):
    return name + struct.pack('<I', len(content)) + content

  def records(form, rows):
    return b''.join(struct.pack(form, *row) for row in rows)

  ends = np.cumsum([0, *(len(zone) for zone in zones)])
  generators = [pair for zone in zones for pair in zone] + [(0, 0)]
  rows = [(b'%d' % i, *header, 60, 0, 0, 1 + 16 * vorbis) for i, header in enumerate(headers)]
  pdta = (
    part(b'phdr', records('<20s3H3I', [(b'one', 0, 0, 0, 0, 0, 0), (b'EOP', 0, 0, 1, 0, 0, 0)]))
    + part(b'pbag', records('<2H', [(0, 0), (1, 0)]))
    + part(b'pmod', bytes(10))
    + part(b'pgen', records('<Hh', [(41, 0), (0, 0)]))
    + part(b'inst', records('<20sH', [(b'one', 0), (b'EOI', len(zones))]))
    + part(b'ibag', records('<2H', [(end, 0) for end in ends]))
    + part(b'imod', bytes(10))
    + part(b'igen', records('<Hh', generators))
    + part(b'shdr', records('<20s5IBb2H', [*rows, (b'EOS', *[0] * 9)]))
  )
  lists = [b'INFO' + part(b'ifil', struct.pack('<2H', 2 + vorbis, 1)), b'sdta' + part(b'smpl', samples), b'pdta' + pdta]
  body = b'sfbk' + b''.join(part(b'LIST', content) for content in lists)
  return part(b'RIFF', body)


def wave(count, rate=RATE, hertz=261.6256):
  return np.rint(8000 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype('<i2')


ODD = [  # (headers, zones)
  ([(0, 3000, 100, 50000, RATE)], [[(54, 1), (53, 0)]]),  # a loop beyond the end of its sample
  ([(0, 3000, 2950, 3000, 44100)], [[(54, 1), (53, 0)]]),  # a loop to the end of its sample
  ([(0, 3000, 1000, 1003, 44100)], [[(54, 1), (53, 0)]]),  # a loop that is empty an octave higher
  ([(0, 3000, 2000, 1000, RATE)], [[(54, 1), (53, 0)]]),  # begin and end swapped
  ([(0, 3000, 100, 2900, RATE)], [[(54, 1), (3, 30000), (50, 9), (53, 0)]]),  # moved far out of range by its zone
  # Two zones that begin at one position and end at different ones, for keys up to 60 and from 61.
  (
    [(0, 300, 10, 290, 44100), (0, 3000, 10, 2900, 44100)],
    [[(43, 60 << 8), (54, 1), (53, 0)], [(43, 61 + (127 << 8)), (54, 1), (53, 1)]],
  ),
  ([(0, 3000, 100, 2900, RATE)], [[(54, 3), (53, 0)]]),
  ([(0, 3000, 100, 2900, RATE)], [[(54, 9), (999, 7), (53, 0)]]),  # an unknown loop mode and an unknown generator
  ([(0, 0, 0, 0, 0)], [[(54, 1), (53, 0)]]),
]
PLAY = """
import sys
import numpy as np
from mrmt3.audio.synthesizer import Synth
from mrmt3.notes.note_array import as_notes
notes = as_notes([(0.1 + i, 1.0 + i, pitch, 90, 0, 0) for i, pitch in enumerate((24, 60, 61, 96, 120))])
np.save(sys.argv[1], [Synth(path).render(notes, 0, False, 6.0) for path in sys.argv[2:]])
"""


def test_odd_samples_are_rendered_deterministically(tmp_path):
  paths = [tmp_path / f'{index}.sf2' for index in range(len(ODD))]
  for path, (headers, zones) in zip(paths, ODD, strict=True):
    path.write_bytes(font_bytes(wave(3000).tobytes(), headers, zones))
  results = []
  for perturb in ('85', '170'):  # glibc fills allocated and freed memory with it
    out = tmp_path / f'{perturb}.npy'
    environment = {**os.environ, 'MALLOC_PERTURB_': perturb, 'MRMT3_CACHE': str(tmp_path / 'cache')}
    subprocess.run([sys.executable, '-c', PLAY, out, *paths], check=True, env=environment, timeout=60)
    results.append(np.load(out))
  peaks = np.abs(results[0]).max(axis=1)
  assert (peaks[:-1] > 0.1).all() and (peaks < 0.5).all()
  np.testing.assert_array_equal(*results)


@pytest.mark.parametrize('place', ['phdr', 'pbag', 'pgen', 'inst', 'ibag', 'igen'])
def test_table_with_an_index_out_of_range_raises(tmp_path, place):
  headers, zones = ODD[0]
  data = bytearray(font_bytes(wave(3000).tobytes(), headers, zones))
  offset = {'phdr': 38 + 24, 'inst': 22 + 20, 'pbag': 4, 'ibag': 4, 'pgen': 2, 'igen': 4 + 2}[place]
  struct.pack_into('<H', data, data.index(place.encode()) + 8 + offset, 500)
  (tmp_path / 'odd.sf2').write_bytes(data)
  with pytest.raises(UserError, match='truncated or broken'):
    render.Synth(tmp_path / 'odd.sf2')


def read_tuned(data):
  chunks = soundfonts.font_chunks(data)
  headers = [struct.unpack_from('<20s5IBb2H', chunks[b'shdr'], at) for at in range(0, len(chunks[b'shdr']) - 46, 46)]
  return np.frombuffer(chunks[b'smpl'], '<i2'), headers


def test_loops_have_a_margin_and_samples_do_not_overlap():
  audio, headers = read_tuned(soundfont_tuning.tune(render.default_soundfont().read_bytes(), RATE))
  at = np.array([header[1:5] for header in headers], np.int64)
  assert len(headers) > 500 and at[:, 1].max() <= len(audio) and {header[5] for header in headers} == {RATE}
  assert len(np.unique(at[:, 0] % 2**24)) == len(at) and (at[1:, 0] >= at[:-1, 1]).all()
  assert (at[:, 2] >= at[:, 0]).all() and (at[:, 3] - at[:, 2] >= 4096).all() and (at[:, 1] - at[:, 3] >= 4096).all()


@pytest.mark.parametrize('vorbis', [False, True])
def test_zone_plays_the_crop_of_its_generators(vorbis):
  data, rate = wave(40000, 32000), 32000
  chunk = data.tobytes()
  if vorbis:
    memory = io.BytesIO()
    soundfile.write(memory, data, rate, format='OGG', subtype='VORBIS')
    chunk = memory.getvalue() + bytes(len(memory.getvalue()) % 2)
  end = len(chunk) if vorbis else len(data)
  zones = [[(0, 8000), (2, 232), (53, 0), (54, 1)], [(53, 0)]]
  zones = [sorted(zone, key=lambda pair: pair[0] == 53) for zone in zones]  # the sample generator must be last
  tuned = soundfont_tuning.tune(font_bytes(chunk, [(0, end, 9768, 30000, rate)], zones, vorbis), RATE)
  audio, (looped, plain) = read_tuned(tuned)
  begin, end, first, last = looped[1:5]
  assert (first - begin, last - begin) == (1000, 11000)
  expected = wave(20000)
  assert np.abs(audio[begin : begin + 10000] - expected[4000:14000].astype(int))[100:].max() < (800 if vorbis else 40)
  np.testing.assert_array_equal(audio[last:end], audio[first : first + end - last])
  begin, end = plain[1:3]
  assert np.abs(audio[begin + 100 : begin + 19900] - expected[100:19900].astype(int)).max() < (800 if vorbis else 40)
  assert not audio[begin + 20000 : end].any()


def test_positions_with_equal_last_24_bits_are_avoided(monkeypatch):
  monkeypatch.setattr(soundfont_tuning, '_PLACES', 8192)
  zones = [[(52, cents), (53, 0)] for cents in range(4)]
  _, headers = read_tuned(soundfont_tuning.tune(font_bytes(bytes(0), [(0, 0, 0, 0, RATE)], zones), RATE))
  assert [header[1] for header in headers] == [0, 8193, 16386, 24579]


def test_audio_does_not_depend_on_earlier_stems(synth):
  fresh = render.Synth(render.default_soundfont(), RATE)
  used = render.Synth(render.default_soundfont(), RATE)
  for program in (50, 90, 88):
    used.render(melody(), program, False, 7.0)
  np.testing.assert_array_equal(fresh.render(melody(), 89, False, 7.0), used.render(melody(), 89, False, 7.0))


def test_every_stem_gets_a_new_synthesizer(monkeypatch):
  # A used synthesizer may sound different, like symusic's for the drums of FluidR3 and MuseScore.
  import symusic

  class Worn:
    def __init__(self, *arguments):
      self._inner, self._played = symusic_synthesizer(*arguments), 0

    def render(self, score, stereo):
      self._played += 1
      return self._inner.render(score, stereo=stereo) * self._played

  symusic_synthesizer = symusic.Synthesizer
  monkeypatch.setattr(symusic, 'Synthesizer', Worn)
  synth = render.Synth(render.default_soundfont(), RATE)
  first = synth.render(melody(36), 0, True, 7.0)
  assert np.any(first)
  np.testing.assert_array_equal(synth.render(melody(36), 0, True, 7.0), first)


# Soundfonts


def test_soundfont_contents():
  font = soundfonts.read_soundfont(render.default_soundfont())
  assert font.programs == frozenset(range(128)) and font.has_drums and font.has(40, False) and font.has(0, True)
  assert font.is_related(font)
  other = dataclasses.replace(font, sha256='x', samples=frozenset(f'new {i}' for i in range(300)))
  assert not font.is_related(other)
  mixed = dataclasses.replace(other, samples=other.samples | frozenset(sorted(font.samples)[:150]))
  soundfonts.check_held_out([font], [other])
  with pytest.raises(UserError, match='cannot be held out'):
    soundfonts.check_held_out([font], [mixed])


def piano_only(path):
  """Write the default soundfont with all presets but the first in bank 5."""
  data = bytearray(render.default_soundfont().read_bytes())
  chunks = soundfonts.font_chunks(bytes(data))
  begin = data.index(b'phdr') + 8
  for place in range(begin, begin + len(chunks[b'phdr']), 38):
    if struct.unpack_from('<HH', data, place + 20) != (0, 0):
      struct.pack_into('<H', data, place + 22, 5)
  path.write_bytes(data)
  return path


def test_fonts_that_are_broken_or_not_general_midi(tmp_path):
  (tmp_path / 'text.sf2').write_text('no')
  fonts = [render.default_soundfont(), piano_only(tmp_path / 'piano.sf2'), tmp_path / 'text.sf2', tmp_path / 'none.sf2']
  setup, lines = settings.prepare('demo', fonts=fonts)
  assert [font.path for font in setup.fonts] == fonts[:2] and setup.fonts[1].programs == {0}
  assert len(lines) == 3 and all('\n' not in line for line in lines)
  assert any('1 of 128 programs and no drums' in line for line in lines)
  with pytest.raises(UserError, match='none of the 2 soundfonts'):
    settings.prepare('demo', fonts=fonts[2:])
  with pytest.raises(UserError, match='cannot be held out'):
    settings.prepare('demo', held_out=[fonts[1]])


def test_stems_of_a_split_use_its_soundfonts(tmp_path):
  default = render.default_soundfont()
  setup, _ = settings.prepare('demo')
  other = dataclasses.replace(setup.fonts[0], path=shutil.copy(default, tmp_path / 'other.sf2'))
  setup = dataclasses.replace(setup, held_out=(other,))
  assert setup.fonts_of('train') == setup.fonts_of('validation') == setup.fonts
  assert setup.fonts_of('test') == (other,)


# Steering


def test_rare_classes_are_preferred():
  seconds = dict.fromkeys(SLAKH_CLASSES.values(), 1000.0)
  seconds[40] = 0.0
  weights = plan.class_weights(seconds)
  assert weights[40] > 20 * weights[0] and len({weights[program] for program in weights if program != 40}) == 1


# Check


def test_check_of_a_good_set(good_set, capsys):
  result, stems = check.check(good_set, workers=1, progress=False)
  assert result.is_good and (result.tracks, result.stems, result.notes) == (2, 6, 48)
  assert all(abs(stem.lag) <= 0.005 for stem in stems)
  assert run('check', good_set, '--workers', 1) == 0
  assert 'NOT MET' not in capsys.readouterr().out


def later(notes):
  notes['onset'] -= 0.04
  notes['offset'] -= 0.04
  return notes


def higher(notes):
  notes['pitch'] += ~notes['is_drum']
  return notes


@pytest.mark.parametrize(('change', 'what'), [(later, 'in_time'), (higher, 'pitched')])
def test_check_finds_wrong_labels(tmp_path, synth, change, what, capsys):
  folder = write_set(tmp_path, synth, change)
  result, stems = check.check(folder, workers=1, progress=False)
  assert not result.is_good and getattr(result, what) < 0.2
  assert result.audible == result.mixes == 1
  if change is later:
    assert np.median([stem.lag for stem in stems]) == pytest.approx(0.04, abs=0.003)
  assert run('check', folder, '--workers', 1, '--json', tmp_path / 'check.json') == 1
  assert 'NOT MET' in capsys.readouterr().out
  assert len(json.loads((tmp_path / 'check.json').read_text())['stems']) == 6


def test_check_finds_broken_tracks(good_set, tmp_path):
  folder = shutil.copytree(good_set, tmp_path / 'set')
  track = folder / 'train' / 'Track00001'
  audio, _ = soundfile.read(track / 'stems' / 'S00.flac')
  soundfile.write(track / 'stems' / 'S00.flac', audio[::-1], RATE)
  (track / 'stems' / 'S01.flac').unlink()
  (folder / 'test' / 'Track00003' / 'metadata.yaml').write_text('{')
  result, _ = check.check(folder, workers=1, progress=False)
  assert not result.is_good and len(result.troubles) >= 2
  assert any('S01 is missing' in line for line in result.troubles)
  assert any('Track00003' in line and 'not YAML' in line for line in result.troubles)
  with pytest.raises(UserError, match='no data set'):
    check.check(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='0 tracks'):
    check.check(folder, tracks=0)


def test_mix_that_is_not_the_sum(good_set, tmp_path):
  folder = shutil.copytree(good_set, tmp_path / 'set')
  for name in ('train/Track00001', 'test/Track00003'):
    mix, _ = soundfile.read(folder / name / 'mix.flac')
    soundfile.write(folder / name / 'mix.flac', 0.5 * mix, RATE)
  result, _ = check.check(folder, workers=1, progress=False)
  assert result.mixes == 0 and result.audible == 1


# Report


def test_polyphony():
  notes = as_notes([(0, 2, 60, 90, 0, 0), (1, 2, 64, 90, 0, 0), (2, 3, 60, 90, 0, 0), (5, 6, 60, 90, 0, 0)])
  assert report.polyphony(notes) == (pytest.approx(5 / 4), 2)
  assert report.polyphony(notes[:0]) == (0, 0)


def test_report(good_set, tmp_path, capsys):
  found = report.describe(good_set, workers=1, progress=False)
  assert found.hours() == pytest.approx(14 / 3600) and found.splits() == {'train': 1, 'test': 1} and found.pieces() == 2
  assert found.minutes()[73, False] == pytest.approx(14 / 60) and found.minutes()[40, False] == 0
  assert found.notes() == {(0, False): 24, (73, False): 24, (0, True): 24}
  assert run('report', good_set, '--plot', tmp_path / 'x.png', '--json', tmp_path / 'x.json') == 0
  shown = capsys.readouterr().out
  assert 'instruments per track: 3.0' in shown
  # Classes that do not occur have no row.
  rows = [line.split()[0] for line in shown.splitlines()[shown.splitlines().index('') + 2 :]]
  assert rows == ['Acoustic', 'Pipe', 'Drums', '32'] and shown.endswith('32 other classes do not occur\n')
  assert json.loads((tmp_path / 'x.json').read_text())['classes']['Pipe']['notes'] == 24
  assert (tmp_path / 'x.png').read_bytes()[:4] == b'\x89PNG'
  with pytest.raises(UserError, match='unknown picture format'):
    report.draw(found, tmp_path / 'x.txt')


# Failures


def test_check_and_report_name_and_count_odd_files(good_set, tmp_path, capsys):
  folder = shutil.copytree(good_set, tmp_path / 'set')
  midi = folder / 'train' / 'Track00001' / 'MIDI' / 'S00.mid'
  midi.write_bytes(b'junk' + midi.read_bytes())
  for command in ('check', 'report'):
    assert run(command, folder, '--workers', 1, '--json', tmp_path / 'x.json') == 0
    text = capsys.readouterr()
    assert f'mrmt3: warning: {midi}: 4 bytes precede the header\n' in text.err and 'odd files: 1, listed' in text.out
    assert len(json.loads((tmp_path / 'x.json').read_text())['odd_files']) == 1


def test_full_disk_leaves_no_partial_track(tmp_path, monkeypatch, synth):
  real = layout.Path.write_bytes
  written = []

  def write(path, data):
    written.append(path)
    if len(written) > 2:
      with open('/dev/full', 'wb') as file:
        file.write(data)
    return real(path, data)

  monkeypatch.setattr(layout.Path, 'write_bytes', write)
  with pytest.raises(UserError, match='No space left'):
    write_set(tmp_path, synth)
  assert not list(tmp_path.rglob('*Track*'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGKILL', 'SIGINT', 'SIGTERM'])
def test_a_build_killed_at_any_time_resumes_to_the_same_bytes(tmp_path, name):
  for seed in range(6):
    rng = np.random.default_rng(seed)
    rows = [
      (i * 0.4, i * 0.4 + 0.35, 48 + rng.integers(24), 90, program, 0) for i in range(60) for program in (0, 24, 73)
    ]
    write_midi(as_notes(rows), tmp_path / 'songs' / f'{"abcdef"[seed]}.mid')

  def command(out, workers):
    options = ['--midi', str(tmp_path / 'songs'), '--seconds', '20', '--workers', str(workers)]
    return [sys.executable, '-m', 'mrmt3', 'dataset', 'build', str(out), *options]

  def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}

  subprocess.run(command(tmp_path / 'whole', 1), check=True, capture_output=True)
  whole = contents(tmp_path / 'whole')
  for seconds in (2, 3, 4):
    with subprocess.Popen(command(tmp_path / 'set', 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
      time.sleep(seconds)
      process.send_signal(getattr(signal, name))
    for folder in (tmp_path / 'set').glob('*/Track*'):
      part = {path: data for path, data in whole.items() if path.parts[:2] == folder.parts[-2:]}
      assert part == {path: data for path, data in contents(tmp_path / 'set').items() if path in part}
  subprocess.run(command(tmp_path / 'set', 2), check=True, capture_output=True)
  assert contents(tmp_path / 'set') == whole
