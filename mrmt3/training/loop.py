"""The training loop, with its logs, evaluations, checkpoints and a clean stop on SIGTERM."""

import sys
from collections.abc import Callable, Sequence

from mrmt3.engine import gin_utils
from mrmt3.training import data_iterator, data_position, metric_writers, metrics_window, multihost, preemption, save

AGREE_EVERY = 10  # steps between two exchanges among hosts of whether to stop


class Logs:
  """A run's scalars, configuration and progress line. Only the first host writes."""

  def __init__(self, model_dir: str, step: int, total_steps: int, state, origin: str, summarize_config_fn: Callable):
    """Write the configuration and model info, and print where the run starts from to stderr.

    Args:
      model_dir: the run's folder.
      step: steps done.
      total_steps: steps to have done at the end.
      state: trainer.TrainState.
      origin: where the parameters come from, for people.
      summarize_config_fn: writes the configuration, as gin_utils.summarize_gin_config.
    """
    self._writers = {}
    self._model_dir, self._step = model_dir, step
    self.progress = None
    if multihost.is_first():
      summarize_config_fn(model_dir, self._writer('train'), 0)
      count = metric_writers.write_model_info(model_dir, state.state_dict())
      print(f'{origin}; {count:,} parameters; step {step} of {total_steps}', file=sys.stderr, flush=True)
      self.progress = metric_writers.TrainProgress(step, total_steps)

  def _writer(self, name):
    if name not in self._writers:
      self._writers[name] = metric_writers.ScalarWriter(self._model_dir, name, self._step)
    return self._writers[name]

  def write(self, name: str, step: int, scalars) -> None:
    """Write scalars of a step to TensorBoard and <name>.jsonl."""
    if multihost.is_first():
      self._writer(name).write_scalars(step, scalars)

  def show(self, step: int, summary) -> None:
    """Show the latest loss and accuracy."""
    if self.progress:
      self.progress.show(step, summary)

  def advance(self) -> None:
    """Count one step."""
    if self.progress:
      self.progress.advance()

  def close(self) -> None:
    """Close the progress line and all files."""
    for item in (self.progress, *self._writers.values()):
      if item:
        item.close()


class TrainRun:
  """A training run: its state, its data and its loop.

  Args:
    trainer: trainer.Trainer.
    evaluations: evaluate.Evaluations.
    logs: Logs.
    state: trainer.TrainState, placed on the devices.
    batches: data_iterator.DataIterator at the run's position.
    rows: metrics of the steps since the last report.
    fingerprint: `data_position.data_fingerprint` of the data.
    save_cfg: utils.SaveCheckpointConfig, or None to save nothing.
    model_dir: folder for checkpoints.
    piece_names: returns the names of the pieces that examples are cut from.
    batch_size: examples per step, over all hosts.
  """

  def __init__(
    self,
    trainer,
    evaluations,
    logs: Logs,
    state,
    batches: data_iterator.DataIterator,
    rows: list,
    fingerprint: str,
    save_cfg,
    model_dir: str,
    piece_names: Callable[[], Sequence[str]],
    batch_size: int,
  ):
    self._trainer, self._evaluations, self._logs, self._state = trainer, evaluations, logs, state
    self._batches, self._fingerprint, self._save_cfg, self._model_dir = batches, fingerprint, save_cfg, model_dir
    self._step = int(state.step)
    self._log = metrics_window.MetricsWindow(batch_size, self._step, rows, piece_names)
    self._saver = save.CheckpointSaver(model_dir, getattr(trainer.model, 'spec', None), save_cfg and save_cfg.keep)
    # With several hosts, all would have to trim to the same length.
    self._trim = trainer.model.trim_batch if multihost.count() == 1 else lambda batch: batch

  def to(self, total_steps: int, *, eval_period: int, stats_period: int, evaluate_first: bool, profile: int) -> float:
    """Train to `total_steps`, close everything, and return the last reported loss.

    Args:
      total_steps: steps to have done at the end.
      eval_period: steps between evaluations.
      stats_period: steps between reports.
      evaluate_first: whether to evaluate before the first step.
      profile: number of steps to profile.

    Raises:
      preemption.Stopped: SIGTERM was received; the run has saved.
      UserError: the loss is not finite, or a checkpoint could not be written.
    """
    loss = float('nan')
    profiler = metric_writers.Profiler(self._model_dir, first=self._step + 3, steps=profile)
    try:
      if evaluate_first:
        self._evaluate()
      with preemption.StopRequest() as stop:
        while self._step < total_steps:
          profiler.before(self._step + 1, self._state)
          self._do_step()
          gin_utils.Configuring.done()
          is_last = self._step == total_steps
          if self._step % stats_period == 0 or is_last:
            loss = self._report()
          if self._step % eval_period == 0 or is_last:
            self._evaluate()
          stops = self._should_stop(stop)
          if self._save_cfg is not None and (stops or self._save_cfg.is_due(self._step, total_steps)):
            self._save()
          if stops and not is_last:
            self._saver.wait()
            where = (
              f'saved checkpoint_{self._step}' if self._save_cfg else 'saved nothing (checkpoint_cfg.save is not set)'
            )
            raise preemption.Stopped(f'stopped by SIGTERM after step {self._step} of {total_steps}, {where}')
      self._saver.wait()
    finally:
      self._close(profiler)
    return loss

  def _do_step(self) -> None:
    batch, ids = data_iterator.split_ids(next(self._batches))
    placed = self._trainer.partitioner.place_batch(self._trim(batch))
    self._state, numbers = self._trainer.train_step(self._state, placed)
    self._step += 1
    self._log.add(numbers, ids)
    self._logs.advance()

  def _report(self) -> float:
    summary = self._log.report(self._batches.waited)
    self._logs.write('train', self._step, summary)
    self._logs.show(self._step, summary)
    return summary['loss']

  def _evaluate(self) -> None:
    since = self._log.pause()
    if self._evaluations.has_loss:
      self._logs.write('training_eval', self._step, self._evaluations.loss(self._trainer, self._state.params))
    self._evaluations.metrics(self._state.params, self._step)
    self._log.resume(since)

  def _should_stop(self, stop: preemption.StopRequest) -> bool:
    """Return whether any host has received SIGTERM; then all stop after the same step."""
    if multihost.count() == 1:
      return stop.requested
    return self._step % AGREE_EVERY == 0 and multihost.any_host(stop.requested)

  def _save(self) -> None:
    self._log.check()  # never save parameters after a loss that is not finite
    files = data_position.position_files(self._batches, self._log.rows, self._fingerprint)
    self._saver.save(self._step, self._state.state_dict(), files)

  def _close(self, profiler) -> None:
    self._batches.close()
    try:
      self._saver.close()
    finally:
      profiler.close()
      self._logs.close()
