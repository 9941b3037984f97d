"""Token shuffling (MR-MT3, section 3.3): events of one time step have no musical order, so training permutes them.

Whole events are permuted, before redundant state changes are removed.
"""

import dataclasses

import numpy as np

PAPER = 'paper'
MR_MT3 = 'mr_mt3'
SCOPES = (PAPER, MR_MT3)


@dataclasses.dataclass(frozen=True)
class Shuffle:
  """How events are shuffled.

  Attributes:
    scope: 'paper' permutes note-offs among note-offs and note-ons among note-ons, in every step. 'mr_mt3' is the
      published code: it permutes note-offs and note-ons together, but not the events of the segment's first and last
      step. A repeated note can come out as note-on, then note-off, and lose its length.
  """

  scope: str = PAPER

  def __post_init__(self):
    if self.scope not in SCOPES:
      raise ValueError(f'unknown shuffle scope {self.scope!r}: choose one of {SCOPES}')


def shuffled_order(
  steps: np.ndarray, is_onset: np.ndarray, keys: np.ndarray, shuffle: Shuffle, rng: np.random.Generator
) -> np.ndarray:
  """Return a permutation `[events]` of a segment's events that moves them only within their step.

  Args:
    steps: int `[events]`, steps since the start of the segment, not decreasing.
    is_onset: bool `[events]`, False for note-offs.
    keys: int `[events]`, a number per (instrument, pitch).
    shuffle: the scope.
    rng: random generator.
  """
  chance = rng.random(len(steps))
  if shuffle.scope == PAPER:
    rounds = _rounds(steps, is_onset, keys)
    most = rounds.max(initial=0) + 1
    return np.argsort(steps * most + rounds + chance)  # within a step by round, within a round at random
  if len(steps):
    fixed = (steps == 0) | (steps == steps[-1])
    chance = np.where(fixed, np.arange(len(steps)), chance)
  return np.lexsort((chance, steps))


def _rounds(steps, is_onset, keys):
  """Return each event's round within its step, int `[events]`: note-offs have even rounds, note-ons odd ones.

  The events of one key keep their order. Most steps have only rounds 0 (note-offs) and 1 (note-ons); a note shorter
  than a step ends in round 2.
  """
  groups = steps.astype(np.int64) * (keys.max(initial=0) + 1) + keys
  order = groups.argsort(kind='stable')
  groups, onset = groups[order], is_onset[order].astype(np.int64)
  is_first = np.full(len(order), True)
  is_first[1:] = groups[1:] != groups[:-1]
  waits = np.ones(len(order), np.int64)
  waits[1:] += onset[1:] == onset[:-1]
  waits[is_first] = onset[is_first]
  total = np.cumsum(waits)
  before = (total - waits)[is_first]
  rounds = np.empty_like(total)
  rounds[order] = total - before[np.cumsum(is_first) - 1]
  return rounds
