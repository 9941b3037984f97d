"""Recipes: which music a data set is made of, how dense and long it is, and for which instruments."""

import dataclasses
import typing

if typing.TYPE_CHECKING:  # the command line's help imports this module
  import numpy as np

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A kind of data set.

  Attributes:
    description: one line for the command line's help.
    pieces: default number of tracks; 10**6 for all.
    seconds: default duration of a track (the maximum, unless `fill`).
    fill: whether short pieces are repeated to that duration.
    notes_per_second: range of the pitched notes' density; each track draws a value from it.
    drums: fraction of the pieces without drums that get a drum part.
    min_parts: minimum number of pitched instruments of a track.
    shares: fraction of the tracks in each split.
    works: fixed sources for each split, used in this order; None to draw from all sources.
    palette: programs to use; None for all.
    music21: whether to draw from music21's corpus.
    debian: whether to draw from the Debian packages that are installed.
    vary: whether key, tempo, style and balance vary between tracks, and the Slakh classes are balanced.
    sounds: group of sound sources of each split (see sound_palette.py); None to use soundfonts.
  """

  description: str
  pieces: int
  seconds: float
  fill: bool
  notes_per_second: tuple[float, float]
  drums: float
  min_parts: int
  shares: dict[str, float]
  works: dict[str, tuple[str, ...]] | None = None
  palette: tuple[int, ...] | None = None
  music21: bool = True
  debian: bool = False
  vary: bool = True
  sounds: dict[str, str] | None = None


RECIPES = {
  'demo': Recipe(
    description='3 pieces to train on and 1 to test on, 48 s each, which a small model learns in minutes',
    pieces=4,
    seconds=48.0,
    fill=True,
    notes_per_second=(4.0, 4.6),
    drums=1.0,
    min_parts=3,
    shares={'train': 0.75, 'test': 0.25},
    works={
      'train': (
        'music21/bach/bwv227.1.mxl',
        'music21/haydn/opus1no1/movement2.mxl',
        'music21/mozart/k156/movement3.mxl',
        'music21/bach/bwv269.mxl',
        'music21/mozart/k80/movement3.mxl',
        'music21/monteverdi/madrigal.3.1.mxl',
        'music21/handel/rinaldo/Lascia_chio_pianga.mxl',
        'music21/bach/bwv245.3.mxl',
        'music21/haydn/opus1no1/movement4.mxl',
      ),
      'test': (
        'music21/bach/bwv40.8.mxl',
        'music21/johnson_j_r/lift_every_voice.mxl',
        'music21/mozart/k155/movement3.mxl',
      ),
    },
    # Their attacks are sharp, so that labels and audio agree, and their pitch is clear.
    palette=(0, 16, 24, 33, 40, 56, 70),
    vary=False,
  ),
  'held-out': Recipe(
    description='music that the bundled model was not trained on, a minute of each; `mrmt3 demo` transcribes it',
    pieces=3,
    seconds=60.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.5,
    min_parts=3,
    shares={'test': 1.0},
    works={
      'test': (
        'music21/schumann_clara/opus17/movement3.xml',
        'music21/weber/concertino_clarinet.mxl',
        'music21/monteverdi/madrigal.4.12.mxl',
        'music21/beethoven/opus132.mxl',
        'music21/bach/bwv6.6.mxl',
      ),
    },
  ),
  'corpus': Recipe(
    description="any number of pieces from music21's corpus, for all Slakh classes, split by work and tune",
    pieces=100,
    seconds=120.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.85,
    min_parts=3,
    shares={'train': 0.8, 'validation': 0.1, 'test': 0.1},
  ),
  'box': Recipe(
    description="the corpus and the music in Debian's freedoom, simutrans-data, openttd-openmsx and mma, if installed",
    pieces=200,
    seconds=180.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.5,
    min_parts=3,
    shares={'train': 0.8, 'validation': 0.1, 'test': 0.1},
    debian=True,
  ),
  'midi': Recipe(
    description='only the MIDI files of --midi DIR (the default with --midi)',
    pieces=10**6,
    seconds=240.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.0,
    min_parts=1,
    shares={'train': 0.8, 'validation': 0.1, 'test': 0.1},
    music21=False,
  ),
}
RECIPES['wide'] = dataclasses.replace(
  RECIPES['box'],
  description='the music of box, with all sound sources of `mrmt3 dataset sounds`; the test split has GeneralUser',
  min_parts=1,
  sounds={'train': 'training', 'validation': 'training', 'test': 'generaluser'},
)
RECIPES['wide-freepats'] = dataclasses.replace(
  RECIPES['wide'],
  description='as wide, with the second family of sounds kept for tests; use it with --tracks-of WIDE --split test',
  sounds=dict.fromkeys(SPLITS, 'freepats'),
)


def fixed_plan(recipe: Recipe, pieces: int) -> list[tuple[str, str]]:
  """Return (split, source) of the first `pieces` tracks of a recipe with fixed works, divided by its shares.

  Raises ValueError if the recipe has too few works.
  """
  total = sum(recipe.shares.values())
  counts = {split: max(1, int(pieces * share / total)) for split, share in recipe.shares.items()}
  largest = max(counts, key=recipe.shares.get)
  counts[largest] = pieces - sum(count for split, count in counts.items() if split != largest)
  for split, count in counts.items():
    if not 0 <= count <= len(recipe.works[split]):
      raise ValueError(f'{count} {split} pieces requested, {len(recipe.works[split])} available')
  return [(split, source) for split in SPLITS if split in counts for source in recipe.works[split][: counts[split]]]


def draw_order(sources: list[str], rng: 'np.random.Generator') -> list[str]:
  """Return all sources in random order, balanced between composers (or collections).

  A composer's share of the beginning is proportional to the square root of the number of their pieces.
  """
  import numpy as np

  composers = np.array([_composer(source) for source in sources])
  _, composer, counts = np.unique(composers, return_inverse=True, return_counts=True)
  shuffled = rng.permutation(len(sources))
  rank = np.zeros(len(sources))
  for index in range(len(counts)):
    own = shuffled[composer[shuffled] == index]
    rank[own] = (np.arange(len(own)) + rng.random()) / np.sqrt(counts[index])
  return [sources[index] for index in np.argsort(rank, kind='stable')]


def _composer(source):
  collection, rest = source.split('/', 1)
  return (
    rest.split('/')[0]
    if collection == 'music21'
    else f'{collection}/'
    if collection == 'mma'
    else source.rsplit('/', 1)[0]
  )
