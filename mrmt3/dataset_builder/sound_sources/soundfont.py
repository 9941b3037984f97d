"""Soundfonts as sound sources, rendered with the project's synthesizer."""

import itertools
import struct
from pathlib import Path

import numpy as np

from mrmt3.audio.soundfont_samples import read_sample
from mrmt3.audio.soundfonts import font_chunks, read_soundfont
from mrmt3.audio.synthesizer import Synth
from mrmt3.dataset_builder.sound_sources.source import Preset, RawNote
from mrmt3.errors import UserError
from mrmt3.notes.note_array import empty_notes

RATE = 16000
_HOLD, _RELEASE, _DRUM_SECONDS = 2.5, 1.0, 1.5  # s
_STEP = 4  # semitones between rendered pitches
_VELOCITIES = (50, 105)
_DRUM_PITCHES = range(35, 82)
_SHDR = struct.Struct('<20s5IBb2H')
_INSTRUMENT, _SAMPLE, _VORBIS, _DRUM_BANK = 41, 53, 0x10, 128


def open_font(path: Path) -> 'FontSource':
  """Open a soundfont; UserError if it is broken."""
  return FontSource(path)


def pitch_grid(low: int, high: int, step: int = _STEP) -> list[int]:
  """Return pitches from `low` to `high`, at most `step` semitones apart, both ends included."""
  count = max(1, -(-(high - low) // step)) + 1
  return sorted({int(pitch) for pitch in np.rint(np.linspace(low, high, count))})


class FontSource:
  """A General MIDI soundfont (.sf2, .sf3)."""

  def __init__(self, path: Path):
    self._path = path
    self._font = read_soundfont(path)
    self._synth = None
    self._parsed = None

  def presets(self) -> list[Preset]:
    """Return all programs of bank 0, and the drum kit."""
    found = [Preset(program, False, f'program {program}') for program in sorted(self._font.programs)]
    return found + ([Preset(0, True, 'drums')] if self._font.has_drums else [])

  def notes(self, preset: Preset, low: int, high: int) -> list[RawNote]:
    """Render the notes of a preset one after the other, from pitch `low` to `high` in steps of up to 4 semitones."""
    if preset.is_drum:
      pitches, hold, release = list(_DRUM_PITCHES), 0.3, _DRUM_SECONDS - 0.3
    else:
      pitches, hold, release = pitch_grid(low, high), _HOLD, _RELEASE
    self._synth = self._synth or Synth(self._path, RATE)
    spacing = hold + release
    pairs = [(pitch, velocity) for velocity in _VELOCITIES for pitch in pitches]
    table = empty_notes(len(pairs))
    table['onset'] = np.arange(len(pairs)) * spacing
    table['offset'] = table['onset'] + hold
    table['pitch'], table['velocity'] = np.array(pairs).T
    audio = self._synth.render(table, preset.program, preset.is_drum, len(pairs) * spacing)
    rows = audio[: len(pairs) * round(spacing * RATE)].reshape(len(pairs), -1)
    return [
      RawNote(pitch, velocity, row, RATE, None if preset.is_drum else hold)
      for (pitch, velocity), row in zip(pairs, rows, strict=True)
    ]

  def waveforms(self, preset: Preset) -> list[tuple[np.ndarray, int]]:
    """Return the samples that a preset plays."""
    self._parsed = self._parsed or _FontSamples(self._path)
    return self._parsed.of(preset.program, preset.is_drum)


class _FontSamples:
  """The samples of each preset of a soundfont."""

  def __init__(self, path):
    self._path = path
    try:
      chunks = font_chunks(path.read_bytes())
      self._headers = list(_SHDR.iter_unpack(chunks[b'shdr'][: len(chunks[b'shdr']) // _SHDR.size * _SHDR.size]))
      self._data = memoryview(chunks[b'smpl'])
      self._samples = self._samples_of_presets(chunks)
    except (KeyError, IndexError, struct.error) as error:
      raise UserError(f'cannot load the soundfont {path}: it is truncated or broken; get the file again') from error
    self._decoded = {}

  def _samples_of_presets(self, chunks):
    inst_samples = []
    bags = [struct.unpack_from('<H', record, 20)[0] for record in _split(chunks[b'inst'], 22)]
    for begin, end in itertools.pairwise(bags):
      inst_samples.append(_targets(chunks[b'ibag'], chunks[b'igen'], begin, end, _SAMPLE))
    samples = {}
    heads = [struct.unpack_from('<HHH', record, 20) for record in _split(chunks[b'phdr'], 38)]
    for (program, bank, begin), (_, _, end) in itertools.pairwise(heads):
      instruments = _targets(chunks[b'pbag'], chunks[b'pgen'], begin, end, _INSTRUMENT)
      used = set().union(*(inst_samples[index] for index in instruments))
      samples.setdefault((bank, program), set()).update(used)
    return samples

  def of(self, program, is_drum):
    keys = [key for key in self._samples if (key[0] == _DRUM_BANK if is_drum else key == (0, program))]
    return [self._decode(index) for index in sorted(set().union(*(self._samples[key] for key in keys)))]

  def _decode(self, index):
    if index not in self._decoded:
      _, begin, end, _, _, rate, _, _, _, kind = self._headers[index]
      is_vorbis = bool(kind & _VORBIS)
      chunk = self._data[begin:end] if is_vorbis else self._data[2 * begin : 2 * end]
      try:
        audio = read_sample(chunk, is_vorbis)
      except RuntimeError as error:
        raise UserError(f'cannot read sample {index} of {self._path}: {error}; get the file again') from error
      self._decoded[index] = (audio.astype(np.float32) / 2**15, max(int(rate), 400))
    return self._decoded[index]


def _split(chunk, size):
  return [chunk[at : at + size] for at in range(0, len(chunk) - size + 1, size)]


def _targets(bags, generators, first, end, kind):
  """Return what the zones `first` to `end` - 1 name with the generator `kind`."""
  begin = struct.unpack_from('<H', bags, 4 * first)[0]
  stop = struct.unpack_from('<H', bags, 4 * end)[0]
  pairs = (struct.unpack_from('<HH', generators, 4 * at) for at in range(begin, stop))
  return {value for number, value in pairs if number == kind}
