"""Metrics of whole pieces for seqio tasks: tokens of all segments to notes, notes to the scores of `metrics`.

A task of pieces (features inputs `[segments, frames, mel]`, targets `[segments, length]`) takes

    seqio.TaskRegistry.add(..., postprocess_fn=piece_metrics.Postprocessor(spec), metric_fns=[piece_metrics.scores])

and needs a feature targets_pretokenized (any text, such as the piece's name): seqio decodes targets of rank 1 only.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from mrmt3 import vocabularies
from mrmt3.config import ModelSpec
from mrmt3.evaluation import summary
from mrmt3.inference import transcription
from mrmt3.notes import note_array as note_tables


class PieceNotes(NamedTuple):
  """A piece's name, '' where the task has no feature `piece`, and its note table."""

  name: str
  notes: np.ndarray


@dataclasses.dataclass(frozen=True)
class Postprocessor:
  """Turns a piece's targets, or what was predicted of it, into named notes.

  Attributes:
    spec: what the tokens belong to.
  """

  spec: ModelSpec

  def __call__(self, decoded, example, is_target: bool = False) -> PieceNotes:
    """Return the piece's name and notes.

    Args:
      decoded: of a prediction, regular ids of every segment, EOS and invalid ones negative, as the task's vocabulary
        decodes them; not looked at for a target.
      example: the task's example; of a target its feature notes (rows, see `notes`) counts, else its targets.
      is_target: whether this is a target.
    """
    name = example.get('piece', b'')
    name = name.decode() if isinstance(name, bytes) else str(name)
    if is_target and 'notes' in example:
      return PieceNotes(name, note_tables.as_notes(np.asarray(example['notes'])))
    if is_target:
      rows = list(example['targets'])
    else:
      rows = [vocabularies.encode_decoded_ids(ids) for ids in decoded[: len(example['targets'])]]
    return PieceNotes(name, transcription.decode_segments(rows, self.spec)[0])


_last: tuple[list, summary.Summary] | None = None  # predictions, as they came, and what they scored


def summarise(targets: list[PieceNotes], predictions: list[PieceNotes]) -> summary.Summary:
  """Return all scores of the pieces; asked again about the same list of predictions, it does not compute them again.

  Without the feature notes, the references are decoded from the targets, quantized to token steps.
  """
  global _last
  if _last is None or _last[0] is not predictions:
    pairs = enumerate(zip(targets, predictions, strict=True))
    results = [
      summary.score_piece(target.name or str(row), target.notes, found.notes) for row, (target, found) in pairs
    ]
    _last = predictions, summary.Summary(results)
  return _last[1]


def scores(targets: list[PieceNotes], predictions: list[PieceNotes]) -> dict[str, float]:
  """Return all scalars of the pieces, see `summary.Summary.scalars`; a metric function for seqio."""
  return summarise(targets, predictions).scalars()
