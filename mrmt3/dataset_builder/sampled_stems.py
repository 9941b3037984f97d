"""Renders the stems of a track with the sounds of a palette."""

import numpy as np

from mrmt3.audio.synthesizer import silent_share
from mrmt3.dataset_builder.check import has_pitch
from mrmt3.dataset_builder.layout import Stem, integrated_loudness
from mrmt3.dataset_builder.sound_checks import RATE
from mrmt3.dataset_builder.sound_palette import draw_kit, draw_voice, voice_of
from mrmt3.dataset_builder.sound_store import PreparedSource

_MAX_SILENT = 0.02  # fraction of a stem's notes that may be silent
_PITCH_CHECKS, _MIN_PITCHED = 24, 0.7  # notes checked for their pitch, and the fraction that must have it
_ATTEMPTS = 6


def render_pitched(
  sources: tuple[PreparedSource, ...],
  program: int,
  notes: np.ndarray,
  performance: np.ndarray | None,
  seconds: float,
  rng: np.random.Generator,
  gain_db: float = 0.0,
) -> Stem | None:
  """Render a part with a drawn source of its program's class; None if no source plays it audibly and in tune.

  Args:
    sources: the sources of the split.
    program: MIDI program; the stem's program is that of the drawn preset, of the same Slakh class.
    notes: note table.
    performance: `PERFORMANCE_DTYPE` table of the notes' expression, or None.
    seconds: duration of the audio.
    rng: draws the source.
    gain_db: level of the stem in the mix.
  """
  low, high = int(notes['pitch'].min()), int(notes['pitch'].max())
  tried = set()
  for _ in range(_ATTEMPTS):
    drawn = draw_voice(sources, program, low, high, rng, exclude=frozenset(tried))
    if drawn is None:
      return None
    source, preset = drawn
    audio = voice_of(source, preset).render(notes, performance, seconds)
    loudness = integrated_loudness(audio, RATE)
    if loudness is not None and silent_share(audio, notes, RATE) <= _MAX_SILENT and _in_tune(audio, notes):
      return _stem(source, preset, notes, audio, gain_db, loudness)
    tried.add((source.name, preset.name))
  return None


def render_drums(
  sources: tuple[PreparedSource, ...], notes: np.ndarray, seconds: float, rng: np.random.Generator, gain_db: float = 0.0
) -> Stem | None:
  """Render drum strokes (note table) with a drawn kit; strokes that the kit lacks are left out. None if all are."""
  drawn = draw_kit(sources, notes['pitch'].tolist(), rng)
  if drawn is None:
    return None
  source, preset = drawn
  kit = voice_of(source, preset)
  notes = notes[[kit.has_drum(int(pitch)) for pitch in notes['pitch']]]
  audio = kit.render(notes, None, seconds)
  loudness = integrated_loudness(audio, RATE)
  return None if loudness is None else _stem(source, preset, notes, audio, gain_db, loudness)


def _stem(source, preset, notes, audio, gain_db, loudness):
  name = source.name if preset.is_drum else f'{source.name}: {preset.name}'
  return Stem(preset.program, preset.is_drum, notes, audio, name, gain_db, loudness, source.licence, source.attribution)


def _in_tune(audio, notes):
  checked = notes[np.unique(np.linspace(0, len(notes) - 1, _PITCH_CHECKS).astype(int))]
  return has_pitch(audio, checked['onset'], checked['pitch'], RATE).mean() >= _MIN_PITCHED
