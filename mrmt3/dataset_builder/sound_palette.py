"""The sounds that a data set may use: which prepared sources each split has, and the choice among them.

Training and validation use the sources for training, the test split a source kept for it. A source is drawn first, with
equal probability, then a preset of it: a sample set with many programs counts as much as one instrument.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.dataset_builder.prepare_sounds import is_here, prepare_source
from mrmt3.dataset_builder.sampled_voice import SampledVoice, covers
from mrmt3.dataset_builder.sound_sources import registry
from mrmt3.dataset_builder.sound_sources.folders import install_line
from mrmt3.dataset_builder.sound_sources.source import SYNTHESISED
from mrmt3.dataset_builder.sound_store import PreparedSource, PresetEntry, read_store
from mrmt3.errors import UserError
from mrmt3.notes.instruments import SLAKH_CLASSES, slakh_class_program

TRAINING = 'training'
MAX_ENGINE_PRESETS = 3  # presets of a synthesizer that count as sources of a class
_LOADED_VOICES = 24


@dataclasses.dataclass(frozen=True)
class Palette:
  """Prepared sources of each group; sent to the worker processes.

  Attributes:
    groups: the group of each split: `TRAINING`, or the name of a test in the registry.
    sources: (name, digest) of the prepared sources of each group.
  """

  groups: Mapping[str, str]
  sources: Mapping[str, tuple[tuple[str, str], ...]]

  def of(self, split: str) -> tuple[PreparedSource, ...]:
    """Return the sources of a split."""
    return tuple(_read(name, digest) for name, digest in self.sources[self.groups[split]])

  def programs(self, split: str) -> frozenset[int]:
    """Return all programs of the classes that a split has sounds for."""
    classes = {slakh_class_program(p.program) for source in self.of(split) for p in source.presets if not p.is_drum}
    return frozenset(program for program in range(128) if slakh_class_program(program) in classes)


def open_palette(groups: Mapping[str, str], *, permissive: bool = False) -> tuple[Palette, list[str]]:
  """Prepare the sources of all groups that are on this machine.

  Returns:
    (the palette, lines about sources that are missing or cannot be used).

  Raises:
    UserError: a group has no source.
  """
  sources, lines = {}, []
  for group in dict.fromkeys(groups.values()):
    usable = []
    for spec in specs_of(group, permissive):
      if not is_here(spec):
        lines.append(f'{spec.name} is missing; get it with: {install_line(spec.package)}')
        continue
      try:
        prepared = prepare_source(spec)
      except UserError as error:
        lines.append(f'left out: {error}')
        continue
      usable.append((prepared.name, prepared.digest))
    if not usable:
      raise UserError(f'no sounds for {group} are on this machine; get them with: mrmt3 dataset sounds --fetch')
    sources[group] = tuple(usable)
  return Palette(dict(groups), sources), lines


def specs_of(group: str, permissive: bool = False) -> list:
  """Return the declared sources of a group. Those kept for tests are never in `TRAINING`."""
  if group == TRAINING:
    return registry.training_specs(permissive)
  return [spec for spec in registry.held_out_specs() if spec.held_out == group]


@functools.lru_cache(maxsize=256)
def _read(name, digest):
  prepared = read_store(name)
  if prepared is None or prepared.digest != digest:
    raise UserError(f'the prepared sounds of {name} changed while they were used; run the command again')
  return prepared


def choices(
  sources: Sequence[PreparedSource], program: int, low: int, high: int
) -> list[tuple[PreparedSource, list[PresetEntry]]]:
  """Return (source, presets) that play a program's class from `low` to `high`; a synthesizer's variants are apart.

  Of a sample set with several programs of the class, the program itself is preferred.
  """
  klass = slakh_class_program(program)
  found = []
  for source in sources:
    presets = [
      preset
      for preset in source.presets
      if not preset.is_drum and slakh_class_program(preset.program) == klass and covers(preset, low, high)
    ]
    if source.kind == SYNTHESISED:
      found += [(source, [preset]) for preset in presets[:MAX_ENGINE_PRESETS]]
    elif presets:
      found.append((source, [preset for preset in presets if preset.program == program] or presets))
  return found


def draw_voice(
  sources: Sequence[PreparedSource], program: int, low: int, high: int, rng: np.random.Generator, exclude=frozenset()
) -> tuple[PreparedSource, PresetEntry] | None:
  """Draw a source, then a preset of it; None if none can play. `exclude`: (source name, preset name) not to use."""
  found = [
    (source, [preset for preset in presets if (source.name, preset.name) not in exclude])
    for source, presets in choices(sources, program, low, high)
  ]
  found = [(source, presets) for source, presets in found if presets]
  if not found:
    return None
  source, presets = found[rng.integers(len(found))]
  return source, presets[rng.integers(len(presets))]


def draw_kit(
  sources: Sequence[PreparedSource], pitches: Sequence[int], rng: np.random.Generator
) -> tuple[PreparedSource, PresetEntry] | None:
  """Draw a drum kit with most of the percussion `pitches`; None if there is none."""
  kits = [(source, preset) for source in sources for preset in source.presets if preset.is_drum]
  wanted = set(pitches)
  scores = [len(wanted & {zone.pitch for zone in preset.zones}) / max(1, len(wanted)) for _, preset in kits]
  usable = [kit for kit, score in zip(kits, scores, strict=True) if score >= min(0.6, max(scores, default=0))]
  return usable[rng.integers(len(usable))] if usable else None


def voice_of(source: PreparedSource, preset: PresetEntry) -> SampledVoice:
  """Return the player of a preset, which keeps its rendered notes."""
  return _voice(source.name, source.digest, source.presets.index(preset))


@functools.lru_cache(maxsize=_LOADED_VOICES)
def _voice(name, digest, index):
  source = _read(name, digest)
  return SampledVoice(source, source.presets[index])


def class_table(sources: Sequence[PreparedSource]) -> dict[str, list[str]]:
  """Return the names of the sources of each class, and of 'Drums'. Presets of a synthesizer count up to 3."""
  table = {name: [] for name in [*SLAKH_CLASSES, 'Drums']}
  names = {program: name for name, program in SLAKH_CLASSES.items()}
  for source in sources:
    counts = collections.Counter(
      'Drums' if preset.is_drum else names[slakh_class_program(preset.program)] for preset in source.presets
    )
    for name, count in counts.items():
      if source.kind == SYNTHESISED:
        table[name] += [f'{source.name}#{number}' for number in range(1, min(count, MAX_ENGINE_PRESETS) + 1)]
      else:
        table[name].append(source.name)
  return table
