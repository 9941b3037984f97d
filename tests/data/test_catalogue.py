"""Tests of `mrmt3 dataset`: it lists every data set, how to get and prepare it, and where it is on this machine."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import small_datasets

from mrmt3.cli.commands import build_parser
from mrmt3.cli.main import main
from mrmt3.data import catalogue
from mrmt3.data.convert.base import Options
from mrmt3.data.sources.mt3_records import PUBLISHED
from mrmt3.errors import UserError


@pytest.fixture(autouse=True)
def _nowhere_else(monkeypatch, tmp_path):
  monkeypatch.setattr(catalogue, '_PLACES', ())
  for name in ('MRMT3_DATA', 'MRMT3_RECORDS'):
    monkeypatch.delenv(name, raising=False)


def listed(capsys, *arguments):
  assert main(['dataset', '--json', *map(str, arguments)]) == 0
  return {dataset['name']: dataset for dataset in json.loads(capsys.readouterr().out)}


def test_all_data_sets_are_listed(capsys):
  found = listed(capsys)
  assert set(PUBLISHED) <= found.keys() and {'commu', 'nsynth', 'own', 'built', 'mixture'} <= found.keys()
  assert all(one['where'] and one['prepare'] and one['tasks'] for one in found.values())
  assert all(one['licence'] for name, one in found.items() if name not in ('own', 'mixture'))
  assert not any(one['folders'] or one['records'] for one in found.values())
  tasks = ' '.join(one['tasks'] for one in found.values())
  assert all(task.partition(':')[0] in tasks for task in catalogue.sources())
  assert main(['dataset']) == 0
  text = capsys.readouterr().out
  assert (
    '0 of them on this machine' in text
    and text.count('\n  where ') == len(found)
    and 'zenodo.org/records/4599666' in text
  )


def test_what_the_entries_name_is_there(tmp_path):
  """Every function opens a folder, or reports in one line what it lacks."""
  assert {f'mt3_records:{name}' for name in PUBLISHED} <= catalogue.sources().keys()
  for task in catalogue.sources():
    with pytest.raises(UserError):
      catalogue.open_source(task, tmp_path / 'nowhere').splits()
  for name in catalogue.originals():
    with pytest.raises(UserError):
      catalogue.open_original(name, tmp_path / 'nowhere', Options()).splits()
  for open_it, words in ((catalogue.open_source, ()), (catalogue.open_original, (Options(),))):
    with pytest.raises(UserError, match=r"'nothing'.*; choose one of .*slakh"):
      open_it('nothing', tmp_path, *words)


def test_only_what_mt3_cuts_is_cut():
  cut = {task for task in catalogue.sources() if task.startswith('mt3_records') and catalogue.trims(task)}
  assert cut == {'mt3_records:slakh', 'mt3_records:cerberus4'} and catalogue.trims('slakh')


def test_commands_that_prepare_are_commands(capsys):
  commands = [one['prepare'].rpartition(': ')[2] for one in listed(capsys).values()]
  parsed = [build_parser().parse_args(shlex.split(text)[1:]) for text in commands if text.startswith('mrmt3 ')]
  assert {'convert', 'commu', 'build'} <= {args.dataset_command for args in parsed if args.command == 'dataset'}


def test_data_sets_on_this_machine_are_found(tmp_path, small_data, capsys):
  root = tmp_path / 'disk'
  originals = small_datasets.write_originals(root / 'original')
  commu = small_datasets.write_commu(root / 'commu' / 'dataset', clips=3, audio=False)
  nsynth = small_datasets.write_nsynth(root / 'nsynth')
  small_datasets.write_published(root / 'records', 'urmp')
  small_datasets.write_published(root / 'records', 'cerberus4')
  (root / 'slakh2100_flac_redux').symlink_to(small_data)
  built = root / 'built'
  (built / 'train').mkdir(parents=True)
  (built / 'train' / 'Track00000').symlink_to(small_data / 'train' / 'Track00000')
  (built / 'dataset.json').write_text('{}')
  found = listed(capsys, '--data', root, '--data', root / 'original')
  assert found['commu']['folders'] == [str(commu)] and found['commu']['prepare'] == f'mrmt3 dataset commu {commu}'
  assert found['nsynth']['folders'] == [str(nsynth)]
  for name in ('maestrov1', 'maestrov3', 'guitarset', 'musicnet'):
    assert found[name]['folders'] == [str(originals[name])] and not found[name]['records']
    assert found[name]['prepare'] == f'mrmt3 dataset convert {name} {originals[name]} records'
  assert found['musicnet_em']['folders'] == [str(originals['musicnet'])]
  assert found['urmp']['records'] == [str(root / 'records' / 'urmp')] and not found['urmp']['folders']
  assert found['cerberus4']['records'] == [str(root / 'records' / 'cerberus4')]
  assert found['slakh']['folders'] == [str(small_data.resolve())]
  assert found['built']['folders'] == [str(built)]


def test_places_are_those_of_the_environment(tmp_path, monkeypatch, capsys):
  for name in 'ab':
    small_datasets.write_nsynth(tmp_path / name / 'sets' / 'nsynth')
  small_datasets.write_published(tmp_path / 'records', 'urmp')
  monkeypatch.setenv('MRMT3_DATA', f'{tmp_path / "a"}:{tmp_path / "b"}:{tmp_path / "none"}')
  monkeypatch.setenv('MRMT3_RECORDS', str(tmp_path / 'records'))
  found = listed(capsys)
  assert found['nsynth']['folders'] == [str(tmp_path / name / 'sets' / 'nsynth') for name in 'ab']
  assert found['urmp']['records'] == [str(tmp_path / 'records' / 'urmp')]
  assert main(['dataset']) == 0
  assert f'here     {tmp_path / "records" / "urmp"} (records)' in capsys.readouterr().out


def test_homes_of_unknown_users_are_ignored(monkeypatch, capsys):
  monkeypatch.setenv('MRMT3_DATA', '~nobody_of_that_name/data')
  assert listed(capsys)


def test_tensorflow_is_not_imported_and_large_folders_are_not_searched(tmp_path):
  for number in range(3000):
    (tmp_path / f'folder{number}').mkdir()
  code = (
    'import sys\n'
    'from mrmt3.cli.main import main\n'
    f'assert main(["dataset", "--data", {str(tmp_path)!r}]) == 0\n'
    'assert not {"tensorflow", "seqio", "jax", "numpy"} & set(sys.modules)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False, env={**os.environ, 'MRMT3_DATA': ''}
  )
  assert done.returncode == 0, done.stderr
