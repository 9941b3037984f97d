"""Writes a model's predictions for one of MT3's tasks: the write_fn of infer (as in MT3's inference; imports seqio)."""

import json
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf

import gin
from mrmt3 import metrics_utils, note_sequences, vocabularies
from mrmt3.data import mt3_postprocessing

_FIELDS = ('start_time', 'end_time', 'pitch', 'velocity', 'program', 'is_drum')


@gin.configurable(module='mrmt3.inference')
def write_inferences_to_file(
  path: str,
  inferences: Sequence[Any],
  task_ds: tf.data.Dataset,
  mode: str,
  vocabulary: seqio.Vocabulary | None = None,
  vocab_config: vocabularies.VocabularyConfig = gin.REQUIRED,
  onsets_only: bool = gin.REQUIRED,
  use_ties: bool = gin.REQUIRED,
  start_times: str = 'steps',
) -> None:
  """Write the id and the estimated notes of each piece as a line of JSON.

  Args:
    path: file to write.
    inferences: model ids `[segments, length]` in the data set's order, or a tuple that starts with them, as t5x's infer
      passes.
    task_ds: the task's examples: unique_id `[1]`, sequence `[frames]`, input_times `[frames]` s, raw_inputs
      `[samples]`.
    mode: 'predict'; 'score' is not supported.
    vocabulary: of the targets.
    vocab_config: from which the vocabulary was built.
    onsets_only: whether the tokens encode onsets only.
    use_ties: whether segments begin with a tie section.
    start_times: see `mt3_postprocessing.segment_start_time`.

  Raises:
    ValueError: mode is 'score', the vocabulary is missing, ties are combined with onsets only, or the pieces and
      predictions do not match.
  """
  if mode == 'score':
    raise ValueError('scores cannot be written as notes; use mode "predict"')
  if not vocabulary:
    raise ValueError('predictions cannot be decoded without a vocabulary; pass vocabulary')
  spec = note_sequences.encoding_spec(onsets_only=onsets_only, ties=use_ties)
  codec = vocabularies.build_codec(vocab_config)
  if isinstance(inferences, tuple):
    inferences = inferences[0]

  names, predictions = {}, []
  for example, tokens in zip(task_ds.as_numpy_iterator(), inferences, strict=False):
    ids = vocabulary.decode_tf(tf.convert_to_tensor(tokens, tf.int32)).numpy()
    predictions.append(mt3_postprocessing.postprocess(ids, example, False, codec, start_times))
    reference = mt3_postprocessing.parse_reference(example['sequence'][0])
    if reference is not None:
      names[example['unique_id'][0]] = reference.id
  pieces = metrics_utils.predicted_pieces(predictions, names, codec, spec)

  lines = []
  for unique_id in sorted(names):
    notes = [{field: getattr(note, field) for field in _FIELDS} for note in pieces[unique_id]['est_ns'].notes]
    lines.append(json.dumps({'id': names[unique_id], 'est_notes': notes}) + '\n')
  with tf.io.gfile.GFile(path, 'w') as file:
    file.write(''.join(lines))
