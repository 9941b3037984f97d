"""Predictions of a whole split, with gin files of a model and a run.

  python -m mrmt3.infer --gin_file=models/mr_mt3.gin --gin_file=runs/infer.gin --gin.CHECKPOINT_PATH=/tmp/mr_mt3 \\
    --gin.OUTPUT_DIR=/tmp/predictions --gin.DATA_DIR=/data/slakh2100_flac_redux

The names are those of t5x (`infer_script.infer`), implemented by `mrmt3.engine`. So are the names of the files:
<task>-predict.jsonl-00000-of-00001, and the same name with .COMPLETED when the file is complete.
"""

import functools
import inspect
import json
import shutil
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.training import main as training_main

MODES = ('predict', 'score', 'predict_with_aux')


def write_inferences_to_file(path, inferences, task_ds, mode: str, vocabulary=None) -> None:
  """Write one JSON line per example: inputs (features `*_pretokenized` only), prediction or score, and aux values.

  Args:
    path: output file.
    inferences: (predictions or scores, aux values), each with a leading axis of examples.
    task_ds: tf.data.Dataset of the task's examples.
    mode: one of MODES.
    vocabulary: decodes the predictions.
  """
  predictions, aux = inferences
  with open(path, 'w') as file:
    for row, example in enumerate(task_ds.as_numpy_iterator()):
      inputs = {name: _plain(value) for name, value in example.items() if name.endswith('_pretokenized')}
      line = {'inputs': inputs}
      if mode == 'score':
        line['score'] = _plain(predictions[row])
      else:
        line['prediction'] = _plain(vocabulary.decode_tf(np.asarray(predictions[row])))
      if aux:
        line['aux'] = {name: _plain(values[row]) for name, values in aux.items()}
      file.write(json.dumps(line) + '\n')


def _plain(value):
  value = value.numpy() if hasattr(value, 'numpy') else value
  if isinstance(value, bytes):
    return value.decode()
  return np.asarray(value).tolist()


def infer(
  *,
  mode: str,
  model,
  dataset_cfg,
  restore_checkpoint_cfg,
  partitioner,
  output_dir: str,
  checkpoint_period: int,
  shard_id: int = 0,
  num_shards: int = 1,
  merge_chunked_results: bool = True,
  write_fn: Callable = write_inferences_to_file,
  checkpoint_ds_iter: bool = True,
  fallback_init_rng: int | None = None,
  summarize_config_fn: Callable | None = None,
  output_vocab_feature_name: str = 'targets',
  file_extension: str = 'jsonl',
  use_orbax: bool = True,
  dry_run: bool = False,
) -> list[Path]:
  """Predict every example of a split, or of one of its shards, and write the results with `write_fn`.

  An interrupted run resumes after its last complete chunk. Chunks of another checkpoint, or of another size, are an
  error.

  Args:
    mode: 'predict', 'score' or 'predict_with_aux'.
    model: an EncoderDecoderModel with predict_batch and score_batch.
    dataset_cfg: utils.DatasetConfig.
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    output_dir: output folder.
    checkpoint_period: batches per chunk.
    shard_id: index of the shard, from 0.
    num_shards: number of shards of the split, which are predicted by separate runs.
    merge_chunked_results: whether to merge the chunks into one file; otherwise they stay in <file>-chunks/.
    write_fn: (path, inferences, task_ds, mode, vocabulary). inferences is (predictions, aux) as in t5x; if it is
      annotated as a Sequence, as in MT3, it is the predictions alone.
    checkpoint_ds_iter: accepted for compatibility with t5x and ignored; complete chunks are always skipped.
    fallback_init_rng: not supported, keep None.
    summarize_config_fn: called with (output_dir, None, 0); None writes config.gin.
    output_vocab_feature_name: feature whose vocabulary decodes the predictions.
    file_extension: extension of the files.
    use_orbax: accepted for compatibility with t5x and ignored; the checkpoint's format is detected.
    dry_run: check and show the configuration, the model and the first batch, then return.

  Returns:
    The paths of the files.

  Raises:
    UserError: the configuration is invalid, there is no such checkpoint, or the split is empty.
  """
  import seqio

  from mrmt3.engine import gin_utils, utils
  from mrmt3.training import config_checks, multihost, restore
  from mrmt3.training.dry_run import show_prediction
  from mrmt3.utils import files

  del checkpoint_ds_iter, use_orbax
  _check(mode, checkpoint_period, shard_id, num_shards, fallback_init_rng, restore_checkpoint_cfg)
  task = utils.resolve_task(dataset_cfg)
  partitioner.check_batch_size(dataset_cfg.batch_size, 'dataset_cfg')
  config_checks.check_lengths(model, dataset_cfg, 'dataset_cfg')
  paths = restore.checkpoint_paths(restore_checkpoint_cfg)
  if dry_run:
    return show_prediction(model, dataset_cfg, partitioner, paths)
  files.make_folder(output_dir)
  if shard_id == 0 and multihost.is_first():
    (summarize_config_fn or gin_utils.summarize_gin_config)(output_dir, None, 0)

  written, params = [], None
  for subtask in seqio.get_subtasks(task):
    path = Path(output_dir) / f'{subtask.name}-{mode}.{file_extension}-{shard_id:05}-of-{num_shards:05}'
    written.append(path)
    if multihost.any_host(Path(f'{path}.COMPLETED').exists()):
      print(f'{path} is complete already', file=sys.stderr, flush=True)
      continue
    task_ds = utils.task_examples(subtask, dataset_cfg, shard_id, num_shards)
    model_ds = model.FEATURE_CONVERTER_CLS(pack=False)(task_ds, dict(dataset_cfg.task_feature_lengths))
    if params is None:
      element = {name: tuple(spec.shape) for name, spec in model_ds.element_spec.items()}
      shapes = restore.parameter_shapes(model, *utils.batch_shapes(element, dataset_cfg.batch_size))
      params = partitioner.place_state(restore.restore(restore_checkpoint_cfg, paths[0], shapes)[0])
    gin_utils.Configuring.done()
    vocabulary = subtask.output_features[output_vocab_feature_name].vocabulary
    size = checkpoint_period * dataset_cfg.batch_size
    writer = _ChunkWriter(path, write_fn, mode, vocabulary, size, str(Path(paths[0]).resolve()))
    writer.write_all(_predictor(model, mode, params, dataset_cfg.batch_size, partitioner), task_ds, model_ds)
    if multihost.is_first():
      writer.finish(merge_chunked_results)
      print(path, flush=True)
  return written


def _check(mode, checkpoint_period, shard_id, num_shards, fallback_init_rng, restore_checkpoint_cfg) -> None:
  """Raise UserError for invalid arguments of `infer`."""
  from mrmt3.engine import utils

  if mode not in MODES:
    raise UserError(f'infer.mode is {mode!r}; choose from {", ".join(MODES)}')
  utils.require(fallback_init_rng is None, 'infer.fallback_init_rng')
  utils.require(restore_checkpoint_cfg.mode != 'all', "RestoreCheckpointConfig.mode = 'all' in infer")
  if checkpoint_period < 1 or not 0 <= shard_id < num_shards:
    raise UserError(
      f'infer: checkpoint_period is {checkpoint_period}, shard_id {shard_id} and num_shards {num_shards}; set '
      'checkpoint_period to at least 1, and shard_id to 0 .. num_shards - 1'
    )


def _predictor(model, mode: str, params, batch_size: int, partitioner):
  """Return the prediction.Predictor of a mode."""
  from mrmt3.training import prediction

  step = {'predict': model.predict_batch, 'score': model.score_batch}.get(mode, model.predict_batch_with_aux)
  return prediction.Predictor(step, params, batch_size, partitioner)


class _ChunkWriter:
  """Writes a split's results in chunks, <path>-chunks/chunkNNNNN, and merges them at the end.

  The checkpoint and the size of a chunk are recorded in <path>-chunks/.settings.json; chunks of others are not mixed.
  """

  def __init__(self, path: Path, write_fn: Callable, mode: str, vocabulary, size: int, checkpoint: str):
    from mrmt3.utils.journal import FolderJournal

    self._path, self._mode, self._size, self._checkpoint = path, mode, size, checkpoint
    self._write = functools.partial(write_fn, mode=mode, vocabulary=vocabulary)
    self._takes_pair = not _takes_predictions_alone(write_fn)
    self._chunks = FolderJournal(f'{path}-chunks', lambda number: f'chunk{number:05}')

  def _claim(self) -> None:
    """Record what the chunks are made with; UserError on every host if there are chunks of other settings."""
    from mrmt3.training import multihost
    from mrmt3.utils import files

    folder, problem = files.make_folder(self._chunks.folder), None
    if multihost.is_first():
      try:
        self._chunks.claim(
          '.settings.json',
          {'checkpoint': self._checkpoint, 'examples_per_chunk': self._size},
          broken='remove the folder',
          mismatch=f'{folder} holds predictions that were made with other settings ({{changed}}); remove it, '
          'or choose another output_dir',
        )
      except UserError as error:
        problem = error
    if multihost.any_host(problem is not None):
      raise problem or UserError(f'{folder} cannot be used; see the message of the first host')

  def write_all(self, predictor: Callable, task_ds, model_ds) -> None:
    """Write the missing chunks; UserError if the split has no examples."""
    from mrmt3.training import multihost

    self._claim()
    number = 0
    while True:
      if not multihost.any_host(multihost.is_first() and number in self._chunks):
        first = number * self._size
        results = predictor(model_ds.skip(first).take(self._size).enumerate())
        if not results:
          break
        if multihost.is_first():
          self._write_one(number, results, task_ds.skip(first).take(len(results)))
          print(f'{first + len(results)} examples done', file=sys.stderr, flush=True)
      number += 1
    if not number:
      raise UserError('infer: the split has no examples; check dataset_cfg')

  def _write_one(self, number: int, results: list, examples) -> None:
    from mrmt3.training import prediction

    outputs = prediction.as_arrays(results)
    outputs, aux = outputs if self._mode == 'predict_with_aux' else (outputs, {})
    with self._chunks.writing(number) as temporary:
      self._write(str(temporary), (outputs, aux) if self._takes_pair else outputs, examples)

  def finish(self, merge: bool) -> None:
    """Merge the chunks into one file, if `merge` is set, and mark it as complete."""
    from mrmt3.utils import files

    if merge:
      with files.atomic_path(self._path) as temporary, temporary.open('wb') as merged:
        for chunk in sorted(self._chunks.folder.glob('chunk?????')):
          with chunk.open('rb') as part:
            shutil.copyfileobj(part, merged)
      shutil.rmtree(self._chunks.folder)
    Path(f'{self._path}.COMPLETED').touch()


def _takes_predictions_alone(write_fn: Callable) -> bool:
  """Return whether `inferences` is annotated as a Sequence: magenta/mt3 precedes the pairs of t5x."""
  wrapped = inspect.unwrap(write_fn)
  annotation = inspect.get_annotations(wrapped).get('inferences')
  return typing.get_origin(annotation) is Sequence


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line; return the exit code, see `training.main`."""
  return training_main.main(infer, 'python -m mrmt3.infer', __doc__, argv)


if __name__ == '__main__':
  training_main.run_and_end(main)
