"""Script of test_scored_training: evaluates a checkpoint on the devices of one or several processes; saves the tokens.

python evaluate_on_devices.py MODEL_DIR DATA OUT [PROCESS COUNT ADDRESS]
"""

import sys

import jax

model_dir, data, out, *processes = sys.argv[1:]
if processes:
  index, count, address = processes
  jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))

import numpy as np  # noqa: E402

from mrmt3.checkpoints import orbax as orbax_checkpoints  # noqa: E402
from mrmt3.data.example_config import ExampleConfig  # noqa: E402
from mrmt3.engine import partitioning, utils  # noqa: E402
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel  # noqa: E402
from mrmt3.tasks import slakh  # noqa: E402
from mrmt3.training import prediction  # noqa: E402
from mrmt3.training.inference_evaluator import InferenceEvaluator  # noqa: E402

params, spec, step = orbax_checkpoints.restore_params(model_dir)
model = PieceEncoderDecoderModel(spec, log_mel_on='device')
task = slakh.task(data, spec, ExampleConfig(sampling='pieces', log_mel_on='device'))
config = utils.DatasetConfig(
  task, {'inputs': None, 'targets': None}, 'test', batch_size=8, shuffle=False, seed=0, use_memory_cache=False
)
partitioner = partitioning.PjitPartitioner()
evaluator = InferenceEvaluator(model, config, None, partitioner, out)
placed = partitioner.place_state(params)
evaluator.evaluate(placed, step)
results = prediction.Predictor(model.predict_batch, placed, 8, partitioner)(
  evaluator._evaluator.cached_model_datasets[task]
)
evaluator.close()
assert [index for index, _ in results] == list(range(len(results)))
if jax.process_index() == 0:
  np.savez(f'{out}/tokens.npz', *(tokens for _, tokens in prediction.uniform(results)), devices=jax.device_count())
