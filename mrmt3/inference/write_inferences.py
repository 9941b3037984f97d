"""Writing what a model predicted for one of MT3's tasks: the write_fn of infer (as MT3's inference; imports seqio)."""

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
  """Writes a line of JSON for each piece: its id and its estimated notes.

  Args:
    path: file to write.
    inferences: model ids `[segments, length]`, in the order of the data set; or (model ids, anything else), as t5x's infer
      passes them.
    task_ds: the task's examples: unique_id `[1]`, sequence `[frames]`, input_times `[frames]` s, raw_inputs `[samples]`.
    mode: 'predict'; scores are not supported.
    vocabulary: the targets' vocabulary.
    vocab_config: what it was built from.
    onsets_only: whether tokens say only what begins.
    use_ties: whether they begin with a tie section.
    start_times: see `mt3_postprocessing.segment_start_time`.

  Raises:
    ValueError: for scores, without a vocabulary, or for ties with onsets only; or if pieces and predictions do not fit.
  """
  if mode == 'score':
    raise ValueError('scores cannot be written as notes: infer with mode "predict"')
  if not vocabulary:
    raise ValueError('predictions cannot be read without their vocabulary: give vocabulary')
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
