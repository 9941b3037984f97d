"""Audio formats that libsndfile does not read (m4a, aac, wma, video soundtracks), decoded with PyAV's FFmpeg."""

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# FFmpeg's names of the formats whose headers state the length. For the others it estimates one.
_LENGTH_IN_HEADER = {'mov', 'matroska', 'avi', 'flv', 'asf', 'wav', 'flac', 'aiff', 'caf'}
# Bare streams of packets: FFmpeg counts packets to tell the time, so a damaged stretch has the time of one packet.
_WITHOUT_TIMES = {'mp3', 'aac'}
# The containers that do not state how many samples an encoder put in front, and the number that all encoders do.
_WITHOUT_PRIMING = {'aac', 'mpegts', 'mpeg', 'flv', 'avi', 'asf', 'nut'}
_PRIMING = {'aac': 1024, 'mp3': 1105, 'mp3float': 1105, 'mp2': 481, 'mp2float': 481, 'ac3': 256, 'eac3': 256}
_MAX_LEAD = 0.1  # s of sound before the picture that are priming
_LONGEST_GAP = 60  # s of silence in place of damaged packets; a damaged time stamp can be anything
# A playlist or a script is no audio file; it may name other files and servers.
_OPTIONS = {'protocol_whitelist': 'none'}


class FfmpegFile:
  """An open audio file; `audio.libsndfile.SndFile` has the same interface.

  Attributes:
    samplerate: Hz.
    container: FFmpeg's name of the format.
    frames: length in the file's header, or FFmpeg's estimate, in frames; 0 if there is none.
    declared_frames: length in the file's header; 0 if it has none.
    is_float: whether samples are stored as floats, so that they can exceed full scale by far.
    notes: oddities of the file, each a clause.
    damage: what could not be decoded, a clause; '' until it is met.
  """

  def __init__(self, source: Path | io.BytesIO):
    """Open audio.

    Raises:
      ValueError: it has no audio stream or cannot be decoded.
      ModuleNotFoundError: PyAV is not installed.
    """
    import av

    av.logging.set_level(av.logging.PANIC)
    self.notes, self.damage = [], ''
    self._file = open(source, 'rb') if isinstance(source, Path) else source  # noqa: SIM115 - closed by __exit__
    try:
      # FFmpeg would take a path for an address (12:30.m4a) and its suffix for the format.
      self._container = av.open(_Nameless(self._file), metadata_errors='replace', options=_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
      reason = _incomplete_mp4(self._file) or error.strerror or str(error)
      self._close_file()
      raise ValueError(reason) from error
    streams = self._container.streams.audio
    # A stream in a format unknown to FFmpeg has no codec.
    stream = next((each for each in streams if each.codec_context is not None and each.rate), None)
    if stream is None:
      self.__exit__()
      raise ValueError('its audio is in an unknown format' if streams else 'it has no audio stream')
    if len(streams) > 1:
      self.notes.append(f'has {len(streams)} audio tracks; number {streams.index(stream) + 1} is used')
    self.samplerate, self.container = stream.rate, self._container.format.name
    self.is_float = stream.codec_context.name.startswith('pcm_f')
    seconds = 0
    if stream.duration and stream.time_base:
      seconds = float(stream.duration * stream.time_base)
    elif self._container.duration and not self._container.streams.video:  # a video may be longer than its sound
      seconds = self._container.duration / 1e6
    self._lead = _lead(self._container, stream)
    if self._lead > 0:
      self.notes.append(f'has sound from {self._lead:.2f} s on; silence is put in front')
    self.frames = max(0, int((seconds + self._lead) * stream.rate)) if seconds else 0
    known = _LENGTH_IN_HEADER & set(self.container.split(','))
    self.declared_frames = self.frames if known else 0
    self._blocks = self._aligned_blocks(av, stream)
    self._buffer = np.zeros((0, 1), np.float32)

  def read(self, frames: int) -> np.ndarray:
    """Return the next `frames` frames, or fewer at the end, as float32 `[frames, channels]`."""
    parts, count = [self._buffer], len(self._buffer)
    while count < frames and (block := next(self._blocks, None)) is not None:
      parts.append(block)
      count += len(block)
    # If the number of channels changes within the file, keep the first block's.
    parts = [part for part in parts if len(part)] or [self._buffer]
    channels = parts[0].shape[1]
    samples = np.concatenate(
      [p if p.shape[1] == channels else p.mean(1, keepdims=True).repeat(channels, 1) for p in parts]
    )
    self._buffer = samples[frames:]
    return samples[:frames]

  def _aligned_blocks(self, av, stream) -> Iterator[np.ndarray]:
    """Yield the samples, float32 `[n, channels]` each, from the start of the file's time on."""
    lead = round(self._lead * self.samplerate)
    for block in self._decoded_blocks(av, stream):
      if lead > 0:
        yield np.zeros((lead, block.shape[1]), np.float32)
        lead = 0
      skipped = min(-lead, len(block))
      lead += skipped
      yield block[skipped:]

  def _decoded_blocks(self, av, stream) -> Iterator[np.ndarray]:
    """Yield the samples, float32 `[n, channels]` each. Packets that cannot be decoded become silence."""
    resampler, form, is_timed = None, None, self.container not in _WITHOUT_TIMES
    count, start, damaged, lost = 0, None, 0, 0  # `damaged` counts bytes
    decoded_bytes = decoded_frames = 0
    for packet in _until_error(self._container.demux(stream), av):
      try:
        decoded = packet.decode()
      except (av.FFmpegError, ValueError):
        damaged, lost = damaged + packet.size, lost + 1
        continue
      for frame in decoded:
        # Packets may differ in sample rate, type and channels; convert all of them to one rate and type.
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
          if resampler is not None:
            yield from map(_samples, resampler.resample(None))
          resampler = av.AudioResampler(format='fltp', rate=self.samplerate)
        if frame.time is not None:
          start = frame.time if start is None else start
          if is_timed:
            missing = round((frame.time - start) * self.samplerate) - count
          else:
            missing = round(damaged * decoded_frames / max(1, decoded_bytes))
          if damaged and 0 < missing <= _LONGEST_GAP * self.samplerate:
            yield np.zeros((missing, len(frame.layout.channels)), np.float32)
            count += missing
        damaged = 0
        for part in map(_samples, resampler.resample(frame)):
          count += len(part)
          decoded_frames += len(part)
          yield part
      decoded_bytes += packet.size
    if resampler is not None:
      yield from map(_samples, resampler.resample(None))
    if lost:
      self.damage = f'{lost} packets cannot be decoded'

  def _close_file(self):
    if isinstance(self._file, io.BufferedReader):
      self._file.close()

  def __enter__(self) -> 'FfmpegFile':
    return self

  def __exit__(self, *exception) -> None:
    self._container.close()
    self._close_file()


def _lead(container, stream):
  """Return how much later than the file a stream begins, s; negative: that much of its start is no sound."""
  lead = 0.0
  pictures = [each for each in container.streams.video if not _is_cover(each) and each.start_time is not None]
  if pictures and stream.start_time is not None:
    lead = float(stream.start_time * stream.time_base - pictures[0].start_time * pictures[0].time_base)
    lead = 0.0 if lead > _LONGEST_GAP or lead < -_MAX_LEAD or abs(lead) < 0.001 else lead
  priming = _PRIMING.get(stream.codec_context.name, 0) / stream.rate
  return min(lead, -priming) if lead <= 0 and container.format.name in _WITHOUT_PRIMING else max(lead, 0.0)


def _is_cover(stream):
  return bool(stream.disposition & stream.disposition.attached_pic)


class _Nameless:
  """A binary file without its name, so that FFmpeg goes by its content alone."""

  def __init__(self, file):
    file.seek(0)
    self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _until_error(packets, av):
  """Yield packets; an error of the container ends it as the end of the file does."""
  while True:
    try:
      packet = next(packets)
    except (StopIteration, av.FFmpegError):
      return
    yield packet


def _samples(frame):
  return frame.to_ndarray().T.astype(np.float32)


def _incomplete_mp4(file) -> str:
  """Return what is wrong with an MP4 file that lacks its index, or ''."""
  size, place, kinds = file.seek(0, os.SEEK_END), 0, []
  while place < size and len(kinds) < 1000:
    file.seek(place)
    header = file.read(16)
    if len(header) < 8:
      break
    length, kind = struct.unpack('>I4s', header[:8])
    if length == 1 and len(header) == 16:
      length = struct.unpack('>Q', header[8:])[0]
    kinds.append(kind)
    place += length if length >= 8 else size
  if kinds[:1] != [b'ftyp'] or b'moov' in kinds:
    return ''
  return 'its index (moov) is missing: the recording or download was aborted'
