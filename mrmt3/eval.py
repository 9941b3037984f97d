"""Evaluation of checkpoints, with gin files of a model and a run.

  python -m mrmt3.eval --gin_file=models/mr_mt3.gin --gin_file=runs/eval.gin --gin.CHECKPOINT_PATH=/tmp/mr_mt3 \\
    --gin.OUTPUT_DIR=/tmp/scores --gin.DATA_DIR=/data/slakh2100_flac_redux

The names are those of t5x (`eval_script.evaluate`), implemented by `mrmt3.engine`. The metrics are the task's. Each
example goes through the model's predict_batch or score_batch once, independently of the others.
"""

import json
from collections.abc import Callable, Sequence

from mrmt3.training import main as training_main


def evaluate(
  *,
  model,
  dataset_cfg,
  restore_checkpoint_cfg,
  partitioner,
  output_dir: str,
  inference_evaluator_cls: Callable | None = None,
  summarize_config_fn: Callable | None = None,
  training_evaluator_cls: Callable | None = None,
  fallback_init_rng: int | None = None,
  use_orbax: bool = True,
  dry_run: bool = False,
) -> dict[int, dict]:
  """Evaluate one checkpoint, or all checkpoints of a folder.

  Writes output_dir/config.gin. Writes and prints one line per checkpoint, in
  output_dir/inference_eval/<task>-metrics.jsonl. With RestoreCheckpointConfig.mode 'all', checkpoints that already have
  a line are skipped.

  Args:
    model: an EncoderDecoderModel with predict_batch and score_batch.
    dataset_cfg: utils.DatasetConfig; the task must have metrics.
    restore_checkpoint_cfg: utils.RestoreCheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    output_dir: output folder.
    inference_evaluator_cls: seqio.Evaluator with its gin arguments; None is seqio.Evaluator with its defaults.
    summarize_config_fn: called with (output_dir, None, 0); None writes config.gin.
    training_evaluator_cls: not supported, keep None.
    fallback_init_rng: not supported, keep None.
    use_orbax: accepted for compatibility with t5x and ignored; the checkpoint's format is detected.
    dry_run: check and show the configuration, the model and the first batch, then return.

  Returns:
    {step: {task: {metric: value}}}.

  Raises:
    UserError: the configuration is invalid, or there is no such checkpoint.
  """
  from mrmt3.engine import gin_utils, utils
  from mrmt3.training import config_checks, multihost, restore
  from mrmt3.training.dry_run import show_prediction
  from mrmt3.training.inference_evaluator import InferenceEvaluator
  from mrmt3.utils import files

  del use_orbax
  utils.require(training_evaluator_cls is None, 'evaluate.training_evaluator_cls')
  utils.require(fallback_init_rng is None, 'evaluate.fallback_init_rng')
  utils.resolve_task(dataset_cfg)
  partitioner.check_batch_size(dataset_cfg.batch_size, 'dataset_cfg')
  config_checks.check_lengths(model, dataset_cfg, 'dataset_cfg')
  paths = restore.checkpoint_paths(restore_checkpoint_cfg)
  if dry_run:
    return show_prediction(model, dataset_cfg, partitioner, paths)

  evaluator = InferenceEvaluator(model, dataset_cfg, inference_evaluator_cls, partitioner, output_dir)
  files.make_folder(output_dir)
  if multihost.is_first():
    (summarize_config_fn or gin_utils.summarize_gin_config)(output_dir, None, 0)
  shapes = restore.parameter_shapes(model, *utils.batch_shapes(evaluator.feature_shapes, dataset_cfg.batch_size))
  results = {}
  for path in paths:
    params, step, _ = restore.restore(restore_checkpoint_cfg, path, shapes)
    if restore_checkpoint_cfg.mode == 'all' and multihost.any_host(multihost.is_first() and evaluator.is_done(step)):
      continue
    params = partitioner.place_state(params)
    gin_utils.Configuring.done()
    results[step] = evaluator.evaluate(params, step)
    for name, values in results[step].items():
      print(f'{name} {json.dumps({"step": step, **values})}', flush=True)
  evaluator.close()
  return results


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line; return the exit code, see `training.main`."""
  return training_main.main(evaluate, 'python -m mrmt3.eval', __doc__, argv)


if __name__ == '__main__':
  training_main.run_and_end(main)
