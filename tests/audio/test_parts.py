"""Wav files with wrong lengths, joined recordings, and when the sound of other containers begins."""

import struct
import warnings

import numpy as np
import odd_audio
import pytest
import soundfile

from mrmt3.audio import files as audio_files
from mrmt3.audio import parts
from mrmt3.errors import DataWarning, UserError

RATE = 16000
FORMAT = struct.pack('<HHIIHH', 1, 1, RATE, 2 * RATE, 2, 16)


def read(source, **options):
  """Return (samples, messages of the warnings) of a path or of bytes."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', DataWarning)
    if isinstance(source, bytes):
      samples = audio_files.decode_audio(source, 'a record', **options)
    else:
      samples = audio_files.read_audio(source, **options)
  return samples, [str(warning.message) for warning in caught]


def pcm(seconds=2.0, hertz=440.0):
  return (odd_audio.tone(seconds, RATE, hertz) * 32767).astype('<i2').tobytes()


def wav(data, length=None, before=b'', after=b'', name=b'RIFF', form=FORMAT):
  body = b'WAVE' + before + b'fmt ' + struct.pack('<I', len(form)) + form
  body += b'data' + struct.pack('<I', len(data) if length is None else length) + data + after
  total = 0xFFFFFFFF if name == b'RF64' else len(body)
  return name + struct.pack('<I', total) + body


def ds64(data):
  return b'ds64' + struct.pack('<IQQQI', 28, data + 100 if data else 0, data, 0, 0)


@pytest.mark.parametrize('as_bytes', [False, True])
@pytest.mark.parametrize(
  ('data', 'words'),
  [
    (wav(pcm(), 1000), 'has a wrong length in its header (0.0 s); all 2.0 s'),
    (wav(pcm(), len(pcm()) // 2), 'has a wrong length in its header (1.0 s); all 2.0 s'),
    (wav(pcm(), 0xFFFFFFFF, ds64(len(pcm()) // 4), name=b'RF64'), 'has a wrong length in its header (0.5 s)'),
    (wav(pcm(), 0), ''),
    (wav(pcm(), 0xFFFFFFFF), ''),
    (wav(pcm(), 0x7FFFFFFF), ''),
    (wav(pcm(), 0xFFFFFFFF, ds64(len(pcm())), name=b'RF64'), ''),
    (wav(pcm(), 0xFFFFFFFF, ds64(0), name=b'RF64'), ''),
    (wav(pcm(), before=b'LIST\5\0\0\0INFO!'), ''),  # without the padding byte
    (wav(pcm(), before=b'LIST\5\0\0\0INFO!\0'), ''),
    (wav(pcm(), after=b'LIST\4\0\0\0INFO'), ''),
    (wav(pcm(), after=b'id3 ' + struct.pack('<I', 60000) + b'ID3\3' + bytes(59996)), ''),
    (wav(pcm(), after=bytes(4096)), ''),
  ],
)
def test_wav_files_with_wrong_lengths(tmp_path, data, words, as_bytes):
  path = tmp_path / 'a.wav'
  path.write_bytes(data)
  samples, lines = read(data if as_bytes else path)
  np.testing.assert_allclose(samples, odd_audio.tone(2.0, RATE), atol=1e-4)
  assert len(lines) == bool(words) and words in ''.join(lines)


@pytest.mark.parametrize(('channels', 'rate'), [(0, RATE), (1, 0)])
def test_wav_files_without_channels_or_rate(tmp_path, channels, rate):
  path = tmp_path / 'a.wav'
  path.write_bytes(wav(pcm(), form=struct.pack('<HHIIHH', 1, channels, rate, 0, 0, 16)))
  with pytest.raises(UserError, match=f'header names {channels} channels at {rate} Hz'):
    audio_files.read_audio(path)


def test_an_empty_wav_file_with_other_chunks(tmp_path):
  path = tmp_path / 'a.wav'
  path.write_bytes(wav(b'', after=b'LIST\4\0\0\0INFO'))
  with pytest.raises(UserError, match='no audio samples'):
    audio_files.read_audio(path)


@pytest.mark.parametrize('suffix', ['.ogg', '.opus', '.mp3'])
@pytest.mark.parametrize('second_rate', [44100, 24000])
def test_recordings_that_were_joined(tmp_path, suffix, second_rate):
  halves = []
  for hertz, rate in ((440, 44100), (880, second_rate), (660, 44100)):
    path = tmp_path / f'{hertz}{suffix}'
    if suffix == '.opus':
      rate = 48000 if rate == 44100 else 24000
    options = {'format': 'OGG', 'subtype': 'OPUS'} if suffix == '.opus' else {}
    soundfile.write(path, np.stack([odd_audio.tone(1.0, rate, hertz)] * 2, 1), rate, **options)
    halves.append(path.read_bytes())
  tag = b'ID3\3\0\0\0\0\x07\x68' + bytes(1000) if suffix == '.mp3' else b''
  path = tmp_path / f'joined{suffix}'
  path.write_bytes(tag + halves[0] + halves[1] + tag + halves[2])
  samples, lines = read(path, whole=True)
  assert not lines and len(samples) == pytest.approx(3 * RATE, abs=0.06 * RATE)
  for index, hertz in enumerate((440, 880, 660)):
    middle = samples[index * RATE + 3200 : (index + 1) * RATE - 3200]
    assert odd_audio.pitch(middle) == pytest.approx(hertz, abs=3)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.06)
  np.testing.assert_array_equal(read(path.read_bytes())[0], samples)
  assert audio_files.promised_seconds(path) == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize('suffix', ['.ogg', '.mp3', '.flac', '.wav'])
def test_most_files_are_read_as_they_are(tmp_path, suffix):
  path = odd_audio.write(tmp_path / f'a{suffix}', odd_audio.tone())
  assert parts.find_parts(path) == ([], '')
  path.write_bytes(path.read_bytes() + b'TAG' + bytes(125))  # ID3v1
  assert parts.find_parts(path) == ([], '')


def encode(path, form, codec, delay=0.0, has_picture=False):
  """Write a second of a tone, `delay` s after the start, with a picture if asked for."""
  import av

  with av.open(str(path), 'w', format=form) as file:
    if has_picture:
      picture = file.add_stream('mpeg4', rate=25)
      picture.width = picture.height = 64
      picture.pix_fmt = 'yuv420p'
    sound = file.add_stream(codec, rate=odd_audio.RATE, layout='mono')
    if has_picture:
      for index in range(60):
        frame = av.VideoFrame(64, 64, 'yuv420p')
        frame.pts = index
        file.mux(picture.encode(frame))
      file.mux(picture.encode(None))
    convert = av.AudioResampler(sound.format.name, 'mono', odd_audio.RATE)
    tone = odd_audio.tone(1.0)
    for start in range(0, len(tone), 1024):
      frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format='fltp', layout='mono')
      frame.sample_rate, frame.pts = odd_audio.RATE, start + round(delay * odd_audio.RATE)
      for piece in convert.resample(frame):
        file.mux(sound.encode(piece))
    for piece in convert.resample(None):
      file.mux(sound.encode(piece))
    file.mux(sound.encode(None))
  return path


@pytest.mark.parametrize(
  ('form', 'codec'),
  [
    *[(form, 'aac') for form in ('adts', 'mpegts', 'flv', 'mp4', 'mov', 'matroska', 'avi', 'nut')],
    *[(form, 'mp3') for form in ('mpegts', 'flv', 'avi', 'asf', 'mp4', 'matroska')],
    *[('mpegts', 'mp2'), ('mpeg', 'mp2'), ('mpegts', 'ac3')],
  ],
)
def test_the_sound_begins_where_it_was_recorded(tmp_path, form, codec):
  pytest.importorskip('av')
  samples, lines = read(encode(tmp_path / 'a', form, codec), whole=True)
  assert not lines
  assert np.argmax(np.abs(samples) > 0.02) / RATE < 0.002
  assert len(samples) == pytest.approx(RATE, abs=0.03 * RATE)


@pytest.mark.parametrize('form', ['mp4', 'matroska', 'mpegts'])
def test_the_time_of_sound_is_that_of_the_picture(tmp_path, form):
  pytest.importorskip('av')
  samples, lines = read(encode(tmp_path / 'a', form, 'aac', delay=0.5, has_picture=True))
  assert np.argmax(np.abs(samples) > 0.02) / RATE == pytest.approx(0.5, abs=0.003)
  assert len(lines) == 1 and 'silence is put in front' in lines[0]
  samples, lines = read(encode(tmp_path / 'b', form, 'aac', has_picture=True))
  assert np.argmax(np.abs(samples) > 0.02) / RATE < 0.003 and not lines
