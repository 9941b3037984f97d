"""What is studied: every study is a declaration of what it varies, what it is scored on and what is set beside what.

Read by the command line's help: nothing heavy may be imported here.
"""

import dataclasses

MIXTURES, STEMS, BOTH = 'mixtures', 'stems', 'both'
MULTI, SINGLE, NOTES = 'multi-instrument', 'single-instrument', 'single notes'
TRAINING, MEMORY_PROBE, ORDER_PROBE, DECODING = 'training', 'memory probe', 'order probe', 'decoding'


@dataclasses.dataclass(frozen=True)
class Cell:
  """One network to be trained.

  Attributes:
    name: in tables.
    l_agg: states of the memory, one of those in gin/ablations; None leaves what the base says.
    max_hop: L_max_hop, likewise.
    shuffle: whether tokens of one time step are permuted in training; None leaves what the base says.
    ablations: names of further files of gin/ablations.
    data: what it is trained on: MIXTURES, STEMS (each stem a piece) or BOTH (mixtures and as much time of stems).
    starts_from: name of the cell of the same study whose weights it starts from; None: fresh ones.
    against: name of the cell it is compared with; None: none.
    more: further gin bindings.
  """

  name: str
  l_agg: int | None = None
  max_hop: int | None = None
  shuffle: bool | None = None
  ablations: tuple[str, ...] = ()
  data: str = MIXTURES
  starts_from: str | None = None
  against: str | None = None
  more: tuple[str, ...] = ()

  def flags(self) -> list[str]:
    """Returns the training's flags that say what is varied; they come after the base's."""
    names = [] if self.l_agg is None else [f'l_agg_{self.l_agg}']
    names += [] if self.max_hop is None else [f'l_max_hop_{self.max_hop}']
    names += ['no_shuffle'] if self.shuffle is False else []
    bindings = ['SHUFFLE_SCOPE=paper'] if self.shuffle else []
    return [
      *(f'--gin_file=ablations/{name}.gin' for name in (*names, *self.ablations)),
      *(f'--gin.{binding}' for binding in (*bindings, *self.more)),
    ]


@dataclasses.dataclass(frozen=True)
class Study:
  """A study.

  Attributes:
    question: what it answers, for people.
    kind: TRAINING trains the cells; the others look at a checkpoint that is there.
    cells: networks to train, each after the one it starts from.
    tests: what each is scored on.
    moments: how many moments of a training are scored, evenly spaced, its end among them.
    axis: what the cells' names are values of, where they are values of one thing.
    steps: training steps, if the user does not say.
  """

  question: str
  kind: str = TRAINING
  cells: tuple[Cell, ...] = ()
  tests: tuple[str, ...] = (MULTI,)
  moments: int = 1
  axis: str = ''
  steps: int = 4000

  def __post_init__(self):
    seen = set()
    for cell in self.cells:
      if cell.name in seen or not {cell.starts_from, cell.against} - {None} <= seen:
        raise ValueError(f'{cell.name}: cells need names of their own, and to come after those they refer to')
      seen.add(cell.name)


def _ladder(prefix: str = '', **fields) -> tuple[Cell, ...]:
  """Returns the paper's steps from MT3 to MR-MT3, each with one thing more, all compared with the first."""
  rungs = [
    ('baseline', 0, 1, False),
    ('memory', 64, 1, False),
    ('+ prior sampling', 64, 3, False),
    ('+ shuffling', 64, 3, True),
  ]
  first = prefix + rungs[0][0]
  return tuple(
    Cell(prefix + name, l_agg, hop, shuffle, against=None if prefix + name == first else first, **fields)
    for name, l_agg, hop, shuffle in rungs
  )


def _continual() -> tuple[Cell, ...]:
  rate = {'starts_from': 'from scratch', 'more': ('schedules.warmup_cosine.peak=1e-4',)}
  return (Cell('from scratch', l_agg=0, max_hop=1, shuffle=False), *_ladder('continued, ', **rate))


def _values(axis: str, values: tuple[int, ...], **fields) -> tuple[Cell, ...]:
  first = str(values[0])
  return tuple(Cell(str(v), **{axis: v}, **fields, against=None if str(v) == first else first) for v in values)


def _crossed() -> tuple[Cell, ...]:
  return tuple(cell for data in (MIXTURES, STEMS, BOTH) for cell in _ladder(f'{data}: ', data=data))


STUDIES = {
  'ablations': Study(
    'What do memory, prior sampling and shuffling each bring, trained from scratch, and what do they do to notes and instruments '
    'over the training?',
    cells=_ladder(),
    moments=5,
  ),
  'continual': Study(
    'The same steps, trained on from a network without memory: what does each bring to weights that are there?',
    cells=_continual(),
  ),
  'l-agg': Study(
    'How many states should the memory have, and what do they cost?',
    cells=_values('l_agg', (0, 32, 64, 128)),
    axis='L_agg',
  ),
  'memory-softmax': Study(
    "Does a memory come to be read that shares a softmax with the sound, as the paper's, and one that has its own?",
    cells=(
      Cell('baseline', 0, 1, False),
      Cell('one softmax', 64, 1, False, against='baseline'),
      Cell('its own softmax', 64, 1, False, ablations=('decoupled_attention',), against='baseline'),
    ),
    moments=5,
  ),
  'l-max-hop': Study(
    'How far back may the prior segment lie in training?',
    cells=_values('max_hop', (1, 3, 8), l_agg=64),
    axis='L_max_hop',
  ),
  'exposure-bias': Study(
    'The memory holds the truth in training and what was written in use: does it help to train with mistakes in it, without it now and '
    "then, or with the network's own words?",
    cells=(
      Cell('true prior', 64, 1, False),
      *(
        Cell(name, 64, 1, False, ablations=(file,), against='true prior')
        for name, file in (
          ('prior with mistakes', 'corrupted_prior'),
          ('prior now and then empty', 'memory_dropout'),
          ('prior now and then its own words', 'predicted_prior'),
        )
      ),
    ),
  ),
  'domains': Study(
    'Trained on mixtures, stems or both: what is lost on simpler music, and which regulariser is too much for it?',
    cells=_crossed(),
    tests=(MULTI, SINGLE, NOTES),
  ),
  'frontier': Study(
    'What do right instruments cost in notes: onset F1 against instrument F1 of a checkpoint, by how many instruments decoding may use',
    kind=DECODING,
  ),
  'memory-probe': Study(
    'What does a checkpoint do with its memory: other hops, mistakes in it, another piece, and how much it looks at it?',
    kind=MEMORY_PROBE,
  ),
  'order-probe': Study('Does a checkpoint care in which order events of one time step are written?', kind=ORDER_PROBE),
}
