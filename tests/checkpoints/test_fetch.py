"""`mrmt3 fetch` and checkpoint names, with a server on this machine."""

import dataclasses
import json
import shutil

import command_line
import file_server
import jax
import numpy as np
import pytest

from mrmt3.checkpoints import conversion, download, published, pytorch_files, pytorch_names, spec_json
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.checkpoints.fetch import is_here
from mrmt3.cli import fetch, transcribe
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.network import T5Config
from mrmt3.nn import parameters

CONFIG = T5Config(1536, emb_dim=8, mlp_dim=4, num_encoder_layers=1, num_decoder_layers=1, memory_length=32)
FILE = 'exp_segmemV2_prev_context=32.ckpt'


def run(*arguments):
  return command_line.run(fetch, 'fetch', *arguments)


def make_params(config):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda s: rng.standard_normal(s.shape, np.float32), parameters.parameter_shapes(config, None, 512)
  )


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """Published files: MR-MT3's, and MT3's folder with optimizer state."""
  folder = tmp_path_factory.mktemp('published')
  weights, _ = pytorch_names.torch_from_params(make_params(CONFIG), 'mr_mt3')
  pytorch_files.write_torch(
    folder / FILE, {f'model.{name}': array for name, array in weights.items()}, lightning_step=7
  )
  mt3 = dataclasses.replace(CONFIG, memory_length=0)
  made = conversion.write(folder / 'mt3', conversion.T5X_LEGACY, make_params(mt3), ModelSpec(mt3), 11)
  (made / 'model.json').unlink()
  (made / 'state.param_states.x').mkdir()
  (made / 'state.param_states.x' / '0').write_bytes(bytes(100))
  return folder


@pytest.fixture
def server(files, monkeypatch, tmp_path):
  monkeypatch.setattr(download, '_PAUSE', 0.01)
  monkeypatch.setattr(download, 'TIMEOUT', 2.0)
  monkeypatch.setenv('MRMT3_CACHE', str(tmp_path / 'cache'))
  with file_server.running() as state:
    state.files['/hub/x.ckpt'] = (files / FILE).read_bytes()
    mt3 = files / 'mt3' / 'checkpoint_11'
    objects = {f'checkpoints/mt3/{p.relative_to(mt3)}': p.read_bytes() for p in mt3.rglob('*') if p.is_file()}
    file_server.bucket(state, objects, page=7)
    entries = (
      published.Published('mr-mt3-32', 'small', published.RemoteFile(FILE, f'{state.url}/hub/x.ckpt')),
      published.Published('mt3', 'small', listing=f'{state.url}/b/o', prefix='checkpoints/mt3/'),
    )
    monkeypatch.setattr(published, 'CHECKPOINTS', {entry.name: entry for entry in entries})
    yield state


def assert_is(name, config, step):
  params, spec, found_step = orbax_checkpoints.restore_params(name)
  assert (spec.network.memory_length, found_step) == (config.memory_length, step)
  jax.tree.map(np.testing.assert_array_equal, params, make_params(config))
  return spec


def test_a_file_is_fetched_once_and_found_by_name(server, tmp_path, capsys):
  with pytest.raises(UserError, match='run `mrmt3 fetch mr-mt3-32`'):
    orbax_checkpoints.restore_params('mr-mt3-32')
  server.cuts = [100]
  assert run('mr-mt3-32') == 0
  spec = assert_is('mr-mt3-32', CONFIG, 7)
  assert spec.prior_layout == 'start_token' and spec.network.positions == 'mr_mt3'
  output = capsys.readouterr().err
  assert 'mr-mt3-32: is here now' in output and 'sha256' in output
  cache = tmp_path / 'cache'
  assert [p.name for p in (cache / 'checkpoints').iterdir()] == ['mr-mt3-32']
  assert list((cache / 'downloads').iterdir()) == []
  asked = len(server.requests)
  assert run('mr-mt3-32') == 0
  assert len(server.requests) == asked and 'was here already' in capsys.readouterr().err
  run('--list')
  listed = capsys.readouterr().out
  assert listed.split()[:2] == ['mr-mt3-32', 'here']


def test_a_folder_of_that_name_takes_precedence(server, tmp_path, monkeypatch):
  run('mr-mt3-32', '--quiet')
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mr-mt3-32').mkdir()
  with pytest.raises(UserError, match='not a checkpoint'):
    orbax_checkpoints.restore_params('mr-mt3-32')


def test_a_bucket_is_fetched_without_its_optimizer_state(server, tmp_path):
  server.cuts = [None, None, 0, None, 5]
  assert run('mt3', '--quiet', '--keep') == 0
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)
  assert not [path for path, _ in server.requests if 'state.' in path]
  kept = tmp_path / 'cache' / 'downloads' / 'mt3'
  assert (kept / 'checkpoint').is_file() and not list(kept.rglob('*.part'))


def test_an_interrupted_bucket_resumes(server):
  whole = server.files.pop('/b/o/checkpoints%2Fmt3%2Fcheckpoint')
  with pytest.raises(UserError, match='404'):
    run('mt3', '--quiet')
  server.files['/b/o/checkpoints%2Fmt3%2Fcheckpoint'] = whole
  fetched = {path for path, _ in server.requests}
  server.requests.clear()
  run('mt3', '--quiet')
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)
  assert {path for path, _ in server.requests} & fetched == {'/b/o', '/b/o/checkpoints%2Fmt3%2Fcheckpoint'}


def offline(monkeypatch):
  entries = {
    'mr-mt3-32': published.Published('mr-mt3-32', '', published.RemoteFile(FILE, 'http://127.0.0.1:1/x.ckpt')),
    'mt3': published.Published('mt3', '', listing='http://127.0.0.1:1/b/mt3/o', prefix='checkpoints/mt3/'),
  }
  monkeypatch.setattr(published, 'CHECKPOINTS', entries)


def test_offline_instructions_work(server, files, tmp_path, monkeypatch):
  offline(monkeypatch)
  with pytest.raises(UserError) as error:
    run('mr-mt3-32', '--quiet')
  target = tmp_path / 'cache' / 'downloads' / 'mr-mt3-32' / FILE
  assert f'download http://127.0.0.1:1/x.ckpt elsewhere and put it at {target}' in str(error.value)
  assert '\n' not in str(error.value)
  shutil.copy(files / FILE, target)
  run('mr-mt3-32', '--quiet')
  assert_is('mr-mt3-32', CONFIG, 7)
  assert target.exists(), "a person's file is not ours to remove"

  with pytest.raises(UserError) as error:
    run('mt3', '--quiet')
  target = tmp_path / 'cache' / 'downloads' / 'mt3'
  assert f'`gsutil -m cp -r gs://mt3/checkpoints/mt3/* mt3` elsewhere and put the files into {target}' in str(
    error.value
  )
  shutil.copytree(files / 'mt3' / 'checkpoint_11', target)
  run('mt3', '--quiet')
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)
  assert (target / 'checkpoint').exists()


def test_files_placed_after_an_interrupted_download(server, files, tmp_path, monkeypatch):
  server.files['/b/o/checkpoints%2Fmt3%2Fcheckpoint'] = b''
  del server.files['/b/o/checkpoints%2Fmt3%2Fcheckpoint']
  with pytest.raises(UserError, match='404'):
    run('mt3', '--quiet')
  offline(monkeypatch)
  with pytest.raises(UserError, match='Without internet'):
    run('mt3', '--quiet')
  shutil.copytree(files / 'mt3' / 'checkpoint_11', tmp_path / 'cache' / 'downloads' / 'mt3', dirs_exist_ok=True)
  run('mt3', '--quiet')
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)


def test_a_bucket_with_the_checkpoint_in_a_subfolder(server, files, tmp_path, monkeypatch):
  objects = {
    f'checkpoints/mt3/checkpoint_11/{p.relative_to(files / "mt3" / "checkpoint_11")}': p.read_bytes()
    for p in (files / 'mt3' / 'checkpoint_11').rglob('*')
    if p.is_file()
  }
  file_server.bucket(server, objects)
  run('mt3', '--quiet')
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)
  assert not [path for path, _ in server.requests if 'state.' in path]
  shutil.rmtree(tmp_path / 'cache')
  offline(monkeypatch)
  shutil.copytree(files / 'mt3', tmp_path / 'cache' / 'downloads' / 'mt3')
  run('mt3', '--quiet')
  assert_is('mt3', dataclasses.replace(CONFIG, memory_length=0), 11)


def test_a_wrong_file_placed_by_hand(server, tmp_path, monkeypatch):
  entry = dataclasses.replace(published.CHECKPOINTS['mr-mt3-32'].file, size=5, sha256='0' * 64)
  monkeypatch.setitem(published.CHECKPOINTS, 'mr-mt3-32', published.Published('mr-mt3-32', '', entry))
  target = tmp_path / 'cache' / 'downloads' / 'mr-mt3-32' / FILE
  target.parent.mkdir(parents=True)
  for content, message in ((b'1234', '4 bytes, not 5'), (b'12345', 'sha256')):
    target.write_bytes(content)
    with pytest.raises(UserError, match=message):
      run('mr-mt3-32', '--quiet')
    assert target.read_bytes() == content


def test_a_published_file_that_is_not_a_checkpoint(server, tmp_path):
  server.files['/hub/x.ckpt'] = b'PK\x03\x04 junk that a server sent with code 200'
  with pytest.raises(UserError, match='not a PyTorch file'):
    run('mr-mt3-32', '--quiet')
  assert not (tmp_path / 'cache' / 'checkpoints').exists()


def test_names():
  with pytest.raises(
    UserError, match=r'no published checkpoint .mt4.; choose one of mt3, ismir2021, mt3-pytorch, mr-mt3-0'
  ):
    run('mt4')
  with pytest.raises(UserError, match='--list'):
    run()


def test_every_published_checkpoint_has_an_address_and_settings():
  for name, what in published.CHECKPOINTS.items():
    assert what.name == name and bool(what.file) != bool(what.listing)
    if what.file:
      assert what.file.url.startswith('https://')
      length = conversion._LENGTH_IN_NAME.search(what.file.name)
      assert (length[1] if length else None) == (name.split('-')[2] if name.startswith('mr-mt3') else None)
    else:
      assert what.address == f'gs://mt3/checkpoints/{name}'
  assert len({what.address for what in published.CHECKPOINTS.values()}) == len(published.CHECKPOINTS) == 8


def test_transcribe_takes_a_name(server, tmp_path):
  from mrmt3.audio import files as audio_files

  run('mr-mt3-32', '--quiet')
  folder = published.checkpoint_folder('mr-mt3-32') / 'checkpoint_7'
  spec = dataclasses.replace(orbax_checkpoints.read_spec(folder), segment_frames=32, targets_length=34)
  (folder / 'model.json').write_text(spec_json.to_json(spec))
  audio_files.write_audio(tmp_path / 'a.wav', np.zeros(4000, np.float32))
  words = tmp_path / 'a.wav', '-o', tmp_path / 'a.mid', '--checkpoint', 'mr-mt3-32', '--json', '--quiet'
  assert command_line.run(transcribe, 'transcribe', *words) == 0
  assert json.loads((tmp_path / 'a.json').read_text())['stats']['segments'] == 1


def test_no_cache_folder(monkeypatch):
  monkeypatch.setattr(published, 'cache_root', lambda: None)
  with pytest.raises(UserError, match='MRMT3_CACHE'):
    is_here(published.named('mt3'))
