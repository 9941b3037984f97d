"""Prepared sound sources: notes at 16 kHz with loops, in a folder of the cache for each source.

A folder has `manifest.json` (what the source is, its presets and notes, and what was dropped) and `audio.npy` (int16,
all notes one after the other). It appears only when it is complete.
"""

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrmt3.dataset_builder.note_loops import StoredNote
from mrmt3.dataset_builder.sound_sources.folders import sounds_folder
from mrmt3.errors import UserError
from mrmt3.utils.files import atomic_folder

FORMAT = 2  # increase it when notes are checked, compared or stored in another way
_MANIFEST, _AUDIO = 'manifest.json', 'audio.npy'


@dataclasses.dataclass(frozen=True)
class ZoneEntry:
  """One note of a preset: its place in the audio and how it is played (see StoredNote).

  Attributes:
    pitch, velocity: MIDI.
    cents: measured deviation from the pitch.
    begin, end: samples of the store's audio.
    scale: factor from int16 / 32768 to the note's amplitude.
    loop, loop_gain, release: see StoredNote.
  """

  pitch: int
  velocity: int
  cents: float
  begin: int
  end: int
  scale: float
  loop: int
  loop_gain: float
  release: float


@dataclasses.dataclass(frozen=True)
class PresetEntry:
  """One instrument of a prepared source: program, variant and name as in `Preset`, and its notes."""

  program: int
  is_drum: bool
  name: str
  variant: int
  zones: tuple[ZoneEntry, ...]


@dataclasses.dataclass(frozen=True)
class PreparedSource:
  """A prepared source.

  Attributes:
    folder: where it is.
    name, kind, licence, attribution, held_out: as declared in the registry.
    key: digest of the files it was made of.
    presets: its instruments.
    dropped: a line for each preset, or group of notes, that failed a check.
    shared: a line for each preset that has recordings of a held-out source.
    digest: digest of the manifest, which has a digest of the audio.
  """

  folder: Path
  name: str
  kind: str
  licence: str
  attribution: str
  held_out: str
  key: str
  presets: tuple[PresetEntry, ...]
  dropped: tuple[str, ...]
  shared: tuple[str, ...]
  digest: str = ''

  def audio(self) -> np.ndarray:
    """Return the audio of all notes, int16 `[n]`, mapped into memory."""
    return _map_audio(self.folder / _AUDIO, self.digest)

  def stored_note(self, zone: ZoneEntry) -> StoredNote:
    """Return one note at its amplitude."""
    audio = self.audio()[zone.begin : zone.end].astype(np.float32) * np.float32(zone.scale / 32768)
    return StoredNote(audio, zone.loop, zone.loop_gain, zone.release)


def store_folder(name: str) -> Path:
  """Return the folder of a prepared source."""
  return sounds_folder() / 'prepared' / name


class StoreWriter:
  """Collects the notes of a source, then writes its folder."""

  def __init__(self):
    self._audio, self._length, self._presets = [], 0, []

  def add_preset(self, program: int, is_drum: bool, name: str, variant: int, notes: Sequence[tuple]) -> None:
    """Add a preset; `notes` are (pitch, velocity, cents, StoredNote)."""
    zones = []
    for pitch, velocity, cents, note in notes:
      scale = float(np.abs(note.audio).max()) or 1.0
      samples = np.rint(note.audio * (32767 / scale)).astype(np.int16)
      zones.append(
        ZoneEntry(
          int(pitch),
          int(velocity),
          round(float(cents), 2),
          self._length,
          self._length + len(samples),
          scale,
          int(note.loop),
          float(note.loop_gain),
          float(note.release),
        )
      )
      self._audio.append(samples)
      self._length += len(samples)
    self._presets.append(PresetEntry(int(program), bool(is_drum), name, int(variant), tuple(zones)))

  @property
  def has_presets(self) -> bool:
    """Whether a preset was added."""
    return bool(self._presets)

  def write(self, folder: Path, **fields) -> None:
    """Write the folder, replacing an older one. `fields` are the other attributes of `PreparedSource`."""
    audio = np.concatenate(self._audio) if self._audio else np.zeros(0, np.int16)
    manifest = {
      'format': FORMAT,
      **fields,
      'audio_sha256': hashlib.sha256(audio.tobytes()).hexdigest(),
      'presets': [dataclasses.asdict(preset) for preset in self._presets],
    }
    old = folder.with_name(f'.{folder.name}.old')
    try:
      shutil.rmtree(old, ignore_errors=True)
      if folder.exists():
        folder.rename(old)
    except OSError as error:
      raise UserError(f'cannot replace {folder}: {error.strerror or error}') from error
    try:
      with atomic_folder(folder) as temporary:
        with open(temporary / _AUDIO, 'wb') as file:
          np.save(file, audio)
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=1) + '\n', encoding='utf-8')
    except UserError:
      if old.exists() and not folder.exists():
        old.rename(folder)
      raise
    shutil.rmtree(old, ignore_errors=True)


def read_store(name: str) -> PreparedSource | None:
  """Return a prepared source, or None if it was not prepared by this version.

  Raises UserError if its folder is broken.
  """
  return _read(store_folder(name))


def _read(folder):
  path = folder / _MANIFEST
  if not path.exists():
    return None
  try:
    text = path.read_bytes()
    manifest = json.loads(text)
    if manifest['format'] != FORMAT:
      return None
    presets = tuple(
      PresetEntry(**{**preset, 'zones': tuple(ZoneEntry(**zone) for zone in preset['zones'])})
      for preset in manifest['presets']
    )
    fields = {name: manifest[name] for name in ('name', 'kind', 'licence', 'attribution', 'held_out', 'key')}
    prepared = PreparedSource(
      folder,
      **fields,
      presets=presets,
      dropped=tuple(manifest['dropped']),
      shared=tuple(manifest['shared']),
      digest=hashlib.sha256(text).hexdigest(),
    )
    length = len(prepared.audio())
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'the prepared sounds in {folder} are broken; remove that folder and prepare them again') from error
  if any(zone.end > length for preset in presets for zone in preset.zones):
    raise UserError(f'the prepared sounds in {folder} are truncated; remove that folder and prepare them again')
  return prepared


@functools.lru_cache(maxsize=64)
def _map_audio(path, digest):
  """`digest` tells a store from an older one at the same path."""
  return np.load(path, mmap_mode='r')
