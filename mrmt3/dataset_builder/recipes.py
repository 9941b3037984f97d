"""What a data set is made of: each recipe says which music, how dense, how long, and for which instruments."""

import dataclasses
import typing

if typing.TYPE_CHECKING:  # the command line's help reads this module and nothing heavier
  import numpy as np

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A kind of data set.

  Attributes:
    description: one line for the command line's help.
    pieces: how many tracks if the user does not say; 10**6 for all.
    seconds: length of a track (the most, where `fill` is False) if the user does not say.
    fill: whether short pieces are repeated to that length.
    notes_per_second: range of the pitched notes' density; one value a track is drawn from it.
    drums: share of the pieces without drums that get some.
    min_parts: fewest pitched instruments of a track.
    shares: share of the tracks in each split.
    works: fixed sources for each split, used in this order; None to draw from all there is.
    palette: programs to use; None for all.
    music21: whether to draw from music21's corpus.
    box: whether to draw from the Debian packages that are installed.
    vary: whether key, tempo, playing and balance vary from track to track, and rare classes get their share.
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
  box: bool = False
  vary: bool = True


RECIPES = {
  'demo': Recipe(
    description='3 pieces to train on and 1 to test on, 48 s each: what a small model learns in minutes',
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
    # They speak at once, so that labels and sound agree, and keep their pitch clear.
    palette=(0, 16, 24, 33, 40, 56, 70),
    vary=False,
  ),
  'held-out': Recipe(
    description='music that the model in the box never heard, a minute of each: what `mrmt3 demo` transcribes',
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
    description="any number of pieces from music21's corpus, for all Slakh classes, split by work and by tune",
    pieces=100,
    seconds=120.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.85,
    min_parts=3,
    shares={'train': 0.8, 'validation': 0.1, 'test': 0.1},
  ),
  'box': Recipe(
    description="the corpus and what Debian's freedoom, simutrans-data, openttd-openmsx and mma bring, if installed",
    pieces=200,
    seconds=180.0,
    fill=False,
    notes_per_second=(4.0, 10.0),
    drums=0.5,
    min_parts=3,
    shares={'train': 0.8, 'validation': 0.1, 'test': 0.1},
    box=True,
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


def fixed_plan(recipe: Recipe, pieces: int) -> list[tuple[str, str]]:
  """Returns (split, source) of the first `pieces` tracks of a recipe with fixed works, each split getting its share.

  ValueError where the recipe has not so many works.
  """
  total = sum(recipe.shares.values())
  counts = {split: max(1, int(pieces * share / total)) for split, share in recipe.shares.items()}
  largest = max(counts, key=recipe.shares.get)
  counts[largest] = pieces - sum(count for split, count in counts.items() if split != largest)
  for split, count in counts.items():
    if not 0 <= count <= len(recipe.works[split]):
      raise ValueError(f'{count} {split} pieces wanted, {len(recipe.works[split])} there')
  return [(split, source) for split in SPLITS if split in counts for source in recipe.works[split][: counts[split]]]


def draw_order(sources: list[str], rng: 'np.random.Generator') -> list[str]:
  """Returns all sources in random order, with composers (or collections) of few pieces not drowned by those of many.

  A composer's share of the beginning goes with the square root of how many pieces there are.
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
