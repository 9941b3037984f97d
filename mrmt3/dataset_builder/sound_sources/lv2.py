"""LV2 synthesizers as sound sources, run through ctypes. Needed only when sounds are prepared."""

import ctypes
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.sound_sources.source import Preset, RawNote
from mrmt3.errors import UserError

RATE = 44100
_HOLD, _RELEASE = 2.5, 1.0  # s
_STEP = 4  # semitones
_VELOCITIES = (50, 105)
_BLOCK = 256
_URID_MAP = b'http://lv2plug.in/ns/ext/urid#map'
_SEQUENCE, _MIDI = b'http://lv2plug.in/ns/ext/atom#Sequence', b'http://lv2plug.in/ns/ext/midi#MidiEvent'
_MAP = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_char_p)


class _UridMap(ctypes.Structure):
  _fields_ = (('handle', ctypes.c_void_p), ('map', _MAP))


class _Feature(ctypes.Structure):
  _fields_ = (('uri', ctypes.c_char_p), ('data', ctypes.c_void_p))


class _Descriptor(ctypes.Structure):
  _fields_ = (
    ('uri', ctypes.c_char_p),
    (
      'instantiate',
      ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_double, ctypes.c_char_p, ctypes.c_void_p),
    ),
    ('connect_port', ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)),
    ('activate', ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ('run', ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32)),
    ('deactivate', ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ('cleanup', ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
  )


def open_synthesizer(bundle: Path, plugin: str, programs: Mapping[str, int] | tuple) -> 'Synthesizer':
  """Open a plugin of an LV2 bundle; `programs` is the General MIDI program of each preset to use, by its label.

  Raises UserError if the bundle is broken or its code does not run on this machine.
  """
  return Synthesizer(bundle, plugin, dict(programs))


class Synthesizer:
  """One plugin with its presets."""

  def __init__(self, bundle: Path, plugin: str, programs: dict[str, int]):
    self._bundle, self._plugin, self._programs = bundle, plugin, programs
    try:
      self._ports = read_ports((bundle / f'{plugin}.ttl').read_text(encoding='utf-8'))
      presets = bundle / f'{plugin}-presets.ttl'
      self._values = read_presets(presets.read_text(encoding='utf-8')) if presets.is_file() else {}
      library = ctypes.CDLL(str(bundle / f'{plugin}.so'))
      library.lv2_descriptor.restype = ctypes.POINTER(_Descriptor)
      self._descriptor = library.lv2_descriptor(0)
    except (OSError, AttributeError) as error:
      raise UserError(f'cannot load the synthesizer {bundle / plugin}: {error}; fetch its package again') from error
    if not self._descriptor or not any(port.get('is_event') for port in self._ports):
      raise UserError(f'{bundle / plugin} is not a synthesizer; fetch its package again')
    self._uris = {}

  def presets(self) -> list[Preset]:
    """Return the presets that have a program, numbered within it."""
    found, counts = [], {}
    for label, program in self._programs.items():
      if label in self._values or not label:
        counts[program] = counts.get(program, -1) + 1
        found.append(Preset(program, False, label or self._plugin, counts[program]))
    return found

  def notes(self, preset: Preset, low: int, high: int) -> list[RawNote]:
    """Render notes from pitch `low` to `high`, each with a new instance of the plugin."""
    values = self._values.get(preset.name, {})
    count = max(1, -(-(high - low) // _STEP)) + 1
    pitches = sorted({int(pitch) for pitch in np.rint(np.linspace(low, high, count))})
    return [
      RawNote(pitch, velocity, self._render(values, pitch, velocity), RATE, _HOLD)
      for velocity in _VELOCITIES
      for pitch in pitches
    ]

  def waveforms(self, preset: Preset) -> list:
    """Return nothing: the sound is synthesised, or sampled by the plugin's authors."""
    return []

  def _render(self, values, pitch, velocity):
    urid = _MAP(lambda _, uri: self._uris.setdefault(uri, len(self._uris) + 1))
    urid_map = _UridMap(None, urid)
    feature = _Feature(_URID_MAP, ctypes.cast(ctypes.pointer(urid_map), ctypes.c_void_p))
    features = (ctypes.POINTER(_Feature) * 2)(ctypes.pointer(feature), None)
    plugin = self._descriptor.contents
    bundle = f'{self._bundle}/'.encode()
    handle = plugin.instantiate(ctypes.cast(self._descriptor, ctypes.c_void_p), RATE, bundle, features)
    if not handle:
      raise UserError(f'the synthesizer {self._bundle / self._plugin} does not start')
    sequence, sequence_type = urid(None, _SEQUENCE), urid(None, _MIDI)
    controls, outputs, events = [], [], ctypes.create_string_buffer(256)
    for index, port in enumerate(self._ports):
      if port.get('is_event'):
        target = events
      elif port.get('is_audio'):
        target = (ctypes.c_float * _BLOCK)()
        if port.get('is_output'):
          outputs.append(target)
      else:
        target = ctypes.c_float(values.get(port.get('symbol'), port.get('default', 0.0)))
      controls.append(target)
      plugin.connect_port(handle, index, ctypes.addressof(target))
    if plugin.activate:  # these two are optional
      plugin.activate(handle)
    blocks = []
    off = round(_HOLD * RATE) // _BLOCK
    for block in range(round((_HOLD + _RELEASE) * RATE) // _BLOCK):
      message = bytes((0x90, pitch, velocity)) if block == 0 else bytes((0x80, pitch, 64)) if block == off else b''
      data = _sequence(message, sequence, sequence_type)
      ctypes.memmove(events, data, len(data))
      for output in outputs:
        ctypes.memset(output, 0, ctypes.sizeof(output))
      plugin.run(handle, _BLOCK)
      blocks.append(np.mean([np.frombuffer(output, np.float32) for output in outputs], axis=0))
    if plugin.deactivate:
      plugin.deactivate(handle)
    plugin.cleanup(handle)
    return np.concatenate(blocks).astype(np.float32)


def _sequence(message, sequence, midi):
  """Return an atom sequence with at most one MIDI message at its beginning."""
  body = struct.pack('<II', 0, 0)
  if message:
    body += struct.pack('<qII', 0, len(message), midi) + message.ljust(8, b'\0')
  return struct.pack('<II', len(body), sequence) + body


def read_ports(turtle: str) -> list[dict]:
  """Return the ports of a plugin's description, by index: symbol, default, and what kind they are."""
  ports = {}
  for block in re.findall(r'\[([^\]]*?lv2:index[^\]]*?)\]', turtle, re.DOTALL):
    index = int(re.search(r'lv2:index\s+(\d+)', block)[1])
    symbol = re.search(r'lv2:symbol\s+"([^"]*)"', block)
    default = re.search(r'lv2:default\s+([-+.\deE]+)', block)
    ports[index] = {
      'symbol': symbol[1] if symbol else '',
      'default': float(default[1]) if default else 0.0,
      'is_event': 'AtomPort' in block or 'EventPort' in block,
      'is_audio': 'AudioPort' in block,
      'is_output': 'OutputPort' in block,
    }
  return [ports[index] for index in sorted(ports)]


def read_presets(turtle: str) -> dict[str, dict[str, float]]:
  """Return {label: {port symbol: value}} of a file of presets."""
  presets = {}
  for block in turtle.split('pset:Preset')[1:]:
    label = re.search(r'rdfs:label\s+"([^"]*)"', block)
    pairs = re.findall(r'lv2:symbol\s+"([^"]*)"\s*;\s*pset:value\s+([-+.\deE]+)', block)
    if label and pairs:
      presets[label[1]] = {symbol: float(value) for symbol, value in pairs}
  return presets
