"""Our gin files under the real t5x, and magenta/mt3's under our engine. They run where the checkouts are named:

  make test-peers MRMT3_T5X=t5x MRMT3_MT3=mt3 MRMT3_PEER_PYTHON=peers/bin/python

docs/engine.md lists the interpreter's requirements.
"""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import small_datasets
import soundfile
from paths import ROOT

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.data.records.messages import serialize_example, serialize_notes
from mrmt3.data.records.tfrecord import framed
from mrmt3.studies import twin_instruments

GIN = ROOT / 'gin'
# t5x imports only names of airio, which is not on the package index; jestimator needs PartitionSpec at its old place.
STUBS = {
  'airio/__init__.py': 'from airio import core\n',
  'airio/core.py': ''.join(
    f'class {name}: pass\n'
    for name in ('DatasetProviderBase', 'Task', 'Mixture', 'AirIODatasetIterator', 'dataset_providers')
  ),
  'airio/pygrain_common.py': 'from airio.core import *\n',
  'sitecustomize.py': 'import jax.experimental.pjit\n'
  'jax.experimental.pjit.PartitionSpec = jax.sharding.PartitionSpec\n',
}
TINY = ['emb_dim=16', 'num_heads=2', 'head_dim=8', 'mlp_dim=16', 'num_encoder_layers=1', 'num_decoder_layers=1']
LOCAL_TASK = """\
import dataclasses, functools
from mt3 import datasets, preprocessors, tasks

data = dataclasses.replace(
    datasets.MAESTROV3_CONFIG, name='local', paths={'train': RECORDS, 'validation': RECORDS, 'test': RECORDS},
    train_split='train', train_eval_split='validation',
    infer_eval_splits=[datasets.InferEvalSplit(name='test', suffix='test', include_in_mixture=True)],
)
tasks.add_transcription_task_to_registry(
    dataset_config=data, spectrogram_config=tasks.SPECTROGRAM_CONFIG, vocab_config=tasks.VOCAB_CONFIG_NOVELOCITY,
    tokenize_fn=functools.partial(
        preprocessors.tokenize_transcription_example, audio_is_samples=False, id_feature_key='id'
    ),
    onsets_only=False, include_ties=True,
)
"""

pytestmark = pytest.mark.slow


def named(variable):
  """Return the path that an environment variable names, else skips the test."""
  if variable not in os.environ:
    pytest.skip(f'{variable} names no path')
  return Path(os.environ[variable]).absolute()


@pytest.fixture
def run(tmp_path):
  """Return a function that runs a module of the peers' interpreter, with folders on PYTHONPATH, in tmp_path."""
  python = named('MRMT3_PEER_PYTHON')
  for name, text in STUBS.items():
    (tmp_path / 'stubs' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'stubs' / name).write_text(text)

  def start(module, *words, paths):
    path = os.pathsep.join(map(str, [*paths, tmp_path / 'stubs', GIN.parent]))
    env = {**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
      [python, '-m', module, *map(str, words)],
      cwd=tmp_path,
      env=env,
      capture_output=True,
      text=True,
      check=False,
      timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done

  return start


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_our_gin_files_train_evaluate_and_infer_under_t5x(run, tmp_path):
  t5x, data = named('MRMT3_T5X'), tmp_path / 'data'
  twin_instruments.write_dataset(data, seed=1, train_pieces=4, test_pieces=1, segment_seconds=1.024, pairs=2)
  common = [f'--gin_search_paths={GIN}', '--gin_file=models/tiny.gin', f'--gin.DATA_DIR="{data}"']
  common += [
    '--gin.SEGMENT_FRAMES=128',
    '--gin.TARGETS_LENGTH=64',
    *(f'--gin.network.T5Config.{size}' for size in TINY),
  ]
  run(
    't5x.train',
    *common,
    '--gin_file=optimizers/mr_mt3.gin',
    '--gin_file=runs/train.gin',
    '--gin_file=runs/scored.gin',
    f'--gin.MODEL_DIR="{tmp_path}/run"',
    '--gin.TRAIN_STEPS=4',
    '--gin.SAVE_PERIOD=4',
    '--gin.EVAL_PERIOD=4',
    '--gin.BATCH_SIZE=4',
    '--gin.train.train_eval_dataset_cfg=None',
    '--gin.SCORED_SPLIT="test"',
    '--gin.SCORED_PIECES=1',
    '--gin.SCORED_BATCH=1',
    '--gin.piece_model.evaluating_pieces.segments=8',
    paths=[t5x],
  )
  params, step = orbax_checkpoints.restore_target(tmp_path / 'run')
  assert step == 4 and np.isfinite(params['decoder']['logits_dense']['kernel']).all()
  (while_training,) = (tmp_path / 'run').glob('inference_eval/*-metrics.jsonl')
  at_4 = lines_of(while_training)[-1]
  (pieces,) = (tmp_path / 'run').glob('inference_eval/*-pieces-4.jsonl')
  assert at_4['step'] == 4 and len(lines_of(pieces)) == 1
  events = b''.join(path.read_bytes() for path in (tmp_path / 'run').glob('inference_eval/**/events.*'))
  assert b'Track00000/roll' in events  # sound needs symusic, which that interpreter need not have

  model = [
    f'--gin.CHECKPOINT_PATH="{tmp_path}/run/checkpoint_4"',
    '--gin.piece_model.PieceEncoderDecoderModel.segments=8',
  ]
  only_this = '--gin.MODE="specific"'  # t5x's 'latest' would look for a checkpoint inside of it
  found = {}
  for name, module, paths in (('theirs', 't5x', [t5x]), ('ours', 'mrmt3', [])):
    scored, inferred = tmp_path / f'{name}-scores', tmp_path / f'{name}-inferred'
    words = [*common, *model, '--gin.SPLIT="test"']
    run(f'{module}.eval', *words, '--gin_file=runs/eval.gin', only_this, f'--gin.OUTPUT_DIR="{scored}"', paths=paths)
    run(f'{module}.infer', *words, '--gin_file=runs/infer.gin', f'--gin.OUTPUT_DIR="{inferred}"', paths=paths)
    (scores,) = scored.glob('**/*-metrics.jsonl')
    (lines,) = inferred.glob('*-predict.jsonl-00000-of-00001')
    found[name] = lines_of(scores)[-1], lines_of(lines)
  assert found['ours'][1] == found['theirs'][1]
  assert max(len(segment) for line in found['ours'][1] for segment in line['prediction']) > 10  # of anything
  shared = set(found['ours'][0]) & set(found['theirs'][0]) - {'step'}
  assert len(shared) > 5
  for metric in shared:
    assert found['ours'][0][metric] == pytest.approx(found['theirs'][0][metric], abs=1e-6, nan_ok=True), metric
    assert at_4[metric] == pytest.approx(found['theirs'][0][metric], abs=1e-6, nan_ok=True), metric


def test_magentas_gin_files_run_under_our_engine(run, tmp_path):
  mt3 = named('MRMT3_MT3')
  records = []
  for number in range(3):
    notes, file = small_datasets.notes_of(number), io.BytesIO()
    soundfile.write(file, small_datasets.sound_of(notes), small_datasets.RATE, format='WAV', subtype='PCM_16')
    sequence = serialize_notes(notes, f'piece {number}', small_datasets.SECONDS)
    records.append(
      framed(serialize_example({'audio': file.getvalue(), 'sequence': sequence, 'id': b'piece %d' % number}))
    )
  (tmp_path / 'local.tfrecord').write_bytes(b''.join(records))
  (tmp_path / 'local_task.py').write_text(LOCAL_TASK.replace('RECORDS', repr(str(tmp_path / 'local.tfrecord'))))
  (tmp_path / 'local.gin').write_text(
    "from __gin__ import dynamic_registration\nimport local_task\nTASK_PREFIX = 'local_notes_ties'\n"
    "TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 32}\n"
  )
  common = [f'--gin_search_paths={mt3 / "mt3" / "gin"}', '--gin_file=model.gin']
  common += [f'--gin.network.T5Config.{size}' for size in TINY]
  paths, local = [mt3, tmp_path], ['--gin_file=mt3.gin', f'--gin_file={tmp_path / "local.gin"}']
  training = [
    '--gin_file=train.gin',
    *local,
    '--gin.MODEL_DIR="run"',
    '--gin.USE_CACHED_TASKS=False',
    '--gin.BATCH_SIZE=2',
  ]
  training += [
    '--gin.EVAL_STEPS=1',
    '--gin.train.eval_period=3',
    '--gin.utils.SaveCheckpointConfig.period=3',
    '--gin.train.random_seed=0',
  ]
  run('mrmt3.train', *common, *training, '--gin.TRAIN_STEPS=3', paths=paths)
  params, step = orbax_checkpoints.restore_target(tmp_path / 'run')
  assert step == 3 and params['decoder']['logits_dense']['kernel'].shape[0] == 16
  (metrics,) = (tmp_path / 'run').glob('inference_eval/*-metrics.jsonl')
  (at_3,) = lines_of(metrics)
  assert at_3['step'] == 3 and len(at_3) > 5
  done = run(
    'mrmt3.train', *common, *training, '--gin.TRAIN_STEPS=4', '--gin.train.infer_eval_dataset_cfg=None', paths=paths
  )
  assert 'could not save the position in this data; the data starts from the beginning' in done.stderr
  again = ['--gin.CHECKPOINT_PATH="run/checkpoint_3"', '--gin.utils.DatasetConfig.use_cached=False']
  again += ['--gin.utils.DatasetConfig.batch_size=2']
  run('mrmt3.eval', *common, '--gin_file=eval.gin', *local, '--gin.EVAL_OUTPUT_DIR="scores"', *again, paths=paths)
  run('mrmt3.infer', *common, '--gin_file=infer.gin', *local, '--gin.INFER_OUTPUT_DIR="inferred"', *again, paths=paths)
  (metrics,) = (tmp_path / 'scores').glob('inference_eval/*-metrics.jsonl')
  assert lines_of(metrics)[0] == at_3
  (inferred,) = (tmp_path / 'inferred').glob('*-predict.jsonl-00000-of-00001')
  assert len(lines_of(inferred)) == 3
