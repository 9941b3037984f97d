"""Plays notes with the prepared samples of one preset.

A note is rendered once per (stored note, pitch, length class, brightness) and cached: the stored note nearest to the
pitch is continued through its loop to the length class, then resampled to the pitch. Playing it is a cut, a release and
an addition. Notes with expression are read at a varying rate from a copy at twice the sample rate.
"""

import collections

import numpy as np

from mrmt3.dataset_builder.performance import has_expression, pitch_offsets
from mrmt3.dataset_builder.sound_checks import RATE
from mrmt3.dataset_builder.sound_store import PreparedSource, PresetEntry, ZoneEntry

MAX_TRANSPOSITION = 5  # semitones by which a stored note may be moved
_CACHE_BYTES = 48 * 2**20
_VELOCITY_EXPONENT = 1.6  # amplitude grows with velocity to this power
_SOFT_VELOCITY, _SOFT_HARMONICS = 48, 5.0  # below it, sources with one velocity sound darker
_FADE = round(0.02 * RATE)
_SHORTEST_CLASS = 0.5  # s; length classes double from here
_MIN_RELEASE = 0.015  # s


class SampledVoice:
  """One preset of a prepared source."""

  def __init__(self, source: PreparedSource, preset: PresetEntry):
    self._source, self._preset = source, preset
    self._is_drum = preset.is_drum
    zones = collections.defaultdict(list)
    for zone in preset.zones:
      zones[zone.pitch].append(zone)
    self._zones = {pitch: sorted(layers, key=lambda zone: zone.velocity) for pitch, layers in zones.items()}
    self._pitches = np.array(sorted(self._zones))
    self._cache, self._cached_bytes = collections.OrderedDict(), 0
    self._notes = {}

  def can_play(self, low: int, high: int) -> bool:
    """Whether pitches `low` to `high` are near enough to stored notes; a kit plays what it has."""
    return self._is_drum or covers(self._preset, low, high)

  def has_drum(self, pitch: int) -> bool:
    """Whether a kit has a sound for a percussion pitch."""
    return pitch in self._zones

  def render(self, notes: np.ndarray, performance: np.ndarray | None, seconds: float) -> np.ndarray:
    """Render the notes of one instrument: mono float32 `[seconds * 16000]`, faded out at the end.

    Args:
      notes: note table; its program and is_drum columns are ignored.
      performance: `PERFORMANCE_DTYPE` table of its expression, or None.
      seconds: length of the result; later audio is cut off.
    """
    audio = np.zeros(round(seconds * RATE), np.float32)
    for index in range(len(notes)):
      note = notes[index]
      if self._is_drum and int(note['pitch']) not in self._zones:
        continue
      row = performance[index] if performance is not None and has_expression(performance[index]) else None
      sound = self._sound(note, row)
      begin = max(0, round(float(note['onset']) * RATE))
      room = len(audio) - begin
      if room > 0:
        audio[begin : begin + len(sound)] += sound[:room]
    fade = min(len(audio), _FADE)
    audio[len(audio) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio

  def _sound(self, note, row):
    pitch, velocity = int(note['pitch']), int(note['velocity'])
    zone = self._zone(pitch, velocity)
    gain = (velocity / zone.velocity) ** _VELOCITY_EXPONENT
    is_soft = velocity < _SOFT_VELOCITY and len(self._zones[zone.pitch]) == 1
    if self._is_drum:
      return self._cached(zone, pitch, 0.0, is_soft, 1) * np.float32(gain)
    hold = max(0.02, float(note['offset'] - note['onset']))
    release = max(zone.release, _MIN_RELEASE)
    total = hold + release
    if row is None:
      sound = self._cached(zone, pitch, _length_class(total), is_soft, 1)[: round(total * RATE)]
    else:
      sound = self._bent(zone, pitch, total, hold, is_soft, row)
    held = min(len(sound), round(hold * RATE))
    tail = len(sound) - held
    # 60 dB over the release time.
    envelope = np.float32(gain) * np.exp(np.arange(tail, dtype=np.float32) * np.float32(-6.9078 / (release * RATE)))
    return np.concatenate([sound[:held] * np.float32(gain), sound[held:] * envelope])

  def _zone(self, pitch, velocity) -> ZoneEntry:
    nearest = self._pitches[np.argmin(np.abs(self._pitches - pitch))]
    return min(self._zones[int(nearest)], key=lambda zone: abs(zone.velocity - velocity))

  def _cached(self, zone, pitch, length, is_soft, oversampling):
    key = (zone.begin, pitch, length, is_soft, oversampling)
    found = self._cache.get(key)
    if found is None:
      found = self._render_note(zone, pitch, length, is_soft, oversampling)
      self._cache[key] = found
      self._cached_bytes += found.nbytes
      while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
        self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
    else:
      self._cache.move_to_end(key)
    return found

  def _render_note(self, zone, pitch, length, is_soft, oversampling):
    if zone.begin not in self._notes:
      self._notes[zone.begin] = self._source.stored_note(zone)
    stored = self._notes[zone.begin]
    ratio = 1.0 if self._is_drum else 2 ** ((pitch - zone.pitch - zone.cents / 100) / 12)
    audio = continued(stored, round(length * ratio * RATE) + 64) if length else stored.audio
    if is_soft:
      frequency = 1000.0 if self._is_drum else _SOFT_HARMONICS * 440 * 2 ** ((zone.pitch - 69) / 12)
      audio = _darkened(audio, frequency)
    if ratio != 1.0 or oversampling != 1:
      audio = _resampled(audio, oversampling / ratio)
    return np.ascontiguousarray(audio, np.float32)

  def _bent(self, zone, pitch, total, hold, is_soft, row):
    times = np.arange(round(total * RATE)) / RATE
    rates = 2 ** (pitch_offsets(row, times, hold) / 12)
    positions = 2 * np.concatenate([[0.0], np.cumsum(rates)[:-1]])
    source = self._cached(zone, pitch, _length_class(total * float(rates.max())), is_soft, 2)
    return _read_at(source, positions)


def covers(preset: PresetEntry, low: int, high: int) -> bool:
  """Whether a pitched preset has stored notes within `MAX_TRANSPOSITION` of all pitches from `low` to `high`."""
  pitches = np.array(sorted({zone.pitch for zone in preset.zones}))
  wanted = np.arange(low, high + 1)
  return bool(np.all(np.min(np.abs(wanted[:, None] - pitches), axis=1) <= MAX_TRANSPOSITION))


def continued(note, samples: int) -> np.ndarray:
  """Return the audio of a StoredNote for `samples`, continued through its loop; shorter if it has none."""
  if samples <= len(note.audio) or not note.loop:
    return note.audio[:samples]
  missing = samples - len(note.audio)
  times = -(-missing // note.loop)
  gains = note.loop_gain ** np.arange(1, times + 1, dtype=np.float32)
  loop = note.audio[len(note.audio) - note.loop :]
  return np.concatenate([note.audio, (gains[:, None] * loop).ravel()[:missing]]).astype(np.float32)


def _resampled(audio, factor):
  """Resample by a factor that need not be a fraction of integers, as transpositions are not."""
  import soxr

  return soxr.resample(audio, 1.0, factor, quality='HQ')


def _length_class(seconds):
  length = _SHORTEST_CLASS
  while length < seconds:
    length *= 2
  return length


def _darkened(audio, frequency):
  from scipy.signal import lfilter

  pole = float(np.exp(-2 * np.pi * min(frequency, 0.45 * RATE) / RATE))
  return lfilter([1 - pole], [1, -pole], audio).astype(np.float32)


def _read_at(audio: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """Read audio at fractional positions with cubic interpolation; 0 behind its end."""
  padded = np.concatenate([np.zeros(1, np.float32), audio, np.zeros(3, np.float32)])
  positions = positions[positions < len(audio)]
  at = positions.astype(np.int64)
  x = (positions - at).astype(np.float32)
  a, b, c, d = (padded[at + shift] for shift in range(4))
  return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))
