"""Settings that a gin configuration would drop silently, and values of wrong types, are errors of one line."""

import os
import subprocess
import sys

import pytest

TINY = ('--gin_file=models/tiny.gin', '--gin_file=optimizers/mr_mt3.gin')
RUN = (*TINY, '--gin_file=runs/train.gin')
FOLDERS = ('--gin.MODEL_DIR=m', '--gin.DATA_DIR=d')
FINETUNE, OWN, CONTINUED = (f'--gin_file=runs/{name}.gin' for name in ('finetune', 'own_folder', 'continued'))
START = '--gin.INIT_FROM=x'

# Words of the command line, and what the line must contain.
REFUSED = {
  'own folder after fine-tuning': ([*TINY, FINETUNE, OWN, START], 'RESTORE back to None'),
  'fine-tuning after own folder': ([*TINY, OWN, FINETUNE, START], 'TRAIN_TASK back to @train/slakh.task()'),
  'the run after fine-tuning': ([*TINY, FINETUNE, '--gin_file=runs/train.gin', START], 'RESTORE back to None'),
  'an ablation and own folder': (['--gin_file=ablations/continual.gin', OWN, START], 'RESTORE back to None'),
  'weights without a file that reads them': ([*RUN, START], 'fresh weights'),
  'weights and no restoring': ([*RUN, CONTINUED, START, '--gin.RESTORE=None'], 'fresh weights'),
  'a misspelt macro': ([*RUN, '--gin.TRAIN_STEP=3'], 'did you mean TRAIN_STEPS?'),
  'a macro that nothing uses': ([*RUN, '--gin.QUUX=3'], 'QUUX is set, but nothing uses it; leave it out'),
  'a word for a number': ([*RUN, '--gin.SAVE_PERIOD=abc'], "SAVE_PERIOD is 'abc'; it must be an integer or None"),
  'a number for a spec': ([*RUN, '--gin.SPEC=0'], 'SPEC is 0; it must be a ModelSpec such as @name()'),
  'half a list': ([*RUN, '--gin.NUM_PARTITIONS=['], 'gin: '),
  'a float for a number of steps': ([*RUN, '--gin.train.eval_steps=1.5'], 'eval_steps is 1.5; it must be an integer'),
  'a bool for a number': ([*RUN, '--gin.L_MAX_HOP=True'], 'L_MAX_HOP is True; it must be an integer'),
  'a number for a path': ([*RUN, '--gin.DATA_DIR=7'], 'DATA_DIR is 7; it must be a string'),
  'a number for a function': ([*RUN, '--gin.train.trainer_cls=3'], 'must be a function such as @name'),
  'a macro of itself': ([*RUN, '--gin.SEED=%SEED'], 'SEED is set to itself'),
  'a macro that is not set': ([*RUN, '--gin.trainer.Trainer.model=%NOTHING'], 'NOTHING'),
  'no model': ([*RUN, '--gin.MODEL=0'], 'gin: '),
  'a long path of data': ([*RUN, '--gin.DATA_DIR=' + 'x' * 400], 'x' * 20),
  'a long path of the run': ([*RUN, '--gin.MODEL_DIR=' + 'x' * 400], 'x' * 20),
  'a long path of a gin file': (['--gin_file=' + 'x' * 400], 'no file xxx'),
  'a long path of weights': ([*RUN, CONTINUED, '--gin.INIT_FROM=' + 'x' * 400], 'x' * 20),
  'a batch above the memory': ([*RUN, '--gin.BATCH_SIZE=9999999'], 'lower the batch size'),
}

COMMANDS = """
import contextlib, io, json, sys
import gin
from mrmt3.engine import names
from mrmt3.training import main as training_main
from mrmt3.utils.tensorflow_setup import start_tensorflow
start_tensorflow()
names.use_own_engine()
from mrmt3.train import train
gin.enter_interactive_mode()
for line in sys.stdin:
  gin.clear_config()
  output = io.StringIO()
  with contextlib.redirect_stderr(output):
    code = training_main.main(train, 'train', 'Training.', json.loads(line))
  print(json.dumps([code, output.getvalue()]))
"""


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory, small_data):
  """{name: (exit code, stderr)} of each of `REFUSED`, all in one process."""
  import json

  folder = tmp_path_factory.mktemp('refused')
  data = [
    '--gin.TRAIN_STEPS=1',
    f'--gin.DATA_DIR={small_data}',
    f'--gin.MODEL_DIR={folder / "m"}',
    '--gin.train.train_eval_dataset_cfg=None',
  ]
  lines = [json.dumps(['--gin.BATCH_SIZE=2', *data, *words]) for words, _ in REFUSED.values()]
  done = subprocess.run(
    [sys.executable, '-c', COMMANDS],
    input='\n'.join(lines),
    capture_output=True,
    text=True,
    check=False,
    cwd=folder,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return dict(zip(REFUSED, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize('name', REFUSED)
def test_refused_with_one_line(outcomes, name):
  code, output = outcomes[name]
  assert code == 2 and REFUSED[name][1] in output, output
  assert output.startswith('mrmt3: error: ') and len(output.splitlines()) == 1 and len(output) < 1000, output


@pytest.mark.parametrize('module', ['train', 'transcribe'])
@pytest.mark.parametrize('platform', ['cuda', 'nothing'])
def test_a_platform_without_a_device_is_one_line(tmp_path, small_data, module, platform):
  import numpy as np
  import soundfile

  if module == 'train':
    words = [*RUN, f'--gin.MODEL_DIR={tmp_path / "m"}', f'--gin.DATA_DIR={small_data}']
  else:
    soundfile.write(tmp_path / 'a.wav', np.zeros(1600), 16000)
    words = [str(tmp_path / 'a.wav'), '-o', str(tmp_path / 'a.mid')]
  done = subprocess.run(
    [sys.executable, '-m', 'mrmt3', module, *words],
    env={**os.environ, 'JAX_PLATFORMS': platform},
    capture_output=True,
    text=True,
    check=False,
    timeout=200,
  )
  if platform == 'cuda' and done.returncode == 0:
    pytest.skip('this machine has a GPU')
  assert done.returncode == 2, done.stderr
  assert len(done.stderr.splitlines()) == 1 and f'JAX_PLATFORMS={platform}' in done.stderr, done.stderr
