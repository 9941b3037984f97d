"""Evaluation during training: the loss on held-out data, and metrics of the model's predictions."""

import itertools
from collections.abc import Callable

import numpy as np

from mrmt3.engine import trainer, utils
from mrmt3.errors import UserError
from mrmt3.training import data_iterator, multihost
from mrmt3.training.inference_evaluator import InferenceEvaluator


class Evaluations:
  """The evaluations that a training's configuration asks for."""

  def __init__(
    self,
    model,
    partitioner,
    seed: int,
    loss_cfg,
    loss_batches: int,
    infer_cfg,
    evaluator_cls: Callable | None,
    folder: str,
  ):
    """Open the data sets, so that errors in them show before training and not hours later.

    Args:
      model: an engine.models.EncoderDecoderModel.
      partitioner: partitioning.PjitPartitioner.
      seed: seed for a data set whose config has none.
      loss_cfg: utils.DatasetConfig for the loss, or None.
      loss_batches: maximum number of batches for the loss.
      infer_cfg: utils.DatasetConfig for the metrics, or None.
      evaluator_cls: seqio.Evaluator with its gin arguments; None is seqio.Evaluator with its defaults.
      folder: the run's folder, where metrics are written.

    Raises:
      UserError: a data set cannot be opened, or a batch size does not fit the devices.
    """
    self._model, self._partitioner, self._seed = model, partitioner, seed
    self._loss_cfg, self._loss_batches = loss_cfg, loss_batches
    self._infer_cfg, self._evaluator_cls, self._folder = infer_cfg, evaluator_cls, folder
    self._evaluator = None
    if loss_cfg is not None:
      partitioner.check_batch_size(loss_cfg.batch_size, 'train_eval_dataset_cfg')
      self._open()
    if infer_cfg is not None:
      partitioner.check_batch_size(infer_cfg.batch_size, 'infer_eval_dataset_cfg')
      utils.resolve_task(infer_cfg)

  def prepare(self) -> None:
    """Read the data set of the metrics, which is slow; UserError if the task has no metrics."""
    if self._infer_cfg is not None:
      self._evaluator = InferenceEvaluator(
        self._model, self._infer_cfg, self._evaluator_cls, self._partitioner, self._folder
      )

  def _open(self):
    # A newly opened data set yields the same examples every time, shuffled or not.
    return utils.get_dataset(self._loss_cfg, self._model.FEATURE_CONVERTER_CLS, seed=self._seed, num_epochs=1)

  @property
  def has_loss(self) -> bool:
    """Whether there is a loss to evaluate."""
    return self._loss_cfg is not None

  def loss(self, train, params) -> dict[str, float]:
    """Return mean loss and accuracy over the evaluation data.

    Args:
      train: trainer.Trainer.
      params: parameters, placed on the devices.

    Raises:
      UserError: no example fits task_feature_lengths.
    """
    dataset = self._open()
    empty = data_iterator.zero_batch(dataset)
    rows = self._loss_cfg.batch_size // multihost.count()
    batches = itertools.islice(utils.iterate(dataset), self._loss_batches)
    features = (pad_batch(data_iterator.split_ids(batch)[0], rows) for batch in batches)
    shapes, dtypes = {k: (rows, *x.shape[1:]) for k, x in empty.items()}, {k: x.dtype for k, x in empty.items()}
    numbers = [
      train.eval_step(params, self._partitioner.place_batch(batch))
      for batch in multihost.same_batches(features, shapes, dtypes)
    ]
    if not numbers:
      raise UserError(
        f'train_eval_dataset_cfg: no example of {self._loss_cfg.split} fits task_feature_lengths; raise the lengths'
      )
    return trainer.summarise(trainer.as_floats(numbers))

  def metrics(self, params, step: int) -> None:
    """Compute and write the metrics of predictions, if the configuration asks for them."""
    if self._evaluator is not None:
      self._evaluator.evaluate(params, step)


def pad_batch(batch, rows: int):
  """Pad a batch with rows of zeros, which have no loss weight, so that only one shape is compiled."""
  return {name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)) for name, x in batch.items()}
