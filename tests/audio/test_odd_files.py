"""Files of other formats than their suffix says, of unknown length, aborted or damaged, and other odd files."""

import os
import subprocess
import sys
import warnings

import numpy as np
import odd_audio
import pytest
from paths import ROOT

from mrmt3.audio import files as audio_files
from mrmt3.audio import formats
from mrmt3.errors import DataWarning, UserError


def read(path, **options):
  """Return (samples, messages of the warnings)."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    samples = audio_files.read_audio(path, **options)
  assert all(warning.category is DataWarning for warning in caught)
  return samples, [str(warning.message) for warning in caught]


@pytest.mark.parametrize('suffix', sorted(odd_audio.CONTAINERS))
def test_ffmpegs_formats_under_any_suffix(tmp_path, suffix):
  pytest.importorskip('av')
  path = odd_audio.encode(tmp_path / f'a{suffix}', odd_audio.tone(), suffix)
  assert suffix in formats.AUDIO_SUFFIXES
  for name in (path.name, 'a.wav', 'a.mp3', 'a.strange', 'a', '12:30.m4a', 'http:a.m4a'):
    samples, lines = read(path.rename(tmp_path / name))
    path = tmp_path / name
    assert abs(len(samples) - 32000) < 1600 and not lines, name
    assert abs(odd_audio.pitch(samples[4000:28000]) - 440) < 3
    assert np.abs(samples[4000:28000]).max() == pytest.approx(0.5, abs=0.08)
  assert len(audio_files.decode_audio(path.read_bytes(), 'a record')) == len(samples)


def test_a_header_without_the_length(tmp_path):
  pytest.importorskip('av')
  tone = odd_audio.tone()
  for path in (
    odd_audio.wav_of_size_zero(tmp_path / 'a.wav', tone),
    odd_audio.flac_of_unknown_length(tmp_path / 'a.flac', tone),
  ):
    samples, lines = read(path, whole=True)
    assert len(samples) == 32000 and not lines
    np.testing.assert_allclose(samples[800:-800], odd_audio.tone(rate=16000)[800:-800], atol=1e-3)


def test_a_flac_file_of_unknown_length_without_pyav(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  samples, _ = read(odd_audio.flac_of_unknown_length(tmp_path / 'a.flac', odd_audio.tone()))
  assert len(samples) == 32000


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.mp3', '.webm', '.flv', '.ts', '.opus', '.mka'])
def test_an_aborted_file_is_read_as_far_as_it_goes_and_said_to_be(tmp_path, suffix):
  pytest.importorskip('av')
  path, tone = tmp_path / f'a{suffix}', odd_audio.tone(6)
  if suffix in odd_audio.CONTAINERS:
    odd_audio.encode(path, tone, suffix)
  else:
    odd_audio.write(path, tone)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) * 2 // 3])
  samples, lines = read(path)
  assert len(samples) == pytest.approx(4 * 16000, rel=0.06)
  assert abs(odd_audio.pitch(samples) - 440) < 3
  if suffix == '.opus':  # an ogg file does not state its length
    assert not lines
    return
  assert len(lines) == 1 and str(path) in lines[0] and 'can be read' in lines[0]
  with pytest.raises(UserError, match=r'truncated or damaged|is damaged'):
    read(path, whole=True)


def test_the_rest_after_damage_keeps_its_time(tmp_path):
  pytest.importorskip('av')
  tone = np.concatenate([odd_audio.tone(3, hertz=440), odd_audio.tone(3, hertz=880)])
  for suffix in ('.mp3', '.flac', '.ts'):
    path = tmp_path / f'a{suffix}'
    if suffix == '.ts':
      odd_audio.encode(path, tone, suffix)
    else:
      odd_audio.write(path, tone)
    sound = path.read_bytes()
    at, size = len(sound) // 4, len(sound) // 50
    for seed in range(6):  # of two mp3 files libsndfile reads the first 1.3 s and reports no error
      path.write_bytes(sound[:at] + np.random.default_rng(seed).bytes(size) + sound[at + size :])
      samples, lines = read(path)
      assert len(samples) == pytest.approx(6 * 16000, abs=4000)
      assert len(lines) == 1 and 'damaged' in lines[0]
      assert abs(odd_audio.pitch(samples[int(3.4 * 16000) : int(5.6 * 16000)]) - 880) < 3
      assert abs(odd_audio.pitch(samples[int(2.2 * 16000) : int(2.7 * 16000)]) - 440) < 5


def test_an_mp4_file_without_its_index(tmp_path):
  pytest.importorskip('av')
  path = odd_audio.encode(tmp_path / 'a.m4a', odd_audio.tone(), '.m4a')
  path.write_bytes(path.read_bytes()[:9000])
  with pytest.raises(UserError, match='moov') as caught:
    read(path)
  assert 'exist' not in str(caught.value)


def test_an_existing_file_is_never_said_to_be_missing(tmp_path):
  contents = {'empty': b'', 'zeros': bytes(5000), 'text': b'I am no sound\n' * 99, 'noise': os.urandom(100_000)}
  contents |= {'riff': b'RIFF\x24\0\0\0WAVE', 'mp3': b'\xff\xfb\x90' + bytes(300), 'page': b'<html></html>'}
  for name, data in contents.items():
    for suffix in ('.wav', '.mp3', '.m4a', '.raw', '.ogg', '.xyz'):
      path = tmp_path / (name + suffix)
      path.write_bytes(data)
      with pytest.raises(UserError) as caught:
        audio_files.read_audio(path)
      message = str(caught.value)
      assert str(path) in message and '\n' not in message
      message = message.replace(str(path), '').lower()
      assert 'exist' not in message and 'no such' not in message and (name != 'empty' or '(it is empty)' in message)


def test_a_playlist_opens_no_other_file(tmp_path):
  pytest.importorskip('av')
  odd_audio.encode(tmp_path / 'a.ts', odd_audio.tone(), '.ts')
  lists = {
    'a.m3u8': f'#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n',
    'b.txt': f"ffconcat version 1.0\nfile '{tmp_path}/a.ts'\n",
  }
  for name, text in lists.items():
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r'as audio|no audio samples'):
      audio_files.read_audio(tmp_path / name)


def test_several_audio_tracks(tmp_path):
  pytest.importorskip('av')
  path = odd_audio.encode(tmp_path / 'a.mka', odd_audio.tone(), '.mka', tracks=2)
  assert read(path)[1] == [f'{path} has 2 audio tracks; number 1 is used']


def test_without_pyav_the_package_is_named(tmp_path, monkeypatch):
  path = tmp_path / 'a.wav'
  path.write_bytes(b'\0\0\0\x20ftypM4A ')
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(UserError, match=r'mrmt3\[m4a\]'):
    audio_files.read_audio(path)


def test_links_and_missing_files(tmp_path):
  (tmp_path / 'dangling.wav').symlink_to(tmp_path / 'gone.wav')
  (tmp_path / 'loop.wav').symlink_to(tmp_path / 'loop.wav')
  (tmp_path / 'file').touch()
  for name, message in (
    ('dangling.wav', 'is a link to .*gone.wav, which does not exist'),
    ('loop.wav', 'cannot read'),
    ('none.wav', 'no such file'),
    ('file/a.wav', 'no such file'),
  ):
    with pytest.raises(UserError, match=message):
      audio_files.read_audio(tmp_path / name)


def test_a_name_that_is_not_utf8(tmp_path):
  pytest.importorskip('av')
  odd = os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9')
  odd_audio.write(tmp_path / 'a.wav', odd_audio.tone()).rename(odd + '.wav')
  odd_audio.encode(tmp_path / 'a.m4a', odd_audio.tone(), '.m4a').rename(odd + '.m4a')
  for suffix in ('.wav', '.m4a'):
    assert len(audio_files.read_audio(odd + suffix)) > 31000
  audio_files.write_audio(odd + '.flac', odd_audio.tone(rate=16000))
  assert len(audio_files.read_audio(odd + '.flac')) == 32000


def test_bytes_of_a_file_are_read_as_the_file(tmp_path):
  path = odd_audio.write(tmp_path / 'a.wav', 20000 * odd_audio.tone(), subtype='FLOAT')
  with pytest.warns(DataWarning, match='16-bit'):
    samples = audio_files.decode_audio(path.read_bytes(), 'a record')
  assert len(samples) == 32000


def test_the_mp3_decoders_noise_is_not_written(tmp_path):
  path = odd_audio.write(tmp_path / 'a.mp3', odd_audio.tone())
  data = path.read_bytes()
  path.write_bytes(data[:4000] + bytes(3000) + data[4000:9000])
  code = f"""
import os, sys, warnings
from mrmt3.audio import files
warnings.simplefilter('ignore')
print(len(files.read_audio({str(path)!r})), files.promised_seconds({str(path)!r}))
os.write(2, b'ours')
"""
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr) == (0, 'ours') and int(done.stdout.split()[0]) > 1000
