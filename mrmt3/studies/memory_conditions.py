"""What can be put into a network's memory in place of what belongs there."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mrmt3.inference import memory
from mrmt3.inference.batched_pieces import until_eos
from mrmt3.inference.transcriber import Transcriber
from mrmt3.tokens import corruption


@dataclasses.dataclass(frozen=True)
class Condition:
  """What the memory holds while a segment is listened to.

  Attributes:
    name: in tables.
    hop: how many segments back the prior segment lies.
    drop: share of its notes that are left out, see `token_corruption`.
    replace: share of its pitches, drums and programs that are replaced by others.
    empty: whether it holds nothing, always.
    of_another: whether it is the prior segment of another piece.
    truth: whether it is what is really played, and not what the network said.
  """

  name: str
  hop: int = 1
  drop: float = 0.0
  replace: float = 0.0
  empty: bool = False
  of_another: bool = False
  truth: bool = False


AS_USED = Condition('as in use')
CONDITIONS = (
  AS_USED,
  Condition('the truth', truth=True),
  Condition('2 segments back', hop=2),
  Condition('3 segments back', hop=3),
  Condition('8 segments back', hop=8),
  Condition('5 % mistakes', drop=0.025, replace=0.025),
  Condition('20 % mistakes', drop=0.1, replace=0.1),
  Condition('50 % mistakes', drop=0.25, replace=0.25),
  Condition("another piece's", of_another=True),
  Condition('empty', empty=True),
)


def remembered(
  transcriber: Transcriber, condition: Condition, said: Sequence[np.ndarray], segment: int, rng: np.random.Generator
) -> memory.Memory:
  """Returns what the memory of a segment holds, one row, laid out as the network's own output is.

  Args:
    transcriber: the model.
    condition: what is put there.
    said: tokens of each segment of the piece that the memory is of, as many as there are yet, int32 `[<= targets_length]`
      each, padding 0 or none at the end.
    segment: number of the segment to be listened to. Where there is no prior one, or the condition is empty, the memory
      holds the empty segment.
    rng: randomness of mistakes.
  """
  spec = transcriber.spec
  held = memory.empty(spec, 1)._replace(adjacent=np.full(1, condition.hop == 1))
  last = min(segment - condition.hop, len(said) - 1)
  # Only the last few are there as tokens, but all have been heard, where the network counts that.
  first = 0 if spec.network.counts_classes else max(0, segment - condition.hop - spec.network.num_prior_segments + 1)
  for index in range(first, segment - condition.hop + 1):
    if condition.empty:
      break
    if index > last:
      held = memory.after(held, memory.empty(spec, 1).tokens[:, : spec.targets_length], spec)
      continue
    tokens = said[index]
    if condition.drop or condition.replace:
      tokens = corruption.corrupt_tokens(
        until_eos(tokens), transcriber.codec, drop=condition.drop, replace=condition.replace, rng=rng
      )
    held = memory.after(held, transcriber.padded(tokens)[None], spec)
  return held
