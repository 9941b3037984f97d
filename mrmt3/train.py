"""Training: `python -m mrmt3.train --gin_file=runs/train.gin --gin.MODEL_DIR=... --gin.DATA_DIR=...`.

The names are t5x's (`train_script.train`, `utils.DatasetConfig`, ...), answered by `mrmt3.engine`. `train` reads top to
bottom in the order things happen: data, model, logging, start state, loop.
"""

import itertools
import sys
from collections.abc import Callable, Sequence

from mrmt3.errors import UserError


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
    random_seed: int,
    summarize_config_fn: Callable,
    stats_period: int | None = None,
) -> float:
  """Trains to `total_steps`, from the newest checkpoint in model_dir where there is one.

  Start order: the newest checkpoint in model_dir, then checkpoint_cfg.restore, then fresh weights. With the same seed, a
  run that was stopped after a checkpoint and started again ends with the same weights as one that was not.

  Args:
    model: an engine.models.EncoderDecoderModel.
    train_dataset_cfg: utils.DatasetConfig to learn from.
    train_eval_dataset_cfg: utils.DatasetConfig for the loss on other data, or None.
    infer_eval_dataset_cfg: not supported yet by `train`, keep None; `mrmt3 evaluate` scores transcriptions.
    checkpoint_cfg: utils.CheckpointConfig.
    partitioner: partitioning.PjitPartitioner.
    trainer_cls: trainer.Trainer with its gin arguments.
    model_dir: folder for checkpoints and logs.
    total_steps: steps to have done at the end.
    eval_steps: batches of an evaluation, at most.
    eval_period: steps between evaluations.
    random_seed: of weights, dropout, and data whose config has no seed of its own.
    summarize_config_fn: called with (model_dir, writer, step) to write down the configuration.
    stats_period: steps between reported numbers; None takes eval_period.

  Returns:
    the last reported loss per token.

  Raises:
    UserError: for a configuration that cannot work.
  """
  import jax

  from mrmt3 import files, reporting
  from mrmt3.engine import utils

  if infer_eval_dataset_cfg is not None:
    raise UserError('train.infer_eval_dataset_cfg is not supported; set it to None and use mrmt3 evaluate')
  if random_seed is None:
    raise UserError('train.random_seed is None, which would differ on each start; give a number')
  if jax.process_count() > 1:
    raise UserError('train runs on one host with any number of devices; several hosts are not supported yet')
  check_numbers(total_steps=total_steps, eval_steps=eval_steps, eval_period=eval_period, random_seed=random_seed)
  stats_period = stats_period or eval_period
  if min(eval_period, stats_period) < 1:
    raise UserError(f'train.eval_period is {eval_period}, stats_period {stats_period}; they count steps, from 1')
  check_numbers(batch_size=train_dataset_cfg.batch_size)
  partitioner.check_batch_size(train_dataset_cfg.batch_size, 'train_dataset_cfg')

  # Data: the position follows from the step, so that a resumed run sees what it would have seen.
  dataset = utils.get_dataset(train_dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed)
  example_batch = zero_batch(dataset)
  evaluate = _evaluator(model, train_eval_dataset_cfg, eval_steps, random_seed, partitioner)

  # Model.
  trainer = trainer_cls(model=model, partitioner=partitioner, rng=jax.random.key(random_seed))
  trainer.check_batch_size(train_dataset_cfg.batch_size)

  # Logging: nothing is written before the configuration has proved possible.
  files.make_folder(model_dir)
  writer = reporting.ScalarWriter(model_dir, 'train')
  summarize_config_fn(model_dir, writer, 0)

  # Start state.
  state, origin = start_state(trainer, checkpoint_cfg, model_dir, example_batch)
  step = int(state.step)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  print(f'{origin}; {count:,} parameters; step {step} of {total_steps}', file=sys.stderr, flush=True)

  # Loop.
  eval_writer = reporting.ScalarWriter(model_dir, 'training_eval') if evaluate else None
  progress = reporting.TrainProgress(step, total_steps)
  numbers, summary = [], {'loss': float('nan')}
  if step:
    print(f'passing over the data of {step} steps', file=sys.stderr, flush=True)
  batches = utils.iterate(dataset.skip(step).prefetch(2))
  for batch in itertools.islice(batches, max(0, total_steps - step)):
    state, result = trainer.train_step(state, partitioner.place_batch(batch))
    step += 1
    numbers.append(result)
    progress.advance()
    if step % stats_period == 0 or step == total_steps:
      summary, numbers = report(numbers, step, writer, progress), []
    if evaluate and (step % eval_period == 0 or step == total_steps):
      eval_writer.write_scalars(step, evaluate(trainer, state.params))
    save(checkpoint_cfg.save, state, step, total_steps, model, model_dir)
  progress.close()
  writer.close()
  if eval_writer:
    eval_writer.close()
  return summary['loss']


def check_numbers(**numbers) -> None:
  """Raises UserError naming the first argument of `train` that is not a whole number of at least 0."""
  for name, value in numbers.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
      raise UserError(f'train.{name} is {value!r}; it must be a whole number')


def zero_batch(dataset):
  """Returns a batch of zeros with the dataset's shapes; reading a real one would do the first batch's work twice."""
  import numpy as np

  return {name: np.zeros(spec.shape, spec.dtype.as_numpy_dtype) for name, spec in dataset.element_spec.items()}


def start_state(trainer, checkpoint_cfg, model_dir: str, example_batch):
  """Returns (state, where it came from): newest checkpoint, else restore.path, else fresh weights."""
  from mrmt3 import checkpoints
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
      params, _, step = checkpoints.restore_params(restore.path)
    except UserError:
      if not restore.fallback_to_scratch:
        raise
    else:
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
  from mrmt3.engine import trainer as trainer_lib
  from mrmt3.engine import utils

  partitioner.check_batch_size(dataset_cfg.batch_size, 'train_eval_dataset_cfg')

  def evaluate(trainer, params) -> dict[str, float]:
    # Built anew, it begins with the same examples every time, shuffled or not.
    dataset = utils.get_dataset(dataset_cfg, model.FEATURE_CONVERTER_CLS, seed=random_seed, num_epochs=1)
    numbers = []
    for batch in itertools.islice(utils.iterate(dataset), eval_steps):
      padded = pad_batch(batch, dataset_cfg.batch_size)
      numbers.append(trainer.eval_step(params, partitioner.place_batch(padded)))
    if not numbers:
      raise UserError('train_eval_dataset_cfg: no example of the split fits task_feature_lengths')
    return trainer_lib.summarise(numbers)

  return evaluate


def pad_batch(batch, rows: int):
  """Returns the batch with rows of zeros (which carry no loss) up to `rows`, so that no second shape is compiled."""
  import numpy as np

  return {name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)) for name, x in batch.items()}


def report(numbers: Sequence, step: int, writer, progress) -> dict[str, float]:
  """Writes and shows the numbers of the last steps; UserError if the loss is not a number."""
  import math

  from mrmt3.engine import trainer

  summary = trainer.summarise(numbers)
  if not math.isfinite(summary['loss']):
    raise UserError(f'the loss is {summary["loss"]} at step {step}; lower the learning rate, or look at the data')
  writer.write_scalars(step, summary)
  progress.show(step, summary)
  return summary


def save(save_cfg, state, step: int, total_steps: int, model, model_dir: str) -> None:
  """Writes a checkpoint if one is due, then forgets the oldest beyond save_cfg.keep."""
  if save_cfg is None or not save_cfg.is_due(step, total_steps):
    return
  import jax

  from mrmt3 import checkpoints

  checkpoints.save_checkpoint(model_dir, step, jax.device_get(state.state_dict()), model.spec)
  if save_cfg.keep is not None:
    checkpoints.remove_old(model_dir, save_cfg.keep)


def _main(argv: Sequence[str]) -> int:
  from mrmt3.engine import gin_utils, names
  from mrmt3.tensorflow_start import start_tensorflow

  flags = gin_utils.parse_flags(argv, 'python -m mrmt3.train', __doc__.split('\n')[0])
  gin_utils.check_files(flags)
  start_tensorflow()
  names.use_own_engine()
  import gin

  configured = gin.configurable(train, module='__main__')
  gin_utils.parse_config(flags)
  gin_utils.call(configured)
  return 0


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code: 0, or 2 after a one-line error."""
  try:
    return _main(sys.argv[1:] if argv is None else argv)
  except ModuleNotFoundError as error:
    if (error.name or '').startswith('mrmt3'):
      raise
    print(f'mrmt3: error: training needs {error.name}; install it with: pip install "mrmt3[train]"', file=sys.stderr)
    return 2
  except UserError as error:
    # gin appends where in the configuration it was to the message, on further lines.
    print(f'mrmt3: error: {str(error).splitlines()[0]}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('mrmt3: interrupted; start the same command again to go on from the last checkpoint', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
