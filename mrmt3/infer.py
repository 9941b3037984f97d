"""Predictions of a whole split: `python -m mrmt3.infer --gin_file=models/mr_mt3.gin --gin_file=runs/infer.gin ...`.

The names are t5x's (`infer_script.infer`), answered by `mrmt3.engine`, and so are the files:
<task>-predict.jsonl-00000-of-00001, and .COMPLETED behind the same name when it is all there.
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
  """Writes a JSON line an example: inputs (features `*_pretokenized` only), and prediction or score (and aux).

  Args:
    path: file to write.
    inferences: (predictions or scores, aux values), each with a leading axis of examples.
    task_ds: tf.data.Dataset of the task's examples.
    mode: one of MODES.
    vocabulary: decodes predictions.
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
  """Predicts every example of a split, of the shard `shard_id` of `num_shards`, and writes what `write_fn` makes of it.

  Started again after it was stopped, it goes on after the last whole chunk.

  Args:
    mode: 'predict', 'score' or 'predict_with_aux'.
    model: an EncoderDecoderModel with predict_batch and score_batch.
    dataset_cfg: utils.DatasetConfig.
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    output_dir: folder for what is written.
    checkpoint_period: batches in a chunk.
    shard_id: which part of the split.
    num_shards: parts that the split is cut into, by several runs.
    merge_chunked_results: join the chunks to one file; else they stay in <file>-chunks/.
    write_fn: (path, inferences, task_ds, mode, vocabulary). inferences is (predictions, aux) as in t5x; a write_fn whose
      argument is annotated as a Sequence, as MT3's, gets the predictions alone.
    checkpoint_ds_iter: accepted for t5x's sake; chunks that are done are passed over without it.
    fallback_init_rng: not supported, keep None.
    summarize_config_fn: called with (output_dir, None, 0); None writes config.gin.
    output_vocab_feature_name: feature whose vocabulary decodes the predictions.
    file_extension: of the files written.
    use_orbax: accepted for t5x's sake; the format is told by the checkpoint.
    dry_run: check and show the configuration, the model and the first batch, then return.

  Returns:
    the files written.

  Raises:
    UserError: for a configuration that cannot work.
  """
  import seqio

  from mrmt3.engine import gin_utils, utils
  from mrmt3.training import config_checks, multihost, restore
  from mrmt3.training import dry_run as dry_running
  from mrmt3.utils import files

  del checkpoint_ds_iter, use_orbax
  _check(mode, checkpoint_period, shard_id, num_shards, fallback_init_rng, restore_checkpoint_cfg)
  task = utils.resolve_task(dataset_cfg)
  partitioner.check_batch_size(dataset_cfg.batch_size, 'dataset_cfg')
  config_checks.check_lengths(model, dataset_cfg, 'dataset_cfg')
  paths = restore.checkpoint_paths(restore_checkpoint_cfg)
  if dry_run:
    return dry_running.show_prediction(model, dataset_cfg, partitioner, paths)
  files.make_folder(output_dir)
  if shard_id == 0 and multihost.is_first():
    (summarize_config_fn or gin_utils.summarize_gin_config)(output_dir, None, 0)

  written, params = [], None
  for subtask in seqio.get_subtasks(task):
    path = Path(output_dir) / f'{subtask.name}-{mode}.{file_extension}-{shard_id:05}-of-{num_shards:05}'
    written.append(path)
    if multihost.any_host(Path(f'{path}.COMPLETED').exists()):
      print(f'{path} is there already', file=sys.stderr, flush=True)
      continue
    task_ds = utils.task_examples(subtask, dataset_cfg, shard_id, num_shards)
    model_ds = model.FEATURE_CONVERTER_CLS(pack=False)(task_ds, dict(dataset_cfg.task_feature_lengths))
    if params is None:
      element = {name: tuple(spec.shape) for name, spec in model_ds.element_spec.items()}
      shapes = restore.parameter_shapes(model, *utils.batch_shapes(element, dataset_cfg.batch_size))
      params = partitioner.place_state(restore.restore(restore_checkpoint_cfg, paths[0], shapes)[0])
    vocabulary = subtask.output_features[output_vocab_feature_name].vocabulary
    writer = _ChunkWriter(path, write_fn, mode, vocabulary, checkpoint_period * dataset_cfg.batch_size)
    writer.write_all(_predictor(model, mode, params, dataset_cfg.batch_size, partitioner), task_ds, model_ds)
    if multihost.is_first():
      writer.finish(merge_chunked_results)
      print(path, flush=True)
  return written


def _check(mode, checkpoint_period, shard_id, num_shards, fallback_init_rng, restore_checkpoint_cfg) -> None:
  """Raises UserError for arguments of `infer` that make no sense."""
  from mrmt3.engine import utils

  if mode not in MODES:
    raise UserError(f'infer.mode is {mode!r}; it is one of {", ".join(MODES)}')
  utils.require(fallback_init_rng is None, 'infer.fallback_init_rng')
  utils.require(restore_checkpoint_cfg.mode != 'all', "RestoreCheckpointConfig.mode = 'all' in infer")
  if checkpoint_period < 1 or not 0 <= shard_id < num_shards:
    raise UserError(
      f'infer: checkpoint_period is {checkpoint_period}, shard_id {shard_id} of num_shards {num_shards}; a chunk has 1 '
      'batch or more, and shards count from 0'
    )


def _predictor(model, mode: str, params, batch_size: int, partitioner):
  """Returns what computes the mode's results for a data set of model features."""
  from mrmt3.training import prediction

  step = {'predict': model.predict_batch, 'score': model.score_batch}.get(mode, model.predict_batch_with_aux)
  return prediction.Predictor(step, params, batch_size, partitioner)


class _ChunkWriter:
  """Writes a split's results a chunk at a time to <path>-chunks/chunkNNNNN, and joins them at the end."""

  def __init__(self, path: Path, write_fn: Callable, mode: str, vocabulary, size: int):
    self._path, self._mode, self._size = path, mode, size
    self._write = functools.partial(write_fn, mode=mode, vocabulary=vocabulary)
    self._takes_pair = not _takes_predictions_alone(write_fn)

  @property
  def _folder(self) -> Path:
    return Path(f'{self._path}-chunks')

  def write_all(self, predictor: Callable, task_ds, model_ds) -> None:
    """Writes every chunk that is not there yet; UserError where the split has no examples."""
    from mrmt3.training import multihost
    from mrmt3.utils import files

    files.make_folder(self._folder)
    number = 0
    while True:
      chunk = self._folder / f'chunk{number:05}'
      if not multihost.any_host(multihost.is_first() and chunk.exists()):
        first = number * self._size
        results = predictor(model_ds.skip(first).take(self._size).enumerate())
        if not results:
          break
        if multihost.is_first():
          self._write_one(chunk, results, task_ds.skip(first).take(len(results)))
          print(f'{first + len(results)} examples done', file=sys.stderr, flush=True)
      number += 1
    if not number:
      raise UserError('infer: the split has no examples')

  def _write_one(self, chunk: Path, results: list, examples) -> None:
    from mrmt3.training import prediction
    from mrmt3.utils import files

    outputs = prediction.as_arrays(results)
    outputs, aux = outputs if self._mode == 'predict_with_aux' else (outputs, {})
    with files.atomic_path(chunk) as temporary:
      self._write(str(temporary), (outputs, aux) if self._takes_pair else outputs, examples)

  def finish(self, merge: bool) -> None:
    """Joins the chunks to one file, if so wanted, and marks it as complete."""
    from mrmt3.utils import files

    if merge:
      with files.atomic_path(self._path) as temporary, temporary.open('wb') as merged:
        for chunk in _chunks(self._folder):
          with chunk.open('rb') as part:
            shutil.copyfileobj(part, merged)
      shutil.rmtree(self._folder)
    Path(f'{self._path}.COMPLETED').touch()


def _chunks(folder: Path) -> list[Path]:
  return sorted(folder.glob('chunk?????'))


def _takes_predictions_alone(write_fn: Callable) -> bool:
  """Returns whether `inferences` is annotated as a Sequence, as before t5x handed out pairs (magenta/mt3)."""
  wrapped = inspect.unwrap(write_fn)
  annotation = inspect.get_annotations(wrapped).get('inferences')
  return typing.get_origin(annotation) is Sequence


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code, see `engine.entry`."""
  return training_main.main(infer, 'python -m mrmt3.infer', __doc__.split('\n')[0], argv)


if __name__ == '__main__':
  training_main.run_and_end(main)
