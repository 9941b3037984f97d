"""Makes one track: reads its music, arranges, performs and renders it, and writes its folder."""

import dataclasses
import functools
import zlib
from pathlib import Path

import numpy as np

from mrmt3.audio.synthesizer import Synth, silent_notes, silent_share
from mrmt3.dataset_builder.arrange import (
  ALL_INSTRUMENTS,
  INSTRUMENTS,
  PLAIN,
  ArrangedPart,
  arrange,
  arrange_as_planned,
  draw_style,
  perform,
)
from mrmt3.dataset_builder.check import has_pitch
from mrmt3.dataset_builder.drums import play_drums, play_written_drums
from mrmt3.dataset_builder.layout import Stem, integrated_loudness, write_track
from mrmt3.dataset_builder.licences import music_licence
from mrmt3.dataset_builder.sampled_stems import render_drums, render_pitched
from mrmt3.dataset_builder.score import Score
from mrmt3.dataset_builder.settings import SAMPLE_RATE, Setup
from mrmt3.dataset_builder.timing import TAIL_SECONDS, fit, fit_tempo
from mrmt3.errors import UserError

_MAX_SILENT = 0.02  # fraction of a stem's notes that may be silent; above it, the part gets another instrument
_PITCH_CHECKS, _MIN_PITCHED = 48, 0.8  # notes checked for their pitch, and the fraction that must have it
_KEEP_WRITTEN = 0.5  # probability of keeping the written instruments, if a score names them
_TEMPO_CHANGE = 0.15
_KEYS = (-5, 7)  # semitones of transposition


@dataclasses.dataclass(frozen=True)
class TrackPlan:
  """One track to be made.

  Attributes:
    split: train, validation or test.
    name: its folder's name.
    source: its music.
    take: 0 for the first track of a source, 1 for its second, ...
    programs: the program of each part of the fitted score, -1 for none; empty for a random arrangement.
  """

  split: str
  name: str
  source: str
  take: int = 0
  programs: tuple[int, ...] = ()


def track_rng(seed: int, source: str, take: int = 0) -> np.random.Generator:
  """Return the random generator of one track, which does not depend on other tracks."""
  return np.random.default_rng([seed, zlib.crc32(source.encode(errors='surrogateescape')), *([take] if take else [])])


def fitted(score: Score, setup: Setup, rng: np.random.Generator) -> tuple[Score, float]:
  """Select the bars of a piece for a track, transpose them, and return them with their quarters per minute."""
  recipe, seconds = setup.recipe, setup.settings.seconds
  density = rng.uniform(*recipe.notes_per_second)
  if recipe.vary:
    score = score.transposed(int(rng.integers(*_KEYS)))
  if score.tempo is not None:
    tempo = score.tempo * rng.uniform(1 - _TEMPO_CHANGE, 1 + _TEMPO_CHANGE)
    score = fit_tempo(score, seconds, tempo, rng)
  else:
    score, tempo = fit(score, seconds, density, fill=recipe.fill, rng=rng)
  return score.with_parts([index for index, part in enumerate(score.parts) if len(part)]), tempo


def track_seconds(score: Score, tempo: float) -> float:
  """Return the duration of a fitted score's audio, s."""
  return score.length * 60.0 / tempo + TAIL_SECONDS


def arrange_for(
  score: Score, setup: Setup, split: str, rng: np.random.Generator, *, weights=None, exclude=frozenset()
) -> list[ArrangedPart]:
  """Arrange a fitted score for the instruments in the split's soundfonts."""
  recipe = setup.recipe
  available = setup.programs_of(split)
  return arrange(
    score,
    rng,
    palette=available if recipe.palette is None else available.intersection(recipe.palette),
    exclude=exclude,
    instruments=ALL_INSTRUMENTS if recipe.vary else INSTRUMENTS,
    weights=weights,
    keep_written=recipe.vary and rng.random() < _KEEP_WRITTEN,
  )


def make_track(track: TrackPlan, *, out: Path, setup: Setup) -> str | None:
  """Make one track of a data set; return None, or a line about why its music cannot be used.

  Raises UserError if the track cannot be written.
  """
  try:
    score, stems = _stems(track, setup)
  except UserError as error:
    return f'{track.source}: {error}'
  settings = setup.settings
  source = score.name if not track.take else f'{score.name}#{track.take}'
  folder = out / track.split / track.name
  write_track(
    folder,
    stems,
    sample_rate=settings.sample_rate,
    source=source,
    extras=settings.extras,
    music_licence=None if setup.palette is None else music_licence(track.source),
  )
  return None


def _stems(track, setup):
  rng = track_rng(setup.settings.seed, track.source, track.take)
  score, tempo = fitted(setup.library.read(track.source), setup, rng)
  seconds = track_seconds(score, tempo)
  make_stems = _pitched_stems if setup.palette is None else _sampled_stems
  stems = make_stems(score, tempo, seconds, track, setup, rng)
  if len(stems) < setup.recipe.min_parts:
    raise UserError(
      f'only {len(stems)} of its parts are audible with these soundfonts, not {setup.recipe.min_parts}; try others'
    )
  drums = _drums(score, tempo, setup, rng)
  if setup.palette is not None:
    stem = None
    if drums is not None and len(drums):
      stem = render_drums(setup.palette.of(track.split), drums, seconds, rng, rng.uniform(-6, 3))
    return score, stems if stem is None else [*stems, stem]
  fonts = [font for font in setup.fonts_of(track.split) if font.has_drums]
  if drums is not None and len(drums) and fonts:
    synth = _synth(_draw_font(fonts, rng).path)
    audio = synth.render(drums, 0, True, seconds)
    drums = drums[~silent_notes(audio, drums, synth.sample_rate)]  # the kit has no sound for these strokes
    stems.append(Stem(0, True, drums, audio, synth.name, rng.uniform(-6, 3) if setup.recipe.vary else 0.0))
  return score, stems


def _drums(score, tempo, setup, rng):
  if score.drums is not None and len(score.drums):
    return play_written_drums(score, tempo, rng)
  return play_drums(score, tempo, rng) if rng.random() < setup.settings.drums else None


def _pitched_stems(score, tempo, seconds, track, setup, rng):
  """Return the pitched stems; silent programs are excluded and the score arranged again until all are audible."""
  fonts = setup.fonts_of(track.split)
  silent = set()  # (program, font)
  parts = arrange_as_planned(score, track.programs) if track.programs else arrange_for(score, setup, track.split, rng)
  while True:
    stems = []
    for part in parts:
      usable = [font for font in fonts if font.has(part.program, False) and (part.program, font.path) not in silent]
      font = _draw_font(usable, rng)
      stem = _render_part(part, score, tempo, seconds, font, setup.recipe.vary, rng)
      if stem is None:
        silent.add((part.program, font.path))
      stems.append(stem)
    if None not in stems:
      return stems
    mute = {
      program
      for program, _ in silent
      if all((program, font.path) in silent for font in fonts if font.has(program, False))
    }
    parts = arrange_for(score, setup, track.split, rng, exclude=mute)


def _sampled_stems(score, tempo, seconds, track, setup, rng):
  """Return the pitched stems with the sounds of the palette; a part that none of them plays well is left out."""
  parts = arrange_as_planned(score, track.programs) if track.programs else arrange_for(score, setup, track.split, rng)
  sources, stems = setup.palette.of(track.split), []
  for part in parts:
    style = draw_style(rng)
    notes = perform(part, score, tempo, rng, style)
    stems.append(render_pitched(sources, part.program, notes, None, seconds, rng, style.gain_db))
  return [stem for stem in stems if stem is not None]


def _render_part(part, score, tempo, seconds, font, vary, rng):
  """Render a part as a stem; None if it is inaudible or sounds at another pitch."""
  synth = _synth(font.path)
  style = draw_style(rng) if vary else PLAIN
  notes = perform(part, score, tempo, rng, style)
  audio = synth.render(notes, part.program, False, seconds)
  loudness = integrated_loudness(audio, synth.sample_rate)
  if loudness is None or silent_share(audio, notes, synth.sample_rate) > _MAX_SILENT:
    return None
  checked = notes[np.unique(np.linspace(0, len(notes) - 1, _PITCH_CHECKS).astype(int))]
  if has_pitch(audio, checked['onset'], checked['pitch'], synth.sample_rate).mean() < _MIN_PITCHED:
    return None
  return Stem(part.program, False, notes, audio, synth.name, style.gain_db, loudness)


def _draw_font(fonts, rng):
  return fonts[0] if len(fonts) == 1 else fonts[rng.integers(len(fonts))]


# Loading a soundfont reads and checks the whole file.
@functools.lru_cache(maxsize=8)
def _synth(path):
  return Synth(path, SAMPLE_RATE)
