"""What a sound source is: presets, and single notes of them."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

RECORDED, SOUNDFONT, SYNTHESISED = 'recorded', 'soundfont', 'synthesised'
# Any use with at most attribution.
PERMISSIVE = frozenset({'Apache-2.0', 'MIT', 'BSD-3-Clause', 'CC0-1.0', 'CC-BY-3.0', 'CC-BY-4.0', 'public domain'})


@dataclasses.dataclass(frozen=True)
class Preset:
  """One instrument of a source.

  Attributes:
    program: General MIDI program 0..127; 0 for drums.
    is_drum: whether it is a drum kit, whose pitches are General MIDI percussion.
    name: in the source.
    variant: 0 for a sample set. The presets of a synthesizer for one class are numbered; each is drawn on its own.
  """

  program: int
  is_drum: bool
  name: str
  variant: int = 0


@dataclasses.dataclass(frozen=True)
class RawNote:
  """One note as the source gives it.

  Attributes:
    pitch: MIDI pitch that it should have.
    velocity: MIDI velocity 1..127 at which it was rendered or recorded.
    audio: float32 `[n]`, mono.
    sample_rate: Hz.
    hold: s after which the key was released; None for a recording that ends by itself.
  """

  pitch: int
  velocity: int
  audio: np.ndarray
  sample_rate: int
  hold: float | None = None


class SoundSource(Protocol):
  """A source that is present on this machine. All methods raise UserError for files that are broken or empty."""

  def presets(self) -> Sequence[Preset]:
    """Return the instruments, at least one."""

  def notes(self, preset: Preset, low: int, high: int) -> Sequence[RawNote]:
    """Return notes of a preset at one or several velocities; synthesizers render pitches `low` to `high`."""

  def waveforms(self, preset: Preset) -> Sequence[tuple[np.ndarray, int]]:
    """Return the (float32 `[n]`, Hz) recordings that a preset plays; empty for a synthesizer."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """One source as declared in the registry.

  Attributes:
    name: unique, also the name of its folder in the cache.
    kind: RECORDED, SOUNDFONT or SYNTHESISED.
    licence: SPDX identifier, or 'public domain'.
    attribution: the line that a data set's list of attributions shows.
    package: 'npm:NAME@VERSION', 'deb:NAME' or 'python:NAME' that has the files; several are separated by spaces.
    path: file or folder in the package.
    reader: 'module:function' in this package; called with the resolved path and `options`.
    options: keyword arguments of the reader.
    programs: declared programs, to count classes without the files.
    drum_kits: declared number of drum kits.
    exclude: programs not to use, because they share recordings with a held-out source that comparison does not find.
    held_out: name of the test that this source is kept for; empty for training.
  """

  name: str
  kind: str
  licence: str
  attribution: str
  package: str
  path: str
  reader: str
  options: tuple[tuple[str, object], ...] = ()
  programs: tuple[int, ...] = ()
  drum_kits: int = 0
  exclude: tuple[int, ...] = ()
  held_out: str = ''

  @property
  def is_permissive(self) -> bool:
    """Whether the licence allows any use with at most attribution."""
    return self.licence in PERMISSIVE
