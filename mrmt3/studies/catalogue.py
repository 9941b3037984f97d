"""The studies. Each declares what it varies, what it is scored on, and which results it compares.

The command line's help imports this module, so it must not import anything slow.
"""

import dataclasses

MIXTURES, STEMS, BOTH = 'mixtures', 'stems', 'both'
MULTI, SINGLE, NOTES = 'multi-instrument', 'single-instrument', 'single notes'
TRAINING, MEMORY_PROBE, ORDER_PROBE, DECODING = 'training', 'memory probe', 'order probe', 'decoding'


@dataclasses.dataclass(frozen=True)
class TrainingRun:
  """One network to train.

  Attributes:
    name: name in the journal and in paths, which never changes.
    l_agg: number of memory frames, one of those in gin/ablations; None keeps the base's.
    max_hop: L_max_hop, likewise.
    shuffle: whether training permutes the events of one time step; None keeps the base's setting.
    ablations: names of additional files in gin/ablations.
    data: training data: MIXTURES, STEMS (each stem is a piece) or BOTH (mixtures and the same duration of stems).
    starts_from: name of the run of the same study whose weights initialize it; None: random weights.
    baseline: name of the run that it is compared with; None: no comparison.
    overrides: additional gin bindings.
    label: name in tables and messages; '': the same as `name`.
  """

  name: str
  l_agg: int | None = None
  max_hop: int | None = None
  shuffle: bool | None = None
  ablations: tuple[str, ...] = ()
  data: str = MIXTURES
  starts_from: str | None = None
  baseline: str | None = None
  overrides: tuple[str, ...] = ()
  label: str = ''

  def __post_init__(self):
    if not self.label:
      object.__setattr__(self, 'label', self.name)

  def flags(self) -> list[str]:
    """Return the training flags of this run, which follow the base's flags."""
    names = [] if self.l_agg is None else [f'l_agg_{self.l_agg}']
    names += [] if self.max_hop is None else [f'l_max_hop_{self.max_hop}']
    names += ['no_shuffle'] if self.shuffle is False else []
    bindings = ['SHUFFLE_SCOPE=paper'] if self.shuffle else []
    return [
      *(f'--gin_file=ablations/{name}.gin' for name in (*names, *self.ablations)),
      *(f'--gin.{binding}' for binding in (*bindings, *self.overrides)),
    ]


@dataclasses.dataclass(frozen=True)
class Study:
  """A study.

  Attributes:
    question: the question that it answers, one line of text.
    kind: TRAINING trains the runs; the other kinds examine an existing checkpoint.
    runs: networks to train, each after the one it starts from.
    tests: the test sets that each run is scored on.
    eval_points: number of evenly spaced training steps at which a run is scored, the last step included.
    axis: name of the varied quantity, if the runs' names are its values.
    steps: default number of training steps.
  """

  question: str
  kind: str = TRAINING
  runs: tuple[TrainingRun, ...] = ()
  tests: tuple[str, ...] = (MULTI,)
  eval_points: int = 1
  axis: str = ''
  steps: int = 4000

  def __post_init__(self):
    seen = set()
    for run in self.runs:
      if run.name in seen or not {run.starts_from, run.baseline} - {None} <= seen:
        raise ValueError(f'{run.name}: runs need unique names and must come after the runs they refer to')
      seen.add(run.name)


def _ladder(prefix: str = '', **fields) -> tuple[TrainingRun, ...]:
  """Return the paper's ablation from MT3 to MR-MT3: each run adds a component; all are compared with the first."""
  steps = [
    ('baseline', 0, 1, False),
    ('memory', 64, 1, False),
    ('+ prior sampling', 64, 3, False),
    ('+ shuffling', 64, 3, True),
  ]
  first = prefix + steps[0][0]
  return tuple(
    TrainingRun(prefix + name, l_agg, hop, shuffle, baseline=None if prefix + name == first else first, **fields)
    for name, l_agg, hop, shuffle in steps
  )


def _continual() -> tuple[TrainingRun, ...]:
  rate = {'starts_from': 'from scratch', 'overrides': ('schedules.warmup_cosine.peak=1e-4',)}
  return (TrainingRun('from scratch', l_agg=0, max_hop=1, shuffle=False), *_ladder('continued, ', **rate))


def _values(axis: str, values: tuple[int, ...], **fields) -> tuple[TrainingRun, ...]:
  first = str(values[0])
  return tuple(TrainingRun(str(v), **{axis: v}, **fields, baseline=None if str(v) == first else first) for v in values)


def _crossed() -> tuple[TrainingRun, ...]:
  return tuple(run for data in (MIXTURES, STEMS, BOTH) for run in _ladder(f'{data}: ', data=data))


STUDIES = {
  'ablations': Study(
    'How much do memory, prior sampling and shuffling each contribute when trained from scratch, and how do note and '
    'instrument scores develop during training?',
    runs=_ladder(),
    eval_points=5,
  ),
  'continual': Study(
    'How much do memory, prior sampling and shuffling each contribute when training continues from a network without '
    'memory?',
    runs=_continual(),
  ),
  'l-agg': Study(
    'How many memory frames (L_agg) are best, and what do they cost?',
    runs=_values('l_agg', (0, 32, 64, 128)),
    axis='L_agg',
  ),
  'memory-softmax': Study(
    'Does the decoder learn to use the memory with joint cross-attention, as in the paper, or with decoupled '
    'cross-attention?',
    runs=(
      TrainingRun('baseline', 0, 1, False),
      TrainingRun('one softmax', 64, 1, False, baseline='baseline', label='joint attention'),
      TrainingRun(
        'its own softmax',
        64,
        1,
        False,
        ablations=('decoupled_attention',),
        baseline='baseline',
        label='decoupled attention',
      ),
    ),
    eval_points=5,
  ),
  'l-max-hop': Study(
    'Which maximum hop to the prior segment (L_max_hop) is best in training?',
    runs=_values('max_hop', (1, 3, 8), l_agg=64),
    axis='L_max_hop',
  ),
  'exposure-bias': Study(
    'The memory holds true tokens in training and predicted tokens in use. Does it help to train with corrupted prior '
    'tokens, with memory dropout, or with predicted prior tokens?',
    runs=(
      TrainingRun('true prior', 64, 1, False),
      *(
        TrainingRun(name, 64, 1, False, ablations=(file,), baseline='true prior', label=label)
        for name, file, label in (
          ('prior with mistakes', 'corrupted_prior', 'corrupted prior'),
          ('prior now and then empty', 'memory_dropout', 'memory dropout'),
          ('prior now and then its own words', 'predicted_prior', 'predicted prior'),
        )
      ),
    ),
  ),
  'domains': Study(
    'Trained on mixtures, stems or both: how much do scores drop on simpler music, and which regulariser harms them?',
    runs=_crossed(),
    tests=(MULTI, SINGLE, NOTES),
  ),
  'frontier': Study(
    'How does a checkpoint trade onset F1 against instrument F1 when decoding is restricted to fewer instruments?',
    kind=DECODING,
  ),
  'memory-probe': Study(
    'How does a checkpoint use its memory: with other hops, with mistakes, with another piece, and how much attention '
    'does the memory get?',
    kind=MEMORY_PROBE,
  ),
  'order-probe': Study(
    "Does a checkpoint's loss depend on the order of the events of one time step?", kind=ORDER_PROBE
  ),
}
