"""Hydrogen's drum kits: a folder with drumkit.xml and one recording a layer."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from mrmt3.dataset_builder.sound_sources.sample_folder import read_recording
from mrmt3.dataset_builder.sound_sources.source import Preset, RawNote
from mrmt3.errors import UserError

_MAX_SECONDS = 3.0
_MAX_LAYERS = 3
# What an instrument's name means in General MIDI percussion; the first pattern that matches counts.
_NAMES = (
  (r'roll|noise|\bfx\b|zap|beats_|free|stick$(?<!side stick)(?<!^stick)|waterglass', None),
  (r'side ?stick|rim ?click|^stick', 37),
  (r'rim ?shot', 40),
  (r'kick|bass ?drum', 36),
  (r'snare', 38),
  (r'clap', 39),
  (r'pedal.*(hat|hh)|(hat|hh).*(pedal|pd)|hi-hat pedal', 44),
  (r'(hat|hh).*(semi|half)', None),
  (r'(hat|hh|ohh).*(op\b|open)|(open|op).*(hat|hh)|ohh', 46),
  (r'(hat|hh).*(cl\b|clos)|(closed|cl).*(hat|hh)', 42),
  (r'floor ?tom|tom.*floor|(low.*tom|tom.*low)', 41),
  (r'(mid.*tom|tom.*mid|tom ?2)', 47),
  (r'(hi.*tom|tom.*hi|tom ?1|^tom$)', 50),
  (r'ride.*(bell|cup)|^.*ride ?bell', 53),
  (r'crash.?/?ride|ride.?crash', None),
  (r'splash', 55),
  (r'china|chinese', 52),
  (r'crash', 49),
  (r'ride', 51),
  (r'tambourine(?!.*pedal)', 54),
  (r'cow ?bell', 56),
  (r'bongo.*hi', 60),
  (r'bongo.*lo', 61),
  (r'conga', 63),
  (r'agogo.*high', 67),
  (r'agogo.*low', 68),
  (r'shaker|maraca', 70),
  (r'clave', 75),
  (r'wood ?block.*hi', 76),
  (r'wood ?block.*lo', 77),
)


def percussion_of(name: str) -> int | None:
  """Return the General MIDI percussion pitch of an instrument's name, or None if it has none."""
  name = name.strip().lower()
  return next((pitch for pattern, pitch in _NAMES if re.search(pattern, name)), None)


def open_kit(folder: Path) -> 'DrumKit':
  """Open a drum kit; UserError if it is broken or has no instrument with a General MIDI name."""
  return DrumKit(folder)


class DrumKit:
  """A drum kit of Hydrogen."""

  def __init__(self, folder: Path):
    path = folder / 'drumkit.xml'
    try:
      root = ElementTree.fromstring(_without_namespaces(path.read_text(encoding='utf-8', errors='replace')))
    except (OSError, ElementTree.ParseError) as error:
      raise UserError(f'cannot read the drum kit {path}: {error}; fetch its package again') from error
    self._name = folder.name
    self._layers = {}  # pitch: [(velocity, path)]
    for instrument in root.iter('instrument'):
      pitch = percussion_of(instrument.findtext('name') or '')
      layers = _layers(instrument, folder)
      if pitch is not None and layers and pitch not in self._layers:
        self._layers[pitch] = layers
    if not self._layers:
      raise UserError(f'the drum kit {path} has no instruments with General MIDI names; leave it out')

  def presets(self) -> list[Preset]:
    """Return the kit."""
    return [Preset(0, True, self._name)]

  def notes(self, preset: Preset, low: int, high: int) -> list[RawNote]:
    """Read up to 3 layers of each instrument."""
    return [
      RawNote(pitch, velocity, *read_recording(path, _MAX_SECONDS))
      for pitch, layers in sorted(self._layers.items())
      for velocity, path in layers
    ]

  def waveforms(self, preset: Preset) -> list:
    """Return the recordings of all layers that are used."""
    return [read_recording(path, _MAX_SECONDS) for layers in self._layers.values() for _, path in layers]


def _without_namespaces(text):
  return re.sub(r'\sxmlns(:\w+)?="[^"]*"|\sxsi:\w+="[^"]*"', '', text)


def _layers(instrument, folder):
  """Return [(velocity, path)] of an instrument, softest first; the loudest layer counts for full velocity."""
  layers = []
  for layer in instrument.iter('layer'):
    path = folder / (layer.findtext('filename') or '')
    if path.is_file():
      velocity = 127 * (float(layer.findtext('min') or 0) + float(layer.findtext('max') or 1)) / 2
      layers.append((int(min(max(velocity, 20), 115)), path))
  if not layers and instrument.findtext('filename'):
    path = folder / instrument.findtext('filename')
    layers = [(100, path)] if path.is_file() else []
  layers.sort(key=lambda layer: layer[0])
  if len(layers) > _MAX_LAYERS:
    step = (len(layers) - 1) / (_MAX_LAYERS - 1)
    layers = [layers[round(index * step)] for index in range(_MAX_LAYERS)]
  return layers if len(layers) > 1 else [(100, path) for _, path in layers]
