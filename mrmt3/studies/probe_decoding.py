"""Batched transcription of pieces with other contents in the memory."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.inference import static_batching
from mrmt3.inference.static_batching import ConditionedPiece
from mrmt3.inference.transcriber import Transcriber
from mrmt3.studies.memory_conditions import Condition, remembered
from mrmt3.studies.probe_pieces import ProbePiece

ROWS = 8  # pieces per batch


def transcribe(
  transcriber: Transcriber,
  pieces: Sequence[ProbePiece],
  condition: Condition,
  as_used: Mapping[str, list[np.ndarray]] | None = None,
  seed: int = 0,
  allowed: np.ndarray | None = None,
) -> dict[str, list[np.ndarray]]:
  """Return the tokens of each segment of each piece, int32 `[targets_length]` each, padded with 0.

  Args:
    transcriber: the model.
    pieces: the pieces to transcribe.
    condition: what the memory holds.
    as_used: predictions of the pieces in normal use; with `condition.of_another`, a piece gets those of the next piece.
    seed: seed of the mistakes in the memory.
    allowed: bool `[vocab]`, the tokens that decoding may use; None: all.
  """
  predicted, rows = {}, min(ROWS, len(pieces))
  for start in range(0, len(pieces), rows):
    group = pieces[start : start + rows]
    rng = np.random.default_rng((seed, start))
    conditioned = [
      ConditionedPiece(
        piece.mel, _memory_of(transcriber, condition, _sources(pieces, start + row, condition, as_used), rng)
      )
      for row, piece in enumerate(group)
    ]
    tokens = static_batching.decode(transcriber, conditioned, rows, allowed)
    predicted |= {piece.name: own for piece, own in zip(group, tokens, strict=True)}
  return predicted


def _memory_of(transcriber, condition, source, rng):
  """Return the `ConditionedPiece.memory_of` of a condition; `source`: see `_sources`."""
  return lambda decoded: remembered(transcriber, condition, source or decoded, len(decoded), rng)


def _sources(pieces, number, condition, as_used):
  """Return the tokens of the segments that fill a piece's memory, None for the model's own predictions."""
  if condition.of_another:
    own, other = pieces[number], pieces[(number + 1) % len(pieces)]
    segments = as_used[other.name]
    # A shorter piece is repeated.
    return [segments[index % len(segments)] for index in range(len(own.mel))]
  return list(pieces[number].targets) if condition.truth else None
