"""The options of a study, from the command line."""

import dataclasses
from pathlib import Path

from mrmt3.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
  """The options of a study.

  Attributes:
    data: data set in the Slakh2100 layout, or (for probes) any references with audio; None builds one.
    split: the split to test on.
    pieces: maximum number of pieces per test, except for rendered single notes; None: all.
    checkpoint: the checkpoint that probes examine.
    steps: number of training steps; None: the study's.
    eval_points: number of evenly spaced training steps at which a run is scored, the last step included; None: the
      study's.
    seeds: number of trainings per run.
    batch_size: examples per step.
    base: gin files of a complete training, which the study's flags override.
    bindings: additional gin bindings of all runs, NAME=VALUE.
    init_from: checkpoint that initializes the runs that would start with random weights.
    single: references of single-instrument music with audio; None: stems of the test split.
    notes: references of single notes with audio; None renders them.
  """

  data: Path | None = None
  split: str = 'test'
  pieces: int | None = None
  checkpoint: str | None = None
  steps: int | None = None
  eval_points: int | None = None
  seeds: int = 1
  batch_size: int = 16
  base: tuple[str, ...] = ('runs/study.gin',)
  bindings: tuple[str, ...] = ()
  init_from: str | None = None
  single: Path | None = None
  notes: Path | None = None


def eval_steps(steps: int, count: int) -> list[int]:
  """Return `count` evenly spaced steps at which a training is scored; UserError if `count` does not divide `steps`."""
  if steps % count or steps < count:
    raise UserError(
      f'{steps} steps cannot be divided into {count} equal parts for scoring; make --steps a multiple of {count}, or '
      'change --eval-points'
    )
  return [steps * (index + 1) // count for index in range(count)]
