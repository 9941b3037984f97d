"""Metrics of whole pieces for seqio tasks: tokens of all segments to notes, notes to the scores of `metrics`.

A task of pieces (features inputs `[segments, frames, mel]`, targets `[segments, length]`) takes

    seqio.TaskRegistry.add(..., postprocess_fn=piece_metrics.Postprocessor(spec), metric_fns=[piece_metrics.scores])

and needs a feature targets_pretokenized (any text, such as the piece's name): seqio decodes targets of rank 1 only.
"""

import dataclasses

import numpy as np

from mrmt3 import metrics, vocabularies
from mrmt3 import notes as note_tables
from mrmt3.config import ModelSpec
from mrmt3.note_sequences import decode_piece, encoding_spec


@dataclasses.dataclass(frozen=True)
class Postprocessor:
  """Turns a piece's targets, or what was predicted of it, into a note table.

  Attributes:
    spec: what the tokens belong to.
  """

  spec: ModelSpec

  def __call__(self, decoded, example, is_target: bool = False) -> np.ndarray:
    """Returns the notes.

    Args:
      decoded: of a prediction, regular ids of every segment, EOS and invalid ones negative, as the task's vocabulary
        decodes them; not looked at for a target.
      example: the task's example; of a target its feature notes (rows, see `notes`) counts, else its targets.
      is_target: whether this is a target.
    """
    if is_target and 'notes' in example:
      return note_tables.as_notes(np.asarray(example['notes']))
    count = len(example['targets'])
    rows = list(example['targets']) if is_target else [self._model_ids(ids) for ids in decoded[:count]]
    starts = [row * self.spec.segment_frames for row in range(count)]
    codec = vocabularies.build_codec(self.spec.vocabulary)
    frame_rate, tokens_hold = self.spec.spectrogram.frame_rate, encoding_spec(self.spec.ties)
    return decode_piece(rows, starts, codec, spec=tokens_hold, frames_per_second=frame_rate)[0]

  def _model_ids(self, ids) -> np.ndarray:
    ids = np.asarray(ids, np.int32)
    special = np.where(ids == vocabularies.DECODED_EOS_ID, vocabularies.EOS_ID, vocabularies.UNK_ID)
    return np.where(ids < 0, special, ids + vocabularies.SPECIAL_TOKENS)


def scores(targets: list[np.ndarray], predictions: list[np.ndarray]) -> dict[str, float]:
  """Returns the mean scores over pieces, of note tables; see `metrics.evaluate_piece`.

  References of a task without the feature notes are what its targets say, in whole token steps.
  """
  pairs = {str(row): pair for row, pair in enumerate(zip(targets, predictions, strict=True))}
  return metrics.evaluate_pieces(pairs).mean
