"""The options of a study, as the command line takes them."""

import dataclasses
from pathlib import Path

from mrmt3.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
  """What the user chose.

  Attributes:
    data: data set in the Slakh2100 layout, or (for probes) any references with audio; None: one is built.
    split: which split is tested on.
    pieces: only the first so many pieces of a test, but for single notes that are rendered; None: all.
    checkpoint: what probes look at.
    steps: training steps; None: the study's.
    moments: how many moments of a training are scored, evenly spaced, the end among them; None: as many as the study says.
    seeds: how many times each network is trained.
    batch_size: examples a step.
    base: gin files of a whole training run, which the study's are laid over.
    bindings: further gin bindings of all cells, NAME=VALUE.
    init_from: checkpoint that cells start from which the study starts afresh.
    single: references of single-instrument music with audio; None: stems of the test split.
    notes: references of single notes with audio; None: rendered.
  """

  data: Path | None = None
  split: str = 'test'
  pieces: int | None = None
  checkpoint: str | None = None
  steps: int | None = None
  moments: int | None = None
  seeds: int = 1
  batch_size: int = 16
  base: tuple[str, ...] = ('runs/study.gin',)
  bindings: tuple[str, ...] = ()
  init_from: str | None = None
  single: Path | None = None
  notes: Path | None = None


def moments(steps: int, count: int) -> list[int]:
  """Returns the steps after which a training of `steps` is scored; UserError if they do not come out even."""
  if steps % count or steps < count:
    raise UserError(
      f'{steps} steps cannot be scored at {count} even moments; give a multiple of {count} as --steps, or other --moments'
    )
  return [steps * (index + 1) // count for index in range(count)]
