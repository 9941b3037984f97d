"""`mrmt3 info`, and the choice of a device."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT

from mrmt3.cli.main import main
from mrmt3.inspection import environment
from mrmt3.version import __version__


def test_info_says_what_is_here(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path))
  (tmp_path / 'programs').mkdir()
  (tmp_path / 'programs' / 'one').write_bytes(bytes(2_500_000))
  assert main(['info', '--json']) == 0
  facts = json.loads(capsys.readouterr().out)
  assert facts['mrmt3']['version'] == __version__
  assert facts['packages']['jax'][0].isdigit()
  assert list(facts['devices']) == ['cpu 0']
  assert facts['cache'] == {'folder': str(tmp_path), 'programs': '2.5 MB'}
  assert facts['environment']['MRMT3_CACHE'] == str(tmp_path)
  assert main(['info']) == 0
  text = capsys.readouterr().out
  for section, part in facts.items():
    assert section in text.splitlines()
    for name, value in part.items():
      assert any(name in line and value in line for line in text.splitlines())


def test_what_is_missing_is_named_with_what_brings_it(monkeypatch, tmp_path):
  monkeypatch.setattr(environment, 'PACKAGES', (('no-such-package', 'train'),))
  monkeypatch.setattr(environment.soundfonts, 'KNOWN', {'some-font': str(tmp_path / 'font.sf2')})
  facts = environment.describe()
  assert facts['packages'] == {'no-such-package': 'not here: pip install "mrmt3[train]"'}
  assert facts['soundfonts'] == {'some-font': 'not here: apt-get install some-font'}


def run(*arguments, **variables):
  return subprocess.run(
    [sys.executable, '-m', 'mrmt3', *arguments],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env={**os.environ, **variables},
  )


@pytest.mark.parametrize('device', ['cuda', 'tpu'])
def test_a_device_that_is_not_there_is_one_line(device):
  result = run('bench', 'transcribe', '--seconds', '1', '--device', device)
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert f'--device {device}: JAX finds no such device' in line and 'pip install' in line
  result = run('bench', 'transcribe', '--seconds', '1', JAX_PLATFORMS=device)
  assert result.returncode == 2
  (line,) = result.stderr.splitlines()
  assert 'JAX_PLATFORMS' in line


def test_the_cpu_is_always_there():
  result = run('bench', 'transcribe', '--seconds', '1', '--runs', '1', '--device', 'cpu')
  assert result.returncode == 0, result.stderr
