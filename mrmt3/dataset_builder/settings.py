"""Validated settings of a data set: everything that determines its bytes."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from mrmt3.audio import soundfonts
from mrmt3.audio.soundfonts import Soundfont
from mrmt3.audio.synthesizer import Synth, default_soundfont
from mrmt3.dataset_builder.licences import is_permissive, music_licence
from mrmt3.dataset_builder.recipes import RECIPES, Recipe
from mrmt3.dataset_builder.sound_palette import Palette, open_palette
from mrmt3.dataset_builder.sources import MUSIC21, Library, open_library
from mrmt3.errors import UserError

SAMPLE_RATE = 16000
MIN_SECONDS, MAX_SECONDS = 4.0, 3600.0
ALL = 10**6  # pieces: all that are available
_FORMAT = 5  # raise it when the same settings give other bytes


@dataclasses.dataclass(frozen=True)
class Settings:
  """Everything that determines the bytes of a data set, as stored in dataset.json.

  Attributes:
    recipe: name of the recipe.
    pieces: number of tracks; `ALL` for all music there is, or with `hours`.
    hours: total duration of the audio, or None if `pieces` is given.
    seconds: duration of a track.
    seed: of all random choices.
    takes: number of arrangements of each piece.
    drums: fraction of the pieces without drums that get a drum part.
    soundfonts: [name, sha256] of the soundfonts.
    held_out: [name, sha256] of the test split's soundfonts; empty to use `soundfonts` there too.
    sources: names of the collections.
    sources_sha256: digest of the user's MIDI files.
    extras: whether tracks have the files of MR-MT3's loader.
    sample_rate: Hz.
    sounds: [name, digest] of the sound sources; empty if soundfonts are used.
    licence: 'permissive', or '' for any.
    format: version of the builder.
  """

  recipe: str
  pieces: int
  hours: float | None
  seconds: float
  seed: int
  takes: int
  drums: float
  soundfonts: list[list[str]]
  held_out: list[list[str]]
  sources: list[str]
  sources_sha256: str
  extras: bool
  sample_rate: int = SAMPLE_RATE
  sounds: list[list[str]] = dataclasses.field(default_factory=list)
  licence: str = ''
  format: int = _FORMAT

  def as_stored(self) -> dict:
    """Return the settings as stored in dataset.json; what only sets with a palette have is left out of others."""
    stored = dataclasses.asdict(self)
    return {key: value for key, value in stored.items() if value or key not in ('sounds', 'licence')}


@dataclasses.dataclass(frozen=True)
class Setup:
  """Settings with the objects that they name on this machine; sent to the worker processes."""

  settings: Settings
  recipe: Recipe
  library: Library
  fonts: tuple[Soundfont, ...]
  held_out: tuple[Soundfont, ...]
  palette: Palette | None = None

  def fonts_of(self, split: str) -> tuple[Soundfont, ...]:
    """Return the fonts that may be used in a split."""
    return self.held_out if split == 'test' and self.held_out else self.fonts

  def programs_of(self, split: str) -> frozenset[int]:
    """Return the programs that a split can play."""
    if self.palette is not None:
      return self.palette.programs(split)
    return frozenset().union(*(font.programs for font in self.fonts_of(split)))


def prepare(
  recipe: str | None,
  *,
  pieces: int | None = None,
  hours: float | None = None,
  seconds: float | None = None,
  seed: int = 0,
  takes: int = 1,
  drums: float | None = None,
  midi: Sequence[str | os.PathLike] = (),
  fonts: Sequence[str | os.PathLike] = (),
  held_out: Sequence[str | os.PathLike] = (),
  extras: bool = False,
  licence: str | None = None,
) -> tuple[Setup, list[str]]:
  """Validate the arguments of build.build and open the music and soundfonts that they name.

  Returns:
    (the setup, lines about what is missing or cannot be used).

  Raises:
    UserError: the settings are invalid, or no soundfont is usable.
  """
  name = recipe or ('midi' if midi else 'demo')
  if name not in RECIPES:
    raise UserError(f'no such recipe: {name!r}; use one of {", ".join(RECIPES)}')
  chosen = RECIPES[name]
  if name == 'midi' and not midi:
    raise UserError('the recipe midi needs a folder of MIDI files; name it with --midi DIR')
  if chosen.works is not None and (midi or hours is not None or takes != 1):
    raise UserError(
      f'the recipe {name} has its own pieces; leave out --midi, --hours and --takes, or use another recipe'
    )
  if pieces is not None and hours is not None:
    raise UserError('--pieces and --hours exclude each other; give one of them')
  seconds = chosen.seconds if seconds is None else float(seconds)
  drums = chosen.drums if drums is None else float(drums)
  if pieces is None:
    pieces = ALL if hours is not None else chosen.pieces
  _check_numbers(pieces, hours, seconds, seed, takes, drums)
  if licence not in (None, 'permissive'):
    raise UserError(f'no such choice of licences: {licence!r}; use permissive')
  palette, good, held, more = None, (), (), []
  if chosen.sounds is not None:
    if fonts or held_out:
      raise UserError(f'the recipe {name} has its own sounds; leave out --soundfont and --held-out')
    palette, lines = open_palette(chosen.sounds, permissive=licence == 'permissive')
  elif licence:
    raise UserError(f'the sounds of the recipe {name} have no declared licences; use --recipe wide with --licence')
  else:
    good, lines = _usable_fonts(fonts or [default_soundfont()], '--soundfont')
    held, more = _usable_fonts(held_out, '--held-out') if held_out else ((), [])
    soundfonts.check_held_out(good, held)
  library, missing = open_library(music21=chosen.music21, debian=chosen.debian, midi=midi)
  if licence:
    library = permissive_music(library)
  settings = Settings(
    recipe=name,
    pieces=pieces,
    hours=hours,
    seconds=seconds,
    seed=seed,
    takes=takes,
    drums=drums,
    soundfonts=[[font.path.name, font.sha256] for font in good],
    held_out=[[font.path.name, font.sha256] for font in held],
    sources=[
      *(['music21'] if library.music21 else []),
      *library.debian,
      *(f'midi/{name}' for name, _ in library.folders),
    ],
    sources_sha256=library.digest(),
    extras=extras,
    sounds=[] if palette is None else [list(pair) for pairs in palette.sources.values() for pair in pairs],
    licence=licence or '',
  )
  # Workers do not need the sample names.
  good, held = (tuple(dataclasses.replace(font, samples=frozenset()) for font in group) for group in (good, held))
  return Setup(settings, chosen, library, good, held, palette), [*lines, *more, *missing]


def permissive_music(library: Library) -> Library:
  """Return a library without the collections whose licence restricts the use; UserError if nothing is left."""
  kept = dataclasses.replace(
    library,
    music21=library.music21 and is_permissive(music_licence(MUSIC21)[0]),
    debian=tuple(name for name in library.debian if is_permissive(music_licence(f'{name}/')[0])),
  )
  if not kept.music21 and not kept.debian and not kept.folders:
    raise UserError(
      'no music that may be used for anything is installed; name your own with --midi, or apt-get install freedoom'
    )
  return kept


def _check_numbers(pieces, hours, seconds, seed, takes, drums):
  if not MIN_SECONDS <= seconds <= MAX_SECONDS:
    raise UserError(f'tracks of {seconds:g} s cannot be built; use {MIN_SECONDS:g} to {MAX_SECONDS:g} s')
  if hours is not None and not 0 < hours <= 10_000:
    raise UserError(f'a data set of {hours:g} hours cannot be built; use more than 0 and at most 10000')
  if seed < 0:
    raise UserError(f'the seed {seed} is negative; use 0 or more')
  if pieces < 2:
    raise UserError(f'a data set of {pieces} pieces has no test split; use 2 or more')
  if not 1 <= takes <= 100:
    raise UserError(f'cannot make {takes} takes of a piece; use 1 to 100')
  if not 0 <= drums <= 1:
    raise UserError(f'--drums {drums:g} is not a share; use 0 to 1')


def _usable_fonts(paths, option) -> tuple[tuple[Soundfont, ...], list[str]]:
  """Return the fonts that can be loaded, and a line for each other; if it is the only one, its error is raised."""
  good, lines = [], []
  for path in map(Path, paths):
    try:
      font = soundfonts.read_soundfont(path)
      Synth(path, SAMPLE_RATE)  # raises if it cannot be loaded
      good.append(font)
    except UserError as error:
      if len(paths) == 1:
        raise
      lines.append(f'left out: {error}')
      continue
    if len(font.programs) < 128 or not font.has_drums:
      lines.append(
        f'{path} is not a whole General MIDI soundfont: it has {len(font.programs)} of 128 programs'
        f'{"" if font.has_drums else " and no drums"}; only those are used'
      )
  if not good:
    raise UserError(f'none of the {len(paths)} soundfonts of {option} can be used ({lines[0]}); name another one')
  if len({font.sha256 for font in good}) < len(good):
    raise UserError(f'{option} names the same soundfont twice; leave one out')
  return tuple(good), lines
