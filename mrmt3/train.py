"""Training, with gin files of a model, an optimizer and a run. A run that was stopped resumes.

  python -m mrmt3.train --gin_file=models/mr_mt3.gin --gin_file=optimizers/mr_mt3.gin --gin_file=runs/train.gin \\
    --gin.MODEL_DIR=/tmp/mr_mt3 --gin.DATA_DIR=/data/slakh2100_flac_redux

The names are those of t5x (`train_script.train`, `utils.DatasetConfig`, ...), implemented by `mrmt3.engine`. `train`
runs from top to bottom: data, model, start state, logging, loop (`training.loop`).
"""

from collections.abc import Callable, Sequence

from mrmt3.training import main as training_main


def train(
  *,
  model,
  train_dataset_cfg,
  train_eval_dataset_cfg,
  infer_eval_dataset_cfg,
  checkpoint_cfg,
  partitioner,
  trainer_cls: Callable,
  model_dir: str,
  total_steps: int,
  eval_steps: int,
  eval_period: int,
  random_seed: int | None,
  summarize_config_fn: Callable,
  stats_period: int | None = None,
  inference_evaluator_cls: Callable | None = None,
  run_eval_before_training: bool = False,
  profile: int = 0,
  dry_run: bool = False,
  relative_steps: int | None = None,
  actions=None,
  use_hardware_rng: bool = False,
  concurrent_metrics: bool = True,
  use_orbax: bool = True,
  gc_period: int = 0,
) -> float:
  """Train to `total_steps`.

  A run starts from the latest checkpoint in model_dir, else from checkpoint_cfg.restore, else from initial parameters.
  A run that is resumed from a checkpoint ends with the same parameters as one that was not interrupted.

  Args:
    model: an engine.models.EncoderDecoderModel.
    train_dataset_cfg: utils.DatasetConfig of the training data.
    train_eval_dataset_cfg: utils.DatasetConfig for the loss on held-out data, or None.
    infer_eval_dataset_cfg: utils.DatasetConfig for metrics of predictions, or None.
    checkpoint_cfg: utils.CheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    trainer_cls: trainer.Trainer with its gin arguments.
    model_dir: folder for checkpoints and logs.
    total_steps: steps to have done at the end.
    eval_steps: maximum number of batches for the loss on held-out data.
    eval_period: steps between evaluations.
    random_seed: seed of the initial parameters, of dropout, and of data sets without a seed. None takes one from the
      clock and prints it; a run can only be repeated or resumed exactly with a fixed seed.
    summarize_config_fn: called with (model_dir, writer, step) to write the configuration.
    stats_period: steps between two log entries; None is eval_period.
    inference_evaluator_cls: seqio.Evaluator with its gin arguments; None is seqio.Evaluator with its defaults.
    run_eval_before_training: whether to evaluate before the first step.
    profile: number of steps, from the third one on, to profile to model_dir/profile (for TensorBoard or Perfetto).
    dry_run: check and show the configuration, the model and the first batch, then return.
    relative_steps: not supported, keep None.
    actions: not supported, keep None.
    use_hardware_rng: not supported, keep False.
    concurrent_metrics: accepted and ignored; metrics are computed between steps.
    use_orbax: accepted and ignored; checkpoints are Orbax checkpoints.
    gc_period: not supported, keep 0.

  Returns:
    The last reported loss per token, in nats.

  Raises:
    UserError: the configuration is invalid, the loss is not finite, or a checkpoint cannot be read or written.
  """
  import jax

  from mrmt3.engine import utils
  from mrmt3.training import config_checks, data_iterator, data_position, loop, restore, run_lock
  from mrmt3.training import evaluate as training_evaluate
  from mrmt3.training.dry_run import show_training
  from mrmt3.utils import files

  del concurrent_metrics, use_orbax
  config_checks.check_defaults(
    relative_steps=relative_steps, actions=actions, use_hardware_rng=use_hardware_rng, gc_period=gc_period
  )
  random_seed = config_checks.seed_or_clock(random_seed)
  batch_size, stats_period = train_dataset_cfg.batch_size, stats_period or eval_period
  config_checks.check_numbers(total_steps=total_steps, eval_steps=eval_steps, profile=profile, batch_size=batch_size)
  config_checks.check_periods(eval_period=eval_period, stats_period=stats_period)
  partitioner.check_batch_size(batch_size, 'train_dataset_cfg')
  config_checks.check_lengths(model, train_dataset_cfg, 'train_dataset_cfg')
  config_checks.check_lengths(model, train_eval_dataset_cfg, 'train_eval_dataset_cfg')

  # Data. The seed determines the order of examples; checkpoints store the position in it.
  dataset = utils.get_dataset(train_dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed)
  example_batch = data_iterator.zero_batch(dataset)
  config_checks.check_memory(example_batch, 'train_dataset_cfg')
  evaluations = training_evaluate.Evaluations(
    model,
    partitioner,
    random_seed,
    train_eval_dataset_cfg,
    eval_steps,
    infer_eval_dataset_cfg,
    inference_evaluator_cls,
    model_dir,
  )

  # Model.
  trainer = trainer_cls(model=model, partitioner=partitioner, rng=jax.random.key(random_seed))
  trainer.check_batch_size(batch_size)
  if dry_run:
    return show_training(trainer, dataset, example_batch)

  # Start state.
  files.make_folder(model_dir)
  with run_lock.only_run(model_dir):
    evaluations.prepare()
    state, origin = restore.start_state(trainer, checkpoint_cfg.restore, model_dir, example_batch)
    step = int(state.step)
    batches = data_iterator.DataIterator(
      dataset, utils.dataset_from(train_dataset_cfg, model.FEATURE_CONVERTER_CLS, random_seed)
    )
    fingerprint = data_position.data_fingerprint(train_dataset_cfg, random_seed)
    # Only the run's own checkpoints have a step; restored parameters of other runs start at step 0.
    rows = data_position.restore_position(batches, model_dir, step, fingerprint) if step else []

    # Logging.
    logs = loop.Logs(model_dir, step, total_steps, state, origin, summarize_config_fn)

    # Loop.
    run = loop.TrainRun(
      trainer,
      evaluations,
      logs,
      state,
      batches,
      rows,
      fingerprint,
      checkpoint_cfg.save,
      model_dir,
      lambda: utils.piece_names(train_dataset_cfg),
      batch_size,
    )
    return run.to(
      total_steps,
      eval_period=eval_period,
      stats_period=stats_period,
      evaluate_first=run_eval_before_training,
      profile=profile,
    )


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command line; return the exit code, see `training.main`."""
  return training_main.main(train, 'python -m mrmt3.train', __doc__, argv)


if __name__ == '__main__':
  training_main.run_and_end(main)
