"""Training: `python -m mrmt3.train --gin_file=runs/train.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...`.

The names are t5x's (`train_script.train`, `utils.DatasetConfig`, ...), answered by `mrmt3.engine`. `train` reads top to
bottom in the order things happen: data, model, logging, start state, loop.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence

from mrmt3.engine import entry
from mrmt3.engine.data_iterator import EXAMPLE_ID
from mrmt3.errors import UserError

PROGRESS_NAME = 'progress.json'


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

  from mrmt3 import files, reporting
  from mrmt3.engine import data_iterator, run_log, saving, stopping, utils
  from mrmt3.engine.inference_evaluator import InferenceEvaluator

  del concurrent_metrics, use_orbax
  check_defaults(relative_steps=relative_steps, actions=actions, use_hardware_rng=use_hardware_rng, gc_period=gc_period)
  if random_seed is None:
    random_seed = time.time_ns() % 2**31
    print(f'random_seed is None, taken from the clock: {random_seed}', file=sys.stderr, flush=True)
  if jax.process_count() > 1:
    raise UserError('train runs on one host with any number of devices; several hosts are not supported yet')
  check_numbers(total_steps=total_steps, eval_steps=eval_steps, eval_period=eval_period, random_seed=random_seed, profile=profile)
  stats_period = stats_period or eval_period
  if min(eval_period, stats_period) < 1:
    raise UserError(f'train.eval_period is {eval_period}, stats_period {stats_period}; they count steps, from 1')
  check_numbers(batch_size=train_dataset_cfg.batch_size)
  partitioner.check_batch_size(train_dataset_cfg.batch_size, 'train_dataset_cfg')

  for cfg, name in ((train_dataset_cfg, 'train_dataset_cfg'), (train_eval_dataset_cfg, 'train_eval_dataset_cfg')):
    check_lengths(model, cfg, name)

  # Data: the order follows from the seed, and a checkpoint has the position in it.
  dataset = utils.get_dataset(train_dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed)
  example_batch = zero_batch(dataset)
  evaluate = _evaluator(model, train_eval_dataset_cfg, eval_steps, random_seed, partitioner)

  # Model.
  trainer = trainer_cls(model=model, partitioner=partitioner, rng=jax.random.key(random_seed))
  trainer.check_batch_size(train_dataset_cfg.batch_size)

  if dry_run:
    return show_dry_run(model, trainer, partitioner, dataset, example_batch)
  infer = None
  if infer_eval_dataset_cfg is not None:
    infer = InferenceEvaluator(model, infer_eval_dataset_cfg, inference_evaluator_cls, partitioner, model_dir)

  # Start state.
  files.make_folder(model_dir)
  state, origin = start_state(trainer, checkpoint_cfg, model_dir, example_batch)
  step = int(state.step)
  batches = data_iterator.DataIterator(dataset)
  fingerprint = data_fingerprint(train_dataset_cfg, random_seed)
  rows = take_up(batches, model_dir, step, fingerprint) if step and origin.startswith('resum') else []

  # Logging.
  writer = reporting.ScalarWriter(model_dir, 'train', step)
  summarize_config_fn(model_dir, writer, 0)
  eval_writer = reporting.ScalarWriter(model_dir, 'training_eval', step) if evaluate else None
  count = reporting.write_model_info(model_dir, state.state_dict())
  print(f'{origin}; {count:,} parameters; step {step} of {total_steps}', file=sys.stderr, flush=True)
  progress = reporting.TrainProgress(step, total_steps)

  # Loop.
  save_cfg = checkpoint_cfg.save
  saver = saving.CheckpointSaver(model_dir, getattr(model, 'spec', None), save_cfg and save_cfg.keep)
  # Hosts would have to agree on a length.
  trim = model.trim_batch if jax.process_count() == 1 and hasattr(model, 'trim_batch') else lambda batch: batch
  log = run_log.RunLog(train_dataset_cfg.batch_size, step, rows)
  summary = {'loss': float('nan')}

  def save() -> None:
    log.check()  # so that no checkpoint has weights that are not numbers
    progress_file = {'rows': log.rows, 'data': fingerprint}
    saver.save(step, state.state_dict(), {**batches.save(), PROGRESS_NAME: json.dumps(progress_file).encode()})

  def evaluate_now() -> None:
    since = log.pause()
    if evaluate:
      eval_writer.write_scalars(step, evaluate(trainer, state.params))
    if infer:
      infer.evaluate(state.params, step)
    log.go_on(since)

  profiler = reporting.Profiler(model_dir, first=step + 3, steps=profile)
  try:
    if run_eval_before_training:
      evaluate_now()
    with stopping.StopRequest() as stop:
      while step < total_steps:
        profiler.before(step + 1, state)
        batch, ids = data_iterator.split_ids(next(batches))
        state, numbers = trainer.train_step(state, partitioner.place_batch(trim(batch)))
        step += 1
        log.add(numbers, ids)
        progress.advance()
        if step % stats_period == 0 or step == total_steps:
          summary = log.report(batches.waited)
          writer.write_scalars(step, summary)
          progress.show(step, summary)
        if step % eval_period == 0 or step == total_steps:
          evaluate_now()
        is_due = save_cfg is not None and save_cfg.is_due(step, total_steps)
        if is_due or (stop.requested and save_cfg is not None):
          save()
        if stop.requested and step < total_steps:
          saver.wait()
          where = f'saved checkpoint_{step}' if save_cfg is not None else 'saved nothing, as checkpoint_cfg says'
          raise stopping.Stopped(f'stopped by SIGTERM after step {step} of {total_steps}, {where}')
    saver.wait()
  finally:
    batches.close()
    try:
      saver.close()
    finally:
      profiler.close()
      progress.close()
      writer.close()
      if eval_writer:
        eval_writer.close()
  return summary['loss']


def data_fingerprint(config, seed: int) -> str:
  """Returns a text that is the same for data sets between which a position can be carried over."""
  import seqio

  lengths = dict(sorted(config.task_feature_lengths.items()))
  seed = seed if config.seed is None else config.seed
  # Our sources tell when files have changed; of others the name has to do.
  provider = config.mixture_or_task_name
  provider = seqio.get_mixture_or_task(provider) if isinstance(provider, str) else provider
  fingerprint = getattr(getattr(provider, 'source', None), 'fingerprint', None)
  files = fingerprint(config.split) if fingerprint else ''
  return repr((str(config.mixture_or_task_name), files, lengths, config.split, config.batch_size, config.shuffle, seed))


def take_up(batches, model_dir: str, step: int, fingerprint: str) -> list[dict[str, float]]:
  """Moves `batches` to where the checkpoint of a step left the data; returns its numbers that are not reported yet.

  A checkpoint without a position, or one of other data, is passed over with a line on stderr: then the data begins anew.
  """
  from mrmt3 import checkpoints

  folder = checkpoints.checkpoint_folder(model_dir, step)
  try:
    progress = json.loads((folder / PROGRESS_NAME).read_text())
    saved, rows = progress['data'], progress['rows']
  except (OSError, ValueError, KeyError, TypeError):
    saved, rows = None, []
  if saved != fingerprint:
    reason = 'has no position in the data' if saved is None else 'is of a run with other data'
    print(f'checkpoint_{step} {reason}; the data begins anew', file=sys.stderr, flush=True)
    return []
  batches.restore(folder)
  return rows


def check_defaults(**unsupported) -> None:
  """Raises UserError naming the first argument of `train` that is not supported and has been given."""
  from mrmt3.engine import utils

  for name, value in unsupported.items():
    utils.require(not value, f'train.{name}')


def check_numbers(**numbers) -> None:
  """Raises UserError naming the first argument of `train` that is not a whole number of at least 0."""
  for name, value in numbers.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
      raise UserError(f'train.{name} is {value!r}; it must be a whole number')


def check_lengths(model, config, name: str) -> None:
  """Raises UserError if a config's features are longer than what the model is made for, where it says so."""
  spec = getattr(model, 'spec', None)
  if spec is None or config is None:
    return
  prior_length = spec.targets_length * spec.network.memory_segments
  most = {'inputs': spec.segment_frames, 'targets': spec.targets_length, 'prior_targets': prior_length}
  for feature, length in config.task_feature_lengths.items():
    if isinstance(length, int) and feature in most and length > most[feature]:
      raise UserError(
          f'{name}: task_feature_lengths has {feature}: {length}, above the model\'s {most[feature]}; the model\'s spec says '
          'segment_frames and targets_length'
      )


def show_dry_run(model, trainer, partitioner, dataset, example_batch) -> float:
  """Prints what a run would do; returns NaN, as no loss was computed."""
  import jax

  from mrmt3.engine import data_iterator, dry_running

  batches = data_iterator.DataIterator(dataset)
  try:
    batch, _ = data_iterator.split_ids(next(batches))
  finally:
    batches.close()
  state = jax.eval_shape(trainer.initial_state_unplaced, example_batch)
  params = dry_running.tree_bytes(state.params)
  dry_running.show(model, batch, state.params, partitioner, dry_running.tree_bytes(state.opt_state) + params)
  return float('nan')


def zero_batch(dataset):
  """Returns a batch of zeros with the dataset's shapes; reading a real one would do the first batch's work twice."""
  import numpy as np

  specs = {name: spec for name, spec in dataset.element_spec.items() if name != EXAMPLE_ID}
  return {name: np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for name, spec in specs.items()}


def start_state(trainer, checkpoint_cfg, model_dir: str, example_batch):
  """Returns (state, where it came from): newest checkpoint, else restore.path, else fresh weights."""
  from mrmt3 import checkpoints, network
  from mrmt3.engine.trainer import TrainState

  fresh = trainer.initial_state(example_batch)
  step = checkpoints.latest_step(model_dir)
  if step is not None:
    tree = checkpoints.restore_state(checkpoints.checkpoint_folder(model_dir, step), fresh.state_dict())
    state = trainer.partitioner.place_state(TrainState.from_state_dict(tree))
    return state, f'resuming from checkpoint_{step}'
  restore = checkpoint_cfg.restore
  if restore is not None:
    try:
      params, step = checkpoints.restore_target(restore.path)
    except UserError:
      if not restore.fallback_to_scratch:
        raise
    else:
      params = network.without_training_only(params, fresh.params)
      _check_same_shapes(fresh.params, params, restore.path)
      return fresh.replace(params=trainer.partitioner.place_state(params)), f'weights of {restore.path} (step {step})'
  return fresh, 'fresh weights'


def _check_same_shapes(wanted, found, path: str) -> None:
  """Raises UserError naming the first parameter that is missing, left over or of another shape."""
  import jax

  def shapes(tree):
    return {jax.tree_util.keystr(key): leaf.shape for key, leaf in jax.tree_util.tree_leaves_with_path(tree)}

  wanted, found = shapes(wanted), shapes(found)
  for name in sorted(wanted.keys() | found.keys()):
    if wanted.get(name) != found.get(name):
      raise UserError(f'{path}: parameter {name} is {found.get(name, "missing")}, the model has {wanted.get(name, "none")}')


def _evaluator(model, dataset_cfg, eval_steps: int, random_seed: int, partitioner):
  """Returns (trainer, params) -> mean loss and accuracy over the evaluation data, or None without data."""
  if dataset_cfg is None:
    return None
  from mrmt3.engine import data_iterator, utils
  from mrmt3.engine import trainer as trainer_lib

  partitioner.check_batch_size(dataset_cfg.batch_size, 'train_eval_dataset_cfg')

  def open_dataset():
    return utils.get_dataset(dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed, num_epochs=1)

  open_dataset()  # what is wrong with it is to be said now, and not after hours of training

  def evaluate(trainer, params) -> dict[str, float]:
    numbers = []
    # Opened anew, it begins with the same examples every time, shuffled or not.
    for batch in itertools.islice(utils.iterate(open_dataset()), eval_steps):
      features, _ = data_iterator.split_ids(batch)
      padded = pad_batch(features, dataset_cfg.batch_size)
      numbers.append(trainer.eval_step(params, partitioner.place_batch(padded)))
    if not numbers:
      raise UserError('train_eval_dataset_cfg: no example of the split fits task_feature_lengths')
    return trainer_lib.summarise(trainer_lib.as_floats(numbers))

  return evaluate


def pad_batch(batch, rows: int):
  """Returns the batch with rows of zeros (which carry no loss) up to `rows`, so that no second shape is compiled."""
  import numpy as np

  return {name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)) for name, x in batch.items()}


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code, see `engine.entry`."""
  return entry.main(train, 'python -m mrmt3.train', __doc__.split('\n')[0], argv)


if __name__ == '__main__':
  entry.run_and_end(main)
