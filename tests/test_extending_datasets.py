"""docs/extending.md, "Add a data set": its three steps are done as they stand there, in a copy of the package."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import small_datasets
import soundfile
from paths import ROOT

from mrmt3.notes.midi import write_midi

FENCE = re.compile(r'^```(\w+)[^\n]*\n(.*?)^```$', re.DOTALL | re.MULTILINE)
EXTRA = {  # what makes a command short enough for a test
  'inspect': ['--gin_file', 'models/tiny.gin'],
  'mrmt3.train': ['--dry_run', '--gin.BATCH_SIZE=2', "--gin.train_eval/utils.DatasetConfig.split='test'"],
}


@pytest.fixture(scope='module')
def blocks():
  text = (ROOT / 'docs' / 'extending.md').read_text()
  section = text.partition('\n## Add a data set\n')[2].partition('\n## ')[0]
  found = FENCE.findall(section)
  assert [language for language, _ in found] == ['python', 'python', 'sh']
  path = re.search(r'`(mrmt3/data/sources/\w+\.py)`', section)[1]
  return path, *(text for _, text in found)


@pytest.fixture(scope='module')
def package(blocks, tmp_path_factory):
  """The package with the page's new file and its new line, and nothing else that differs."""
  path, source, line, _ = blocks
  root = tmp_path_factory.mktemp('package')
  own = {root, root / 'mrmt3', root / 'mrmt3' / 'data', root / 'mrmt3' / 'data' / 'sources'}
  for folder in sorted(own):
    folder.mkdir(exist_ok=True)
    original = ROOT / folder.relative_to(root)
    for entry in original.iterdir() if folder != root else ():
      if folder / entry.name not in own and entry.name != 'catalogue.py':
        (folder / entry.name).symlink_to(entry)
  text = (ROOT / 'mrmt3' / 'data' / 'catalogue.py').read_text()
  assert text.count('KNOWN = (\n') == 1 and len(line.splitlines()) == 1 and not (ROOT / path).exists()
  (root / 'mrmt3' / 'data' / 'catalogue.py').write_text(text.replace('KNOWN = (\n', f'KNOWN = (\n  {line.rstrip()},\n'))
  (root / path).write_text(source)
  return root


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Pentatonic as the page describes it, and transcriptions of its test split in which a note is missing."""
  root = tmp_path_factory.mktemp('data')
  for split, seeds in {'train': (1, 2), 'test': (3,)}.items():
    (root / 'DATA' / split).mkdir(parents=True)
    for seed in seeds:
      notes = small_datasets.notes_of(seed, program=73, count=10)
      path = root / 'DATA' / split / f'song{seed}'
      soundfile.write(path.with_suffix('.wav'), small_datasets.sound_of(notes), small_datasets.RATE)
      rows = np.stack([notes[name] for name in ('onset', 'offset', 'pitch')], axis=1)
      np.savetxt(path.with_suffix('.csv'), rows, delimiter=',')
      write_midi(notes[1:], root / 'EST' / f'song{seed}.mid')
  return root


def run(package, folder, words, code=0):
  env = {'PYTHONPATH': str(package), 'MRMT3_CACHE': str(folder / 'cache'), 'JAX_PLATFORMS': 'cpu', 'MRMT3_WORKERS': '1'}
  done = subprocess.run(
    [sys.executable, '-m', *words], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300
  )
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout + done.stderr


@pytest.fixture(scope='module')
def commands(blocks):
  lines = [shlex.split(line) for line in blocks[3].replace('\\\n', ' ').splitlines()]
  return [words if words[0] == 'mrmt3' else words[2:] for words in lines]


def command(commands, name):
  (words,) = [words for words in commands if name in words]
  return [*words, *EXTRA.get(name, [])]


def test_check(package, data, commands):
  output = run(package, data, command(commands, 'check'))
  assert 'pieces audible, of 3' in output and re.search(r'notes with energy at their pitch, of 30 +100\.0 %', output)


def test_check_names_what_cannot_be_used(package, data, commands, tmp_path):
  for name in ('bad', 'good'):
    (tmp_path / 'DATA' / 'train').mkdir(parents=True, exist_ok=True)
    (tmp_path / 'DATA' / 'train' / f'{name}.wav').write_bytes((data / 'DATA' / 'train' / 'song1.wav').read_bytes())
    (tmp_path / 'DATA' / 'train' / f'{name}.csv').write_text('0.25,0.5,60\n' if name == 'good' else '0.25,0.5,160\n')
  output = run(package, tmp_path, command(commands, 'check'), code=1)
  assert 'train/bad: 1 of 1 notes have a pitch out of 0..127' in output and 'train/good' not in output


def test_report(package, data, commands):
  output = run(package, data, command(commands, 'report'))
  assert (
    '3 tracks of 3 pieces, 30 notes' in output and 'splits: train 2' in output and re.search(r'Pipe +0\.\d +30', output)
  )


def test_inspect(package, data, commands):
  output = run(package, data, command(commands, 'inspect'))
  assert re.match(r'pentatonic_random_hop\d_\w+, split train: 5 examples', output)


def test_evaluate(package, data, commands):
  output = run(package, data, command(commands, 'evaluate'))
  row = next(line for line in output.splitlines() if line.startswith('song3'))
  assert row.split()[1] == f'{2 * 9 / 19:.3f}'


@pytest.mark.slow
def test_train(package, data, commands):
  output = run(package, data, command(commands, 'mrmt3.train'))
  assert 'mesh:' in output and 'tie:0' in output


def test_it_is_listed_and_an_unknown_one_is_named(package, data):
  assert 'pentatonic: melodies on five notes' in run(package, data, ['mrmt3', 'dataset'])
  output = run(package, data, ['mrmt3', 'dataset', 'check', 'DATA', '--task', 'nothing'], code=2)
  assert "there is no task 'nothing'; choose one of pentatonic, slakh" in output
