"""Metrics of a task's predictions with seqio.Evaluator, for `mrmt3.train` and `mrmt3.eval`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from mrmt3.engine import utils
from mrmt3.errors import UserError
from mrmt3.training import multihost, prediction
from mrmt3.utils import files


class InferenceEvaluator:
  """Predicts a split and writes its metrics to <log_dir>/inference_eval/<task>-metrics.jsonl.

  An evaluator without loggers gets those of `evaluation.seqio_loggers.DEFAULT`.

  Attributes:
    feature_shapes: shapes of the model's features, without the batch axis.
  """

  def __init__(self, model, config, evaluator_cls: Callable | None, partitioner, log_dir: str):
    """Read the data set.

    Args:
      model: an engine.models.EncoderDecoderModel.
      config: utils.DatasetConfig of the split.
      evaluator_cls: seqio.Evaluator with its gin arguments, or None.
      partitioner: partitioning.PjitPartitioner.
      log_dir: folder for the metrics.

    Raises:
      UserError: the task has no metrics for the split, or the batch size does not fit the devices.
    """
    import seqio

    task = utils.resolve_task(config)
    partitioner.check_batch_size(config.batch_size, 'the data set to infer from')
    self._model, self._config, self._partitioner = model, config, partitioner
    self._folder = Path(log_dir) / 'inference_eval'
    self._predictors = {}
    self._evaluator = (evaluator_cls or seqio.Evaluator)(
      mixture_or_task_name=config.mixture_or_task_name,
      feature_converter=model.FEATURE_CONVERTER_CLS(pack=False),
      eval_split=config.split,
      use_cached=config.use_cached,
      seed=config.seed,
      sequence_length=utils.lengths_or_none(config),
      use_memory_cache=config.use_memory_cache,
      log_dir=str(self._folder),
    )
    if not self._evaluator.eval_tasks:
      raise UserError(
        f'{task.name} has no metrics for the split {config.split!r}; choose another split, or register the task with '
        'metric_fns'
      )
    if not self._evaluator.loggers:
      from mrmt3.evaluation import seqio_loggers

      self._evaluator._loggers = tuple(cls(output_dir=str(self._folder)) for cls in seqio_loggers.DEFAULT)
    self.feature_shapes = self._evaluator.model_feature_shapes

  def is_done(self, step: int) -> bool:
    """Return whether the metrics of a step are written already."""
    return all(self._has_line(task.name, step) for task in self._evaluator.eval_tasks)

  def evaluate(self, params, step: int) -> dict[str, dict[str, float]]:
    """Compute, write and return the metrics as {task: {metric: value}}.

    All hosts predict. Only the first one computes the metrics; the others return an empty dictionary.

    Args:
      params: parameters, placed on the devices.
      step: their training step.
    """

    def run(name):
      return lambda dataset: prediction.uniform(self._predictor(name, params)(dataset))

    metrics, _ = self._evaluator.evaluate(
      compute_metrics=multihost.is_first(),
      step=step,
      predict_fn=run('predict_batch'),
      score_fn=run('score_batch'),
      predict_with_aux_fn=prediction.with_aux(run('predict_batch_with_aux')),
    )
    if not multihost.is_first():
      return {}
    results = {name: _plain(values) for name, values in metrics.result().items()}
    for name, values in results.items():
      if not self._has_line(name, step):  # otherwise one of the evaluator's loggers has written it
        with (files.make_folder(self._folder) / f'{name}-metrics.jsonl').open('a') as file:
          file.write(json.dumps({'step': step, **values}) + '\n')
    return results

  def _predictor(self, name: str, params) -> prediction.Predictor:
    """Return a jitted method of the model; it is compiled once per run, not once per evaluation."""
    if name not in self._predictors:
      method = getattr(self._model, name)
      self._predictors[name] = prediction.Predictor(method, params, self._config.batch_size, self._partitioner)
    self._predictors[name].params = params
    return self._predictors[name]

  def _has_line(self, name: str, step: int) -> bool:
    path = self._folder / f'{name}-metrics.jsonl'
    if not path.exists():
      return False
    return any(json.loads(line).get('step') == step for line in path.read_text().splitlines() if line.strip())

  def close(self) -> None:
    """End the evaluator's threads."""
    self._evaluator.close()


def _plain(values) -> dict[str, float]:
  """Return the numeric metrics as floats."""
  plain = {}
  for name, value in values.items():
    value = getattr(value, 'value', value)  # clu's Scalar
    try:
      plain[name] = float(value)
    except (TypeError, ValueError):
      print(f'mrmt3: {name} is not a number and is left out', file=sys.stderr)
  return plain
