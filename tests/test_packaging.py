"""Contents of the installed package; transcription without TensorFlow and seqio."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

TRAINING_ONLY = (
  'tensorflow',
  'tf_keras',
  'keras',
  'seqio',
  'clu',
  'gin',
  'music21',
  'symusic',
  'note_seq',
  'librosa',
  'tensorboard',
)


@pytest.fixture(scope='module')
def plain_environment(tmp_path_factory):
  """Environment variables for a Python (started with -S) that finds all installed packages but training's.

  Real files, reached through links: packages that look for others before they import them see what a user would have.
  """
  folder = tmp_path_factory.mktemp('site-packages')
  for kind in ('purelib', 'platlib'):
    for entry in Path(sysconfig.get_path(kind)).iterdir():
      link = folder / entry.name
      if not entry.name.lower().startswith(TRAINING_ONLY) and entry.suffix != '.pth' and not link.exists():
        link.symlink_to(entry)
  return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(folder)])}


@pytest.fixture(scope='module')
def song_and_model(tmp_path_factory, small_spec):
  import jax
  import numpy as np

  from mrmt3.audio import files as audio_files
  from mrmt3.checkpoints import orbax as orbax_checkpoints

  folder = tmp_path_factory.mktemp('plain')
  time = np.arange(32000) / 16000
  audio_files.write_audio(folder / 'song.wav', (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))
  shapes = small_spec.parameter_shapes()
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32), shapes)
  orbax_checkpoints.save_checkpoint(folder / 'model', 0, {'target': params}, small_spec)
  return folder


def plain_python(environment, cwd, *arguments):
  return subprocess.run(
    [sys.executable, '-S', *arguments],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
    cwd=cwd,
    env=environment,
  )


def test_transcribes_and_evaluates_without_tensorflow_and_seqio(song_and_model, plain_environment):
  for name in ('tensorflow', 'seqio'):
    assert plain_python(plain_environment, song_and_model, '-c', f'import {name}').returncode == 1
  transcribe = ['transcribe', 'song.wav', '-o', 'song.mid', '--checkpoint', 'model', '--plot', '--json']
  result = plain_python(plain_environment, song_and_model, '-m', 'mrmt3', *transcribe)
  assert result.returncode == 0, result.stderr
  assert {'song.mid', 'song.png', 'song.json'} <= {path.name for path in song_and_model.iterdir()}
  result = plain_python(plain_environment, song_and_model, '-m', 'mrmt3', 'evaluate', 'song.mid', 'song.mid')
  assert result.returncode == 0, result.stderr


def test_training_says_what_to_install(tmp_path, plain_environment):
  result = plain_python(plain_environment, tmp_path, '-m', 'mrmt3.train', '--gin_file=runs/twin.gin')
  assert result.returncode == 2
  assert 'mrmt3[train]' in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.slow
def test_wheel_holds_gin_files_and_tasks(tmp_path):
  """Build a wheel from a source distribution (the build's own requirements come from the package index)."""
  subprocess.run([sys.executable, '-m', 'build', '--outdir', str(tmp_path), str(ROOT)], check=True, capture_output=True)
  (wheel,) = tmp_path.glob('mrmt3-*.whl')
  names = zipfile.ZipFile(wheel).namelist()
  for path in sorted((ROOT / 'gin').glob('*/*.gin')):
    assert f'mrmt3/gin/{path.parent.name}/{path.name}' in names
  for path in sorted([*(ROOT / 'mrmt3').glob('*/templates/*'), *(ROOT / 'mrmt3' / 'web' / 'static').iterdir()]):
    assert path.relative_to(ROOT).as_posix() in names
  assert {'mrmt3/tasks/slakh.py', 'mrmt3/gin/runs/__init__.py', 'mrmt3/engine/utils.py', 'mrmt3/cli/main.py'} <= set(
    names
  )
  assert not [name for name in names if name.startswith(('gin/', 'tasks/', 'tests/'))]
  target = tmp_path / 'installed'
  zipfile.ZipFile(wheel).extractall(target)
  environment = {**os.environ, 'PYTHONPATH': str(target)}
  where = subprocess.run(
    [sys.executable, '-c', 'import mrmt3; print(mrmt3.__file__)'],
    capture_output=True,
    text=True,
    check=True,
    cwd=tmp_path,
    env=environment,
  )
  assert where.stdout.startswith(str(target))
  result = subprocess.run(
    [sys.executable, '-m', 'mrmt3.train', '--gin_file=runs/demo.gin'],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
    env=environment,
  )
  assert 'MODEL_DIR is not set' in result.stderr, result.stderr


def test_started_from_the_clones_root_gin_is_still_gin():
  result = subprocess.run(
    [sys.executable, '-c', 'import gin, mrmt3.gin.runs; print(gin.parse_config)'],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  assert 'function parse_config' in result.stdout
