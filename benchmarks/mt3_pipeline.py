"""Times magenta/mt3's own training input pipeline. input_pipeline.py runs this file in a subprocess.

`write_records` writes pieces in the layout of MT3's Slakh records. As a script, this file imports nothing from mrmt3
and feeds these records to MT3's Slakh task. All steps are MT3's: tokenizing, splitting, the preprocessors after the
cache placeholder, the shuffle buffer of 1000 examples and the feature converter. There are two differences: the cache
is in memory instead of on disk, which favours MT3, and examples that are too long are skipped (MT3's `skip`) instead of
being an error.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Iterator

TASK = 'slakh_notes_ties_vb1_train'
WARM_UP_SECONDS = 5  # until tf.data's autotuning has settled


def write_records(path: str | os.PathLike, source, split: str, sample_rate: int) -> None:
  """Write the pieces of a split as TFRecords in the layout of MT3's Slakh data.

  Args:
    path: file to write.
    source: a `mrmt3.data.piece_source.PieceSource`.
    split: name of the split.
    sample_rate: sample rate, Hz.
  """
  import tensorflow as tf

  from mrmt3.note_sequences import notes_to_note_sequence
  from mrmt3.notes.instruments import instrument_name, instruments_of

  def strings(values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

  def numbers(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

  with tf.io.TFRecordWriter(os.fspath(path)) as writer:
    for name in source.list_pieces(split):
      piece = source.read_piece(split, name, sample_rate)
      notes = piece.notes[piece.notes['offset'] > piece.notes['onset']]  # MT3 fails on notes without length
      instruments = instruments_of(notes)
      sequences = [
        notes_to_note_sequence(notes[(notes['program'] == program) & (notes['is_drum'] == is_drum)])
        for program, is_drum in instruments
      ]
      features = {
        'audio_sample_rate': numbers([sample_rate]),
        'inst_names': strings([instrument_name(*instrument).encode() for instrument in instruments]),
        'mix': tf.train.Feature(float_list=tf.train.FloatList(value=piece.samples)),
        'note_sequences': strings([sequence.SerializeToString() for sequence in sequences]),
        'stems_shape': numbers([0, 0]),
        'target_type': strings([b'']),
        'track_id': strings([name.encode()]),
      }
      writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def measure(batches: Iterator[dict], seconds: float) -> dict:
  """Time an infinite stream of batches of model features after a warm-up.

  Returns:
    examples_per_second; cpu_seconds, the processor time per example, which is more reliable on a busy machine; and
    tokens_per_target.
  """
  next(batches)
  started, examples, tokens = time.perf_counter(), 0, 0
  while time.perf_counter() < started + WARM_UP_SECONDS:
    next(batches)
  started, cpu_started = time.perf_counter(), time.process_time()
  while (elapsed := time.perf_counter() - started) < seconds:
    batch = next(batches)
    examples += len(batch['decoder_target_tokens'])
    tokens += int((batch['decoder_target_tokens'] > 0).sum())
  cpu_seconds = (time.process_time() - cpu_started) / examples
  return {
    'examples_per_second': examples / elapsed,
    'cpu_seconds': cpu_seconds,
    'tokens_per_target': tokens / examples,
  }


def run(records: str, seconds: float, batch_size: int, lengths: dict[str, int]) -> dict:
  """Time MT3's pipeline over records from `write_records`. Returns the figures of `measure` and tokenize_seconds."""
  import seqio
  import tensorflow as tf
  from mt3 import datasets, models, preprocessors, tasks  # noqa: F401

  task = seqio.TaskRegistry.get(TASK)
  steps = task.preprocessors
  cached_until = [isinstance(step, seqio.CacheDatasetPlaceholder) for step in steps].index(True)

  def parse(record):
    return tf.io.parse_single_example(record, datasets.SLAKH_CONFIG.features)

  def read(split, shuffle_files=False, seed=None):
    return task.preprocess_precache(tf.data.TFRecordDataset(records).map(parse, tf.data.AUTOTUNE), seed=0)

  started = time.perf_counter()
  for _ in read('train'):
    pass
  tokenize_seconds = time.perf_counter() - started

  def skip_if_too_long(step):
    is_check = isinstance(step, functools.partial) and step.func is preprocessors.handle_too_long
    return functools.partial(step, skip=True) if is_check else step

  cached = read('train').cache()
  seqio.TaskRegistry.add(
    'cached',
    source=seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: cached, splits=['train']),
    preprocessors=[skip_if_too_long(step) for step in steps[cached_until + 1 :]],
    output_features=task.output_features,
  )
  dataset = seqio.get_dataset(
    'cached',
    lengths,
    models.ContinuousInputsEncDecFeatureConverter(pack=False),
    shuffle=True,
    num_epochs=None,
    seed=0,
    verbose=False,
  )
  batches = dataset.batch(batch_size, drop_remainder=True).prefetch(2).as_numpy_iterator()
  return {'tokenize_seconds': tokenize_seconds, **measure(batches, seconds)}


def main() -> None:
  """Print the result of `run` as JSON in the last line, and exit immediately."""
  parser = argparse.ArgumentParser()
  parser.add_argument('records')
  parser.add_argument('--seconds', type=float, required=True)
  parser.add_argument('--batch-size', type=int, required=True)
  parser.add_argument('--lengths', type=json.loads, required=True)
  args = parser.parse_args()
  print('\n' + json.dumps(run(args.records, args.seconds, args.batch_size, args.lengths)), flush=True)
  os._exit(0)  # does not wait for the pipeline's threads


if __name__ == '__main__':
  main()
