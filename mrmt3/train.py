"""Training: `python -m mrmt3.train --gin_file=runs/train.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...`.

The names are t5x's (`train_script.train`, `utils.DatasetConfig`, ...), answered by `mrmt3.engine`. `train` reads top to
bottom in the order things happen: data, model, start state, logging, loop (`engine.train_run`).
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
  """Trains to `total_steps`, from the newest checkpoint in model_dir where there is one.

  Start order: the newest checkpoint in model_dir, then checkpoint_cfg.restore, then fresh weights. With the same seed, a
  run that was stopped after a checkpoint and started again ends with the same weights as one that was not.

  Args:
    model: an engine.models.EncoderDecoderModel.
    train_dataset_cfg: utils.DatasetConfig to learn from.
    train_eval_dataset_cfg: utils.DatasetConfig for the loss on other data, or None.
    infer_eval_dataset_cfg: utils.DatasetConfig for metrics of predictions, or None.
    checkpoint_cfg: utils.CheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    trainer_cls: trainer.Trainer with its gin arguments.
    model_dir: folder for checkpoints and logs.
    total_steps: steps to have done at the end.
    eval_steps: batches of an evaluation, at most.
    eval_period: steps between evaluations.
    random_seed: of weights, dropout, and data whose config has no seed of its own. None takes one from the clock, and says
      which; only with a number can a run be repeated or taken up again exactly.
    summarize_config_fn: called with (model_dir, writer, step) to write down the configuration.
    stats_period: steps between reported numbers; None takes eval_period.
    inference_evaluator_cls: seqio.Evaluator with its gin arguments; None takes it as it is.
    run_eval_before_training: evaluate once before the first step.
    profile: number of steps, from the third on, to write a profile of, to model_dir/profile (TensorBoard, Perfetto).
    dry_run: check and show the configuration, the model and the first batch, then return.
    relative_steps: not supported, keep None.
    actions: not supported, keep None.
    use_hardware_rng: not supported, keep False.
    concurrent_metrics: accepted; metrics are computed between steps.
    use_orbax: accepted; checkpoints are Orbax's.
    gc_period: not supported, keep 0.

  Returns:
    the last reported loss per token.

  Raises:
    UserError: for a configuration that cannot work.
  """
  import jax

  from mrmt3.engine import utils
  from mrmt3.training import config_checks, data_iterator, data_position, loop, restore, run_lock
  from mrmt3.training import dry_run as dry_running
  from mrmt3.training import evaluate as training_evaluate
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

  # Data: the order follows from the seed, and a checkpoint has the position in it.
  dataset = utils.get_dataset(train_dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed)
  example_batch = data_iterator.zero_batch(dataset)
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
    return dry_running.show_training(trainer, dataset, example_batch)

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
    # Only the run's own checkpoint has steps; other weights are started from at step 0.
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
  """Command line; returns the exit code, see `engine.entry`."""
  return training_main.main(train, 'python -m mrmt3.train', __doc__.split('\n')[0], argv)


if __name__ == '__main__':
  training_main.run_and_end(main)
