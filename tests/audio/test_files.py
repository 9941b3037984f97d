import os
import resource

import numpy as np
import pytest
import soundfile

from mrmt3.audio import files as audio_files
from mrmt3.errors import UserError


def tone(seconds=0.5, rate=16000, hertz=440.0):
  return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg', '.mp3', '.aiff'])
def test_reads_every_supported_format(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  audio_files.write_audio(path, tone())
  samples = audio_files.read_audio(path)
  assert samples.dtype == np.float32 and samples.ndim == 1
  peak = np.abs(np.fft.rfft(samples[: len(tone())])).argmax() / (len(tone()) / 16000)
  assert abs(peak - 440) <= 2
  assert np.abs(samples).max() == pytest.approx(0.5, abs=0.06)


def test_sixteen_bit_round_trip_is_exact(tmp_path):
  samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.float32) / 32768
  for suffix in ('.wav', '.flac'):
    audio_files.write_audio(tmp_path / f'a{suffix}', samples)
    np.testing.assert_array_equal(audio_files.read_audio(tmp_path / f'a{suffix}'), samples)


def test_channels_are_averaged(tmp_path):
  left, right = tone(hertz=300), tone(hertz=1000)
  soundfile.write(tmp_path / 'a.wav', np.stack([left, right, np.zeros_like(left)], 1), 16000, subtype='FLOAT')
  np.testing.assert_allclose(audio_files.read_audio(tmp_path / 'a.wav'), (left + right) / 3, atol=1e-7)


@pytest.mark.parametrize('rate', [8000, 11025, 44100, 48000])
def test_other_sample_rates_give_the_same_signal(tmp_path, rate):
  soundfile.write(tmp_path / 'a.wav', tone(0.7, rate), rate, subtype='FLOAT')
  samples = audio_files.read_audio(tmp_path / 'a.wav')
  assert len(samples) == np.ceil(round(0.7 * rate) * 16000 / rate)
  middle = slice(800, 10000)  # without the filter's edges
  np.testing.assert_allclose(samples[middle], tone(0.7)[middle], atol=1e-3)


@pytest.mark.slow  # importing librosa takes seconds
@pytest.mark.parametrize('rate', [8000, 22050, 44100])
def test_resampling_equals_librosa(rate):
  import librosa

  samples = np.random.default_rng(1).normal(size=12345).astype(np.float32)
  expected = librosa.resample(samples, orig_sr=rate, target_sr=16000, res_type='soxr_hq')
  np.testing.assert_array_equal(audio_files.resample(samples, rate, 16000), expected)


def test_long_files_are_read_in_blocks(tmp_path, monkeypatch):
  monkeypatch.setattr(audio_files, '_BLOCK_FRAMES', 1000)
  samples = tone(0.4567)
  soundfile.write(tmp_path / 'a.wav', samples, 16000, subtype='FLOAT')
  np.testing.assert_array_equal(audio_files.read_audio(tmp_path / 'a.wav'), samples)


def bad_file(kind, folder):
  path = folder / f'{kind}.wav'
  if kind == 'folder':
    path.mkdir()
  elif kind == 'pipe':
    os.mkfifo(path)
  elif kind == 'text':
    path.write_text('I am not a sound.\n' * 50)
  elif kind == 'empty':
    path.touch()
  elif kind == 'headerless':
    path = folder / 'a.raw'
    path.write_bytes(bytes(1000))
  elif kind == 'silent':
    soundfile.write(path, np.zeros(0, np.float32), 16000)
  elif kind in ('nan', 'infinite'):
    samples = tone()
    samples[1600] = {'nan': np.nan, 'infinite': -np.inf}[kind]
    soundfile.write(path, samples, 16000, subtype='FLOAT')
  elif kind == 'long name':
    path = folder / ('x' * 5000)
  return path


@pytest.mark.parametrize(
  'kind, expected',
  [
    ('missing', 'no such file'),
    ('folder', 'is a folder'),
    ('pipe', 'not a regular file'),
    ('text', 'as audio'),
    ('empty', 'as audio'),
    ('headerless', 'as audio'),
    ('silent', 'no audio samples'),
    ('nan', 'first at 0.100 s'),
    ('infinite', 'first at 0.100 s'),
    ('long name', ''),
  ],
)
def test_bad_input_is_one_clear_line(tmp_path, kind, expected):
  path = bad_file(kind, tmp_path)
  with pytest.raises(UserError) as caught:
    audio_files.read_audio(path)
  message = str(caught.value)
  assert expected in message and str(path) in message and '\n' not in message


def test_a_header_with_a_wrong_length_is_harmless(tmp_path):
  path = tmp_path / 'a.flac'
  audio_files.write_audio(path, tone())
  data = bytearray(path.read_bytes())
  data[21] |= 0x0F  # FLAC's 36-bit count of samples starts in the low half of byte 21
  data[22:26] = b'\xff' * 4
  path.write_bytes(data)
  try:
    assert len(audio_files.read_audio(path)) <= len(tone())
  except UserError as error:
    assert str(path) in str(error)


def test_loud_samples_are_clipped(tmp_path):
  audio_files.write_audio(tmp_path / 'a.wav', np.array([2.0, -3.0, 0.25]))
  np.testing.assert_allclose(audio_files.read_audio(tmp_path / 'a.wav'), [1, -1, 0.25], atol=1e-4)


def test_writing_fails_cleanly(tmp_path):
  (tmp_path / 'file').touch()
  for path, expected in [
    (tmp_path / 'a.xyz', 'unknown audio format'),
    (tmp_path / 'a', 'unknown audio format'),
    (tmp_path / 'file' / 'a.wav', 'cannot make the folder'),
  ]:
    with pytest.raises(UserError, match=expected):
      audio_files.write_audio(path, tone())
  for samples in (np.array([0, np.nan]), np.zeros((2, 2, 2))):
    with pytest.raises(ValueError, match='finite'):
      audio_files.write_audio(tmp_path / 'a.wav', samples)
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_full_disk_leaves_the_old_file(tmp_path):
  path = tmp_path / 'a.wav'
  audio_files.write_audio(path, tone())
  before = path.read_bytes()
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
  try:
    with pytest.raises(UserError, match='cannot write'):
      audio_files.write_audio(path, tone(5))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('rate', [8000, 16000, 44100, 192000])
def test_files_are_converted_in_blocks_to_the_same_samples(tmp_path, monkeypatch, rate):
  samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate + 17, 2)).astype(np.float32)
  soundfile.write(tmp_path / 'x.wav', samples, rate, subtype='FLOAT')
  whole = audio_files.resample(samples.mean(axis=1), rate, 16000)
  np.testing.assert_array_equal(audio_files.read_audio(tmp_path / 'x.wav'), whole)
  monkeypatch.setattr(audio_files, '_BLOCK_FRAMES', 1000)
  blocks = list(audio_files.audio_blocks(tmp_path / 'x.wav'))
  assert len(blocks) > 8
  np.testing.assert_array_equal(np.concatenate(blocks), whole)
  assert len(whole) == -(-len(samples) * 16000 // rate)


def test_time_of_a_bad_sample_in_a_later_block(tmp_path, monkeypatch):
  monkeypatch.setattr(audio_files, '_BLOCK_FRAMES', 1000)
  samples = np.zeros((4000, 8), np.float32)
  samples[3000, 5] = np.inf
  soundfile.write(tmp_path / 'x.wav', samples, 8000, subtype='FLOAT')
  with pytest.raises(UserError, match=r'first at 0\.375 s'):
    audio_files.read_audio(tmp_path / 'x.wav')


@pytest.mark.parametrize('suffix', ['.wav', '.flac', '.ogg', '.mp3'])
def test_a_truncated_file_is_an_error_with_whole(tmp_path, suffix):
  path = tmp_path / f'a{suffix}'
  samples = 0.1 * np.random.default_rng(0).standard_normal(160000).astype(np.float32)
  soundfile.write(path, samples, 16000)
  assert len(audio_files.read_audio(path, whole=True)) == len(audio_files.read_audio(path)) == 160000
  data = path.read_bytes()
  if suffix == '.ogg':  # the length is at the end of an ogg file, so damage its middle
    path.write_bytes(data[: len(data) // 2] + bytes(20000) + data[len(data) // 2 + 20000 :])
  else:
    path.write_bytes(data[: len(data) // 2])
  with pytest.raises(UserError, match=r'truncated or damaged|cannot read'):
    audio_files.read_audio(path, whole=True)
  if suffix != '.flac':
    assert 0 < len(audio_files.read_audio(path)) < 160000


@pytest.mark.parametrize('size', [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_with_the_header_of_a_pipe_is_complete(tmp_path, size):
  path = tmp_path / 'a.wav'
  soundfile.write(path, np.zeros(1600, np.float32) + 0.1, 16000)
  data = bytearray(path.read_bytes())
  at = data.index(b'data') + 4
  data[at : at + 4] = size.to_bytes(4, 'little')
  data[4:8] = size.to_bytes(4, 'little')
  path.write_bytes(data)
  assert len(audio_files.read_audio(path, whole=True)) == 1600
