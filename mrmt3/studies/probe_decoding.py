"""Batched transcription of pieces with other contents in the memory."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrmt3.inference import memory
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
  """Returns the tokens of each segment of each piece, int32 `[targets_length]` each, padded with 0.

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
    sources = [_sources(pieces, start + row, condition, as_used) for row in range(len(group))]
    predicted |= _group(transcriber, group, sources, condition, (seed, start), rows, allowed)
  return predicted


def _sources(pieces, number, condition, as_used):
  """Returns the tokens of the segments that fill a piece's memory, None for the model's own predictions."""
  if condition.of_another:
    own, other = pieces[number], pieces[(number + 1) % len(pieces)]
    segments = as_used[other.name]
    # A shorter piece is repeated.
    return [segments[index % len(segments)] for index in range(len(own.mel))]
  return list(pieces[number].targets) if condition.truth else None


def _group(transcriber, pieces, sources, condition, seed, rows, allowed):
  predicted = [[] for _ in pieces]
  rng = np.random.default_rng(seed)
  _, frames, depth = pieces[0].mel.shape
  for segment in range(max(len(piece.mel) for piece in pieces)):
    inputs = np.zeros((rows, frames, depth), np.float32)
    held = [memory.empty(transcriber.spec, 1)] * rows
    active = np.zeros(rows, bool)
    for row, piece in enumerate(pieces):
      if segment < len(piece.mel):
        inputs[row], active[row] = piece.mel[segment], True
        held[row] = remembered(transcriber, condition, sources[row] or predicted[row], segment, rng)
    tokens = transcriber.decode_rows(inputs, memory.joined(held), active, allowed)
    for row in np.flatnonzero(active):
      predicted[row].append(transcriber.padded(tokens[row]))
  return {piece.name: tokens for piece, tokens in zip(pieces, predicted, strict=True)}
