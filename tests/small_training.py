"""A training of a few steps, called from Python."""

import functools

from mrmt3 import train
from mrmt3.engine import adafactor, partitioning, trainer, utils
from mrmt3.models import MemoryEncoderDecoderModel

LENGTHS = {'inputs': 32, 'targets': 64, 'prior_targets': 64}


def run(
  model_dir,
  data,
  spec,
  total_steps,
  *,
  eval_period=4,
  restore=None,
  seed=0,
  microbatches=None,
  evaluation=False,
  rate=1e-2,
  lengths=None,
  model=None,
  **fields,
):
  from mrmt3.data.example_config import ExampleConfig
  from mrmt3.tasks import slakh

  def data_config(split, sampling, shuffle):
    examples = ExampleConfig(sampling=sampling, max_hop=2, shuffle_scope='paper' if shuffle else None, **fields)
    task = slakh.task(str(data), spec, examples)
    return utils.DatasetConfig(task, lengths or LENGTHS, split, batch_size=4, shuffle=shuffle, seed=None)

  return train.train(
    model=MemoryEncoderDecoderModel(spec, adafactor.Adafactor(), z_loss=1e-4, **(model or {})),
    train_dataset_cfg=data_config('train', 'random', True),
    train_eval_dataset_cfg=data_config('test', 'grid', False) if evaluation else None,
    infer_eval_dataset_cfg=None,
    checkpoint_cfg=utils.CheckpointConfig(
      utils.SaveCheckpointConfig(period=2, keep=2),
      None if restore is None else utils.RestoreCheckpointConfig(str(restore)),
    ),
    partitioner=partitioning.PjitPartitioner(),
    trainer_cls=functools.partial(
      trainer.Trainer,
      learning_rate_fn=utils.create_learning_rate_scheduler('constant', base_learning_rate=rate),
      num_microbatches=microbatches,
    ),
    model_dir=str(model_dir),
    total_steps=total_steps,
    eval_steps=2,
    eval_period=eval_period,
    random_seed=seed,
    summarize_config_fn=lambda *_: None,
    stats_period=1,
  )
