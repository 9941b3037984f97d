"""Audio files of many formats, whole and aborted, for tests."""

import numpy as np
import soundfile

RATE = 44100
# container -> (FFmpeg's name of the format, codec, sample rate)
CONTAINERS = {
  '.m4a': ('ipod', 'aac', RATE),
  '.mp4': ('mp4', 'aac', RATE),
  '.3gp': ('3gp', 'aac', RATE),
  '.flv': ('flv', 'aac', RATE),
  '.ts': ('mpegts', 'aac', RATE),
  '.aac': ('adts', 'aac', RATE),
  '.avi': ('avi', 'mp3', RATE),
  '.mov': ('mov', 'aac', RATE),
  '.webm': ('webm', 'libopus', 48000),
  '.mka': ('matroska', 'libopus', 48000),
  '.opus': ('ogg', 'libopus', 48000),
}


def tone(seconds=2.0, rate=RATE, hertz=440.0, peak=0.5):
  """Return a sine, float32 `[n]`."""
  return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(path, samples, container, tracks=1):
  """Write mono samples at 44.1 kHz as stereo with PyAV; `container` is a key of CONTAINERS."""
  import av

  form, codec, rate = CONTAINERS[container]
  with av.open(str(path), 'w', format=form) as file:
    for stream in [file.add_stream(codec, rate=rate, layout='stereo') for _ in range(tracks)]:
      convert = av.AudioResampler(stream.format.name, 'stereo', rate)
      for start in range(0, len(samples), 1024):
        part = np.ascontiguousarray(np.stack([samples[start : start + 1024]] * 2))
        frame = av.AudioFrame.from_ndarray(part, format='fltp', layout='stereo')
        frame.sample_rate, frame.pts = RATE, start
        for piece in convert.resample(frame):
          file.mux(stream.encode(piece))
      for piece in convert.resample(None):
        file.mux(stream.encode(piece))
      file.mux(stream.encode(None))
  return path


def write(path, samples, rate=RATE, **options):
  """Write samples with libsndfile and return the path."""
  soundfile.write(path, samples, rate, **options)
  return path


def wav_of_size_zero(path, samples):
  """Write a wav file whose header was never completed."""
  data = bytearray(write(path, samples).read_bytes())
  at = data.index(b'data') + 4
  data[at : at + 4] = data[4:8] = bytes(4)
  path.write_bytes(data)
  return path


def flac_of_unknown_length(path, samples):
  """Write a FLAC file as an encoder writes it to a pipe: without the number of samples."""
  data = bytearray(write(path, samples, format='FLAC').read_bytes())
  data[21] &= 0xF0  # the 36-bit count starts in the low half of byte 21
  data[22:26] = bytes(4)
  path.write_bytes(data)
  return path


def pitch(samples, rate=16000):
  """Return the frequency of the strongest partial, Hz."""
  return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * rate / len(samples)
