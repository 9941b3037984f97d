"""Memory conditions: other contents for a network's memory than its own predictions of the prior segment."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mrmt3.inference import memory
from mrmt3.inference.batched_pieces import until_eos
from mrmt3.inference.transcriber import Transcriber
from mrmt3.tokens import corruption


@dataclasses.dataclass(frozen=True)
class Condition:
  """What the memory holds when a segment is transcribed.

  Attributes:
    name: name in tables and results.
    hop: number of segments between the prior segment and the current one.
    drop: share of its notes that are dropped, see `tokens.corruption`.
    replace: share of its pitches, drums and programs that are replaced.
    empty: whether the memory is always empty.
    of_another: whether the prior segment comes from another piece.
    truth: whether the memory holds the true tokens instead of the network's predictions.
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
  transcriber: Transcriber, condition: Condition, prior: Sequence[np.ndarray], segment: int, rng: np.random.Generator
) -> memory.Memory:
  """Return the memory for a segment, one row, in the layout of the network's own output.

  Args:
    transcriber: the model.
    condition: what the memory holds.
    prior: tokens of the segments so far of the piece that fills the memory, int32 `[<= targets_length]` each, with or
      without padding (0).
    segment: number of the segment to transcribe. Without a prior segment, or if the condition is empty, the memory
      holds the empty segment.
    rng: random generator for mistakes.
  """
  spec = transcriber.spec
  held = memory.empty(spec, 1)._replace(adjacent=np.full(1, condition.hop == 1))
  last = min(segment - condition.hop, len(prior) - 1)
  # The memory has the tokens of the last few segments only. A network that counts instruments needs all segments.
  first = 0 if spec.network.counts_classes else max(0, segment - condition.hop - spec.network.num_prior_segments + 1)
  for index in range(first, segment - condition.hop + 1):
    if condition.empty:
      break
    if index > last:
      held = memory.after(held, memory.empty(spec, 1).tokens[:, : spec.targets_length], spec)
      continue
    tokens = prior[index]
    if condition.drop or condition.replace:
      tokens = corruption.corrupt_tokens(
        until_eos(tokens), transcriber.codec, drop=condition.drop, replace=condition.replace, rng=rng
      )
    held = memory.after(held, transcriber.padded(tokens)[None], spec)
  return held
