"""What is evaluated while a run trains: the loss on other data, and the metrics of predictions."""

import itertools
from collections.abc import Callable

import numpy as np

from mrmt3.engine import trainer, utils
from mrmt3.errors import UserError
from mrmt3.training import data_iterator, multihost
from mrmt3.training.inference_evaluator import InferenceEvaluator


class Evaluations:
  """Evaluates a run's parameters, where its configuration asks for it."""

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
    """Says at once, as a UserError, what is wrong with the data, and not after hours of training.

    Args:
      model: an engine.models.EncoderDecoderModel.
      partitioner: partitioning.PjitPartitioner.
      seed: of data whose config has none.
      loss_cfg: utils.DatasetConfig of the loss, or None.
      loss_batches: batches of it, at most.
      infer_cfg: utils.DatasetConfig of the metrics, or None.
      evaluator_cls: seqio.Evaluator with its gin arguments; None takes it as it is.
      folder: the run's, for metrics.
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
    """Reads the data of the metrics, which takes a while; UserError where the task has none."""
    if self._infer_cfg is not None:
      self._evaluator = InferenceEvaluator(
        self._model, self._infer_cfg, self._evaluator_cls, self._partitioner, self._folder
      )

  def _open(self):
    # Opened anew, it begins with the same examples every time, shuffled or not.
    return utils.get_dataset(self._loss_cfg, self._model.FEATURE_CONVERTER_CLS, seed=self._seed, num_epochs=1)

  @property
  def has_loss(self) -> bool:
    """Whether there is a loss to evaluate."""
    return self._loss_cfg is not None

  def loss(self, train, params) -> dict[str, float]:
    """Returns mean loss and accuracy over the evaluation data; `train` is the trainer.Trainer."""
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
      raise UserError('train_eval_dataset_cfg: no example of the split fits task_feature_lengths')
    return trainer.summarise(trainer.as_floats(numbers))

  def metrics(self, params, step: int) -> None:
    """Writes down the metrics of predictions, where they are asked for."""
    if self._evaluator is not None:
      self._evaluator.evaluate(params, step)


def pad_batch(batch, rows: int):
  """Returns the batch with rows of zeros (which carry no loss) up to `rows`, so that no second shape is compiled."""
  return {name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)) for name, x in batch.items()}
