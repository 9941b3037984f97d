"""The header of each gin file has a purpose, a cost and a command, and this command dry-runs."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_datasets
from paths import ROOT

GIN_FOLDER = ROOT / 'gin'
FILES = sorted(path.relative_to(GIN_FOLDER).as_posix() for path in GIN_FOLDER.glob('*/*.gin'))
COST = re.compile(r'^# Cost, (measured|calculated): \S', re.MULTILINE)
DRY_RUNS = """
import contextlib, io, json, sys, traceback
from mrmt3.engine import gin_utils, names
from mrmt3.utils.tensorflow_setup import start_tensorflow
start_tensorflow()
names.use_own_engine()
import gin
from mrmt3.eval import evaluate
from mrmt3.infer import infer
from mrmt3.train import train  # gin files look for these in the main module
functions = {'train': train, 'eval': evaluate, 'infer': infer}
configured = {name: gin.configurable(function, module='__main__') for name, function in functions.items()}
for line in sys.stdin:
  name, module, flags = json.loads(line)
  gin.clear_config()
  output = io.StringIO()
  try:
    parsed = gin_utils.parse_flags(flags, module, '')
    gin_utils.check_files(parsed)
    gin_utils.parse_config(parsed)
    with contextlib.redirect_stdout(output):
      gin_utils.call(configured[module], dry_run=True)
    tokens = output.getvalue().partition('decoder_target_tokens: ')[2].partition('shift:')[0]  # the tie section
    assert 'mesh:' in output.getvalue() and 'tie:0' in tokens
    print('done', name)
  except BaseException:
    print('failed', name, traceback.format_exc()[-1500:], output.getvalue()[-300:])
"""


def header(name):
  lines = (GIN_FOLDER / name).read_text().splitlines()
  return '\n'.join(lines[: next(index for index, line in enumerate(lines) if not line.startswith('#'))])


def commands(name):
  """Return (module, flags) of each training, evaluation or inference command in a file's header."""
  text = re.sub(r'\\\n#\s*', '', header(name))
  found = re.findall(r'^#   python -m mrmt3\.(train|eval|infer) (.+)$', text, re.MULTILINE)
  return [(module, shlex.split(flags)) for module, flags in found]


def help_commands():
  """Return (name, module, flags) of the command in the help of each of the gin commands."""
  from mrmt3 import eval as evaluation
  from mrmt3 import infer, train

  for module in (train, evaluation, infer):
    name = module.__name__.split('.')[-1]
    (found,) = re.findall(rf'^  python -m mrmt3\.{name} (.+)$', module.__doc__.replace('\\\n', ''), re.MULTILINE)
    yield f'{name} --help', name, shlex.split(found)


def test_the_low_rate_is_for_trained_weights_only():
  for name in FILES:
    for _, flags in commands(name):
      if any('optimizers/continual.gin' in flag for flag in flags):
        assert any('--gin.INIT_FROM=' in flag for flag in flags), (name, flags)


def test_help_has_the_command(capsys):
  from mrmt3 import train

  with pytest.raises(SystemExit):
    train.main(['--help'])
  example = capsys.readouterr().out.split('python -m mrmt3.train ')[2].partition('\n\n')[0]
  (_, _, flags), *_ = help_commands()
  assert shlex.split(example.replace('\\\n', '')) == flags


@pytest.mark.parametrize('name', FILES)
def test_header_has_a_purpose_a_cost_and_a_command(name):
  text = header(name)
  assert text.startswith('# ') and COST.search(text), text
  assert commands(name), text
  flags = [flag for _, flags in commands(name) for flag in flags]
  assert any(name in flag for flag in flags), f'the command does not use {name} itself'


@pytest.fixture(scope='module')
def places(tmp_path_factory, small_data):
  """A folder for each macro: data with a validation split (or own music), a checkpoint, and folders to write to."""
  from mrmt3.audio import files as audio_files
  from mrmt3.data import slakh_layout
  from mrmt3.notes import midi

  root = tmp_path_factory.mktemp('gin')
  shutil.copytree(small_data, root / 'data')
  shutil.copytree(root / 'data' / 'test', root / 'data' / 'validation')
  own = root / 'own_folder'
  for split in ('train', 'validation'):
    (own / split).mkdir(parents=True)
    for track in slakh_layout.find_tracks(small_data, 'train'):
      audio_files.write_audio(
        own / split / f'{track.name}.wav', np.asarray(audio_files.read_audio(track.audio_path)), 16000
      )
      midi.write_midi(slakh_layout.read_notes(track), own / split / f'{track.name}.mid')
  small_datasets.write_commu(root / 'commu', clips=40)
  small_datasets.write_records(root / 'mt3_mixture')
  (root / 'checkpoints' / 'checkpoint_1' / 'state').mkdir(parents=True)
  return root


def dry_run_flags(flags, places):
  """Return a command's flags with existing folders; output folders are `new`, which must not be written."""
  runs = {'own_folder': 'own_folder', 'commu': 'commu', 'mt3_mixture': 'mt3_mixture', 'dataset': 'commu'}
  data = next((folder for run, folder in runs.items() if any(f'runs/{run}.gin' in flag for flag in flags)), 'data')
  folders = {
    'DATA_DIR': places / data,
    'MODEL_DIR': places / 'new',
    'OUTPUT_DIR': places / 'new',
    'INIT_FROM': places / 'checkpoints',
    'CHECKPOINT_PATH': places / 'checkpoints',
    'START_DIR': places / 'checkpoints',
  }
  kept = [flag for flag in flags if not any(flag.startswith(f'--gin.{name}=') for name in folders)]
  return [
    *kept,
    '--gin.BATCH_SIZE=2',
    *(f'--gin.{name}={folder}' for name, folder in folders.items() if f'--gin.{name}=' in ' '.join(flags)),
  ]


def test_every_command_dry_runs(places):
  lines = [
    json.dumps([name, module, dry_run_flags(flags, places)])
    for name, module, flags in [
      *((name, *command) for name in FILES for command in commands(name)),
      *help_commands(),
    ]
  ]
  assert len(lines) >= len(FILES)
  done = subprocess.run(
    [sys.executable, '-c', DRY_RUNS],
    input='\n'.join(lines),
    capture_output=True,
    text=True,
    check=False,
    cwd='/',
    timeout=900,
  )
  assert done.stdout.count('done ') == len(lines), done.stdout + done.stderr
  assert not (places / 'new').exists()
