"""Conversion of checkpoints of other programs to mrmt3's format and back."""

import dataclasses
import re
import subprocess
import sys
import tarfile

import command_line
import jax
import network_fixture as fixture
import numpy as np
import pytest
from paths import FIXTURES, ROOT

from mrmt3 import network
from mrmt3.checkpoints import conversion, pytorch_files, pytorch_names
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import convert
from mrmt3.config import ModelSpec
from mrmt3.decoding import greedy as decoding
from mrmt3.errors import UserError
from mrmt3.hybrid import HybridConfig
from mrmt3.nn import layers, parameters
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

HEADS = ('--num-heads', fixture.CONFIG.num_heads)
SPEC = ModelSpec(
  dataclasses.replace(fixture.CONFIG, initializers='mr_mt3', dropout_masks='mr_mt3'),
  SpectrogramConfig(num_mel_bins=fixture.NUM_MEL_BINS, front_end='mr_mt3', scaling='unit'),
  prior_layout='start_token',
)


def run(*arguments):
  return command_line.run(convert, 'convert', *arguments)


def assert_same(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture
def published(tmp_path):
  """Write a file like MR-MT3's: from Lightning, with duplicate weights and position tables."""
  path = tmp_path / f'exp_segmemV2_prev_context={fixture.CONFIG.memory_length}_prevaug_frame=3.ckpt'
  weights = {f'model.{name}': array for name, array in fixture.WEIGHTS.items()}
  weights['model.encoder.pos_emb.inv_freq'] = layers.position_frequencies(64, 'mr_mt3').astype(np.float32)
  pytorch_files.write_torch(path, weights, lightning_step=77)
  return path


def test_mr_mt3_checkpoint(published, tmp_path, capsys):
  assert run(published, tmp_path / 'out', *HEADS) == 0
  params, spec, step = orbax_checkpoints.restore_params(tmp_path / 'out')
  assert (spec, step) == (SPEC, 77)
  assert_same(params, fixture.params())
  assert 'positions mr_mt3; log-mel mr_mt3, scaling unit;' in capsys.readouterr().out
  assert sorted(p.name for p in tmp_path.iterdir()) == sorted(['out', published.name])


def test_mt3_pth(tmp_path):
  weights = {name: array for name, array in fixture.WEIGHTS.items() if not name.startswith('segmem')}
  pytorch_files.write_torch(tmp_path / 'mt3.pth', weights)
  run(tmp_path / 'mt3.pth', tmp_path / 'out', *HEADS)
  spec = orbax_checkpoints.read_spec(tmp_path / 'out')
  assert spec.network == dataclasses.replace(
    fixture.CONFIG,
    positions='mt3',
    memory_length=0,
    decoder_padding_masks=True,
    initializers='mt3',
    dropout_masks='mt3',
  )
  assert spec.spectrogram == SpectrogramConfig(num_mel_bins=fixture.NUM_MEL_BINS)
  assert (spec.prior_layout, spec.segment_frames, spec.targets_length, spec.ties) == ('targets', 256, 1024, True)
  run(tmp_path / 'mt3.pth', tmp_path / 'other', *HEADS, '--positions', 'mr_mt3', '--front-end', 'mr_mt3')
  other = orbax_checkpoints.read_spec(tmp_path / 'other')
  assert (other.network.positions, other.spectrogram.front_end, other.spectrogram.scaling) == (
    'mr_mt3',
    'mr_mt3',
    'none',
  )


@pytest.mark.parametrize('name, step', [('t5x_legacy', 3), ('t5x_orbax', 6)])
def test_t5x_checkpoints_give_the_same_logits_and_tokens(name, step, tmp_path):
  with tarfile.open(FIXTURES / f'{name}_checkpoint_{step}.tar.gz') as archive:
    archive.extractall(tmp_path, filter='data')
  heads = fixture.T5X_CONFIG.num_heads
  run(tmp_path / f'checkpoint_{step}', tmp_path / 'out', '--num-heads', heads)
  params, spec, found_step = orbax_checkpoints.restore_params(tmp_path / 'out')
  assert found_step == step
  assert spec == ModelSpec(fixture.T5X_CONFIG)
  data = np.load(FIXTURES / f'{name}.npz')
  inputs, targets = data['inputs'], data['targets']
  logits = network.Transformer(spec.network).apply(
    {'params': params}, inputs, fixture.shift_right(targets), targets, enable_dropout=False
  )
  np.testing.assert_allclose(logits, data['logits'], atol=1e-4)
  greedy = decoding.transcribe_segments(
    params, inputs, {}, np.ones(len(inputs), bool), spec=spec, max_length=data['greedy'].shape[1]
  )
  np.testing.assert_array_equal(greedy, data['greedy'])


@pytest.mark.parametrize('target', ['x.pth', 'x.pt', 'x_context=5.ckpt', 'x.npz', 't5x', 'mrmt3'])
def test_round_trip(target, published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  layout = ['--to', 't5x'] if target == 't5x' else []
  run(tmp_path / 'ours', tmp_path / target, *layout)
  options = [*HEADS, '--l-agg', fixture.CONFIG.memory_length] if target == 'x.npz' else []
  run(tmp_path / target, tmp_path / 'back', *options)
  params, spec, step = orbax_checkpoints.restore_params(tmp_path / 'back')
  assert_same(params, fixture.params())
  assert spec == SPEC
  assert step == (0 if target in ('x.pth', 'x.pt', 'x.npz') else 77)


def small_hybrid(folder):
  """Write a checkpoint of a hybrid network with a frame head; returns its parameters."""
  sizes = dict(
    vocab_size=1536, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
  )
  config = HybridConfig(**sizes, memory_length=2, front_channels=(2, 2, 2, 2), num_candidates=3)
  spec = ModelSpec(config, SpectrogramConfig(num_mel_bins=16))
  frames, tokens = np.zeros((1, 4, 16), np.float32), np.ones((1, 2), np.int32)
  params = spec.module(with_frame_head=True).init(
    jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens
  )['params']
  orbax_checkpoints.save_checkpoint(folder, 1, {'target': jax.device_get(params)}, spec)
  return jax.device_get(params)


def test_note_heads_that_the_decoder_needs_are_kept(tmp_path):
  wanted = small_hybrid(tmp_path / 'run')
  run(tmp_path / 'run', tmp_path / 'packed', '--to', 'packed')
  params, spec, _ = orbax_checkpoints.restore_params(tmp_path / 'packed')
  assert spec.network.num_candidates == 3 and wanted.pop('frame_head')
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2**-8), params, wanted)


def test_packed_is_half_as_large_and_reads_like_the_others(published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  run(tmp_path / 'ours', tmp_path / 'packed', '--to', 'packed')
  run(tmp_path / 'packed', tmp_path / 'back')
  for folder in ('packed', 'back'):
    params, spec, _ = orbax_checkpoints.restore_params(tmp_path / folder)
    assert spec == SPEC
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2**-8), params, fixture.params())
  count = sum(x.size for x in jax.tree.leaves(fixture.params()))
  assert (tmp_path / 'packed' / 'weights.safetensors').stat().st_size < 2 * count + 20_000
  with pytest.raises(UserError, match='holds checkpoints already'):
    conversion.check_target(tmp_path / 'packed', conversion.PACKED)


def test_t5x_layout_can_be_loaded_directly(published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  run(tmp_path / 'ours', tmp_path / 't5x', '--to', 't5x')
  params, spec, step = orbax_checkpoints.restore_params(tmp_path / 't5x')
  assert_same(params, fixture.params())
  assert (spec, step) == (SPEC, 77)
  (orbax_checkpoints.find_checkpoint(tmp_path / 't5x') / 'model.json').unlink()
  with pytest.raises(UserError, match=r'has no model\.json; run `mrmt3 convert'):
    orbax_checkpoints.restore_params(tmp_path / 't5x')


def test_written_pytorch_files_have_all_of_the_ports_names(published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  run(tmp_path / 'ours', tmp_path / 'x.pth')
  found = pytorch_files.read_torch(tmp_path / 'x.pth').weights
  tables = {f'{stack}.pos_emb.inv_freq' for stack in ('encoder', 'decoder', 'segmem_encoder')}
  assert found.keys() == {*fixture.WEIGHTS, *pytorch_names.COPIES, *tables}
  for name in found.keys() & fixture.WEIGHTS.keys():
    # The published tables are computed in float32.
    np.testing.assert_allclose(found[name], fixture.WEIGHTS[name], rtol=2e-7 if name in tables else 0, err_msg=name)


@pytest.mark.parametrize('positions', ['mt3', 'mr_mt3'])
def test_the_position_table_follows_the_weights(positions, published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS, '--positions', positions)
  run(tmp_path / 'ours', tmp_path / 'x.pth')
  table = pytorch_files.read_torch(tmp_path / 'x.pth').weights['decoder.pos_emb.inv_freq']
  angles = np.arange(50)[:, None] * np.asarray(table, np.float64)
  expected = layers.sinusoidal_positions(50, 64, positions)
  np.testing.assert_allclose(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), expected, atol=1e-5)
  np.savez(tmp_path / 'plain.npz', **pytorch_files.read_torch(tmp_path / 'x.pth').weights)
  run(tmp_path / 'plain.npz', tmp_path / 'back', *HEADS, '--l-agg', 5)
  assert orbax_checkpoints.read_spec(tmp_path / 'back').network.positions == positions


def test_another_position_table_is_not_guessed(published, tmp_path):
  weights = {**fixture.WEIGHTS, 'decoder.pos_emb.inv_freq': np.ones(32, np.float32)}
  pytorch_files.write_torch(tmp_path / 'x.pth', weights)
  with pytest.raises(UserError, match=r'decoder\.pos_emb\.inv_freq is no position table.*--positions'):
    run(tmp_path / 'x.pth', tmp_path / 'out', *HEADS, '--l-agg', 5)
  assert run(tmp_path / 'x.pth', tmp_path / 'out', *HEADS, '--l-agg', 5, '--positions', 'mt3') == 0


def test_memory_from_mt3(published, tmp_path, capsys):
  run(published, tmp_path / 'mt3', *HEADS, '--l-agg', 0)
  assert 'left out: the 13 arrays of an unused memory' in capsys.readouterr().out
  with pytest.raises(UserError, match=r'memory_encoder/.* is missing.*--allow-missing memory'):
    run(tmp_path / 'mt3', tmp_path / 'bad', '--l-agg', 8)
  for name, seed in (('a', 1), ('b', 1), ('c', 2)):
    run(tmp_path / 'mt3', tmp_path / name, '--l-agg', 8, '--allow-missing', 'memory', '--seed', seed)
  assert 'the memory, which is initialized randomly (seed 2)' in capsys.readouterr().out
  (a, spec, _), (b, _, _), (c, _, _) = (orbax_checkpoints.restore_params(tmp_path / name) for name in 'abc')
  assert spec.network.memory_length == 8
  assert_same(a, b)
  memories = [params.pop('memory_encoder') for params in (a, c)]
  assert_same(a, {name: part for name, part in fixture.params().items() if name != 'memory_encoder'})
  kernels = [np.asarray(memory['projection']['kernel']) for memory in memories]
  assert np.abs(kernels[0] - kernels[1]).max() > 0.01 and kernels[0].std() > 0.01
  assert not (tmp_path / 'bad').exists()


def test_the_piano_model_of_ismir_2021(tmp_path):
  """127 velocity bins, inferred from the vocabulary: no ties, 512 frames."""
  spec = ModelSpec(
    network.T5Config(1664, emb_dim=8, num_heads=1, head_dim=4, mlp_dim=4, num_encoder_layers=1, num_decoder_layers=2),
    vocabulary=VocabularyConfig(num_velocity_bins=127),
    segment_frames=512,
    ties=False,
  )
  params = jax.tree.map(lambda s: np.ones(s.shape, np.float32), spec.parameter_shapes())
  conversion.write(tmp_path / 'theirs', conversion.T5X_LEGACY, params, spec, 9)
  (tmp_path / 'theirs' / 'checkpoint_9' / 'model.json').unlink()
  run(tmp_path / 'theirs', tmp_path / 'out', '--num-heads', 1)
  assert orbax_checkpoints.read_spec(tmp_path / 'out') == spec


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda w: w.pop('lm_head.weight'), 'lm_head.weight is missing'),
    (lambda w: w.pop('segmem_proj.weight'), 'segmem_proj.weight is missing'),
    (lambda w: w.update({'attic.weight': np.zeros(3)}), 'attic.weight is left over'),
    (
      lambda w: w.update({'encoder.block.7.layer.0.layer_norm.weight': np.zeros(64)}),
      r'encoder\.block\.\d.* is missing',
    ),
    (
      lambda w: w.update({'lm_head.weight': np.zeros((7, 64))}),
      r'lm_head.weight is \(7, 64\), the network has \(1536, 64\)',
    ),
    (lambda w: w.update({'encoder.embed_tokens.weight': np.zeros((64, 64))}), 'differs from proj.weight'),
    (lambda w: w.pop('decoder_embed_tokens.weight'), 'decoder_embed_tokens.weight is missing'),
    (lambda w: w.update({'decoder_embed_tokens.weight': np.zeros(64)}), 'not two dimensions'),
    (lambda w: w.update({'proj.weight': np.float32(1)}), 'not two dimensions'),
    (lambda w: w.update({'decoder_embed_tokens.weight': np.zeros((1536, 5))}), 'emb_dim is 5'),
    (lambda w: w.update({'decoder_embed_tokens.weight': np.zeros((0, 64))}), 'vocab_size is 0'),
    (lambda w: w.update({'decoder.block.999999999.x': np.zeros(1)}), 'layer 999999999, but there are'),
    (lambda w: w.update({f'decoder.block.{"9" * 5000}.x': np.zeros(1)}), 'layer 9{20}, but there are'),
  ],
)
def test_mismatches_raise_one_line(change, message, tmp_path):
  weights = {name: np.asarray(array) for name, array in fixture.WEIGHTS.items()}
  change(weights)
  np.savez(tmp_path / 'x.npz', **weights)
  with pytest.raises(UserError, match=message) as error:
    run(tmp_path / 'x.npz', tmp_path / 'out', *HEADS, '--l-agg', 4)
  assert '\n' not in str(error.value) and str(tmp_path / 'x.npz') in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_settings_that_no_array_determines_are_required(published, tmp_path):
  plain = published.rename(tmp_path / 'last.ckpt')
  with pytest.raises(UserError, match='--l-agg N'):
    run(plain, tmp_path / 'out', *HEADS)
  with pytest.raises(UserError, match='--num-heads N'):
    run(plain, tmp_path / 'out', '--l-agg', 4)
  with pytest.raises(UserError, match='5 heads do not divide'):
    run(plain, tmp_path / 'out', '--l-agg', 4, '--num-heads', 5)
  with pytest.raises(UserError, match='--list'):
    run(plain)


def test_destinations_that_exist_or_are_invalid(published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  for arguments, message in (
    ((tmp_path / 'ours',), 'holds checkpoints already'),
    ((tmp_path / 'ours' / 'checkpoint_77',), 'holds checkpoints already'),
    ((tmp_path / 'x.pth', '--to', 't5x'), 'no t5x layout'),
    ((published / 'out',), 'cannot make the folder'),
    (('/dev/full/x.pth',), 'cannot make the folder'),
  ):
    with pytest.raises(UserError, match=message):
      run(tmp_path / 'ours', *arguments)
  (tmp_path / 'd.pth').mkdir()
  with pytest.raises(UserError, match='is a folder'):
    run(tmp_path / 'ours', tmp_path / 'd.pth')
  (tmp_path / 'file').write_text('precious')
  with pytest.raises(UserError, match='is a file'):
    run(tmp_path / 'ours', tmp_path / 'file')
  assert (tmp_path / 'file').read_text() == 'precious'


def with_output_positions(network):
  fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
  return HybridConfig(**fields, front='linear', time_stride=1, num_candidates=0, event_state=False, last_event=False)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (with_output_positions, 'hybrid'),
    (lambda network: network.replace(memory_attention='decoupled'), 'memory_attention'),
  ],
)
def test_settings_that_pytorch_cannot_store_are_rejected(change, message, published, tmp_path):
  run(published, tmp_path / 'ours', *HEADS)
  params, spec, step = orbax_checkpoints.restore_params(tmp_path / 'ours')
  spec = dataclasses.replace(spec, network=change(spec.network))
  orbax_checkpoints.save_checkpoint(tmp_path / 'placed', step, {'target': params}, spec)
  for name in ('x.pth', 'x.ckpt', 'x.npz'):
    with pytest.raises(UserError, match=message):
      run(tmp_path / 'placed', tmp_path / name)
    assert not (tmp_path / name).exists()
  run(tmp_path / 'placed', tmp_path / 'packed', '--to', 'packed')
  assert orbax_checkpoints.read_spec(tmp_path / 'packed') == spec


def test_a_failed_write_leaves_nothing(published, tmp_path, monkeypatch):
  import tensorstore

  run(published, tmp_path / 'ours', *HEADS)
  real, calls = tensorstore.open, []

  def full(*args, **kwargs):
    calls.append(args)
    if len(calls) > 5:
      raise ValueError('No space left on device')
    return real(*args, **kwargs)

  source = conversion.open_source(tmp_path / 'ours')
  params = conversion.params_of(source, source.spec)
  monkeypatch.setattr(tensorstore, 'open', full)
  with pytest.raises(UserError, match='No space left'):
    conversion.write(tmp_path / 't5x', conversion.T5X_LEGACY, params, source.spec, 1)
  assert len(calls) > 5 and list((tmp_path / 't5x').iterdir()) == []


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('x.ckpt', b'version https://git-lfs.github.com/spec/v1\noid sha256:b8\n', 'pointer of Git LFS'),
    ('x.ckpt', b'', 'not a checkpoint'),
    ('x.npz', b'PK junk', 'not a .npz file'),
    ('none', None, 'no such checkpoint'),
  ],
)
def test_invalid_checkpoints(name, content, message, tmp_path):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    run(tmp_path / name, tmp_path / 'out')
  assert '\n' not in str(error.value)


def test_list(published, tmp_path, capsys):
  assert run(published, '--list') == 0
  lines = capsys.readouterr().out.splitlines()
  assert re.fullmatch(
    r'lm_head\.weight +\(1536, 64\) +float32', next(line for line in lines if line.startswith('lm_head'))
  )
  assert lines[-1].endswith('Lightning, step 77')
  assert len(lines) == 1 + int(lines[-1].split()[0])


MEASURE = """
import sys
import jax, flax, numpy, orbax.checkpoint, tensorstore
from mrmt3 import network
from mrmt3.checkpoints import conversion
from mrmt3.cli.main import main
def peak():
  # Not getrusage's, which a process inherits.
  return 1024 * next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))
before = peak()
code = main(['convert', *sys.argv[1:]])
print('peak', peak() - before)
sys.exit(code)
"""


@pytest.mark.slow
def test_memory_stays_below_twice_the_weights(tmp_path):
  """Base size, PyTorch to mrmt3 and mrmt3 to all others; the optimizer state must not be read into memory."""
  config = network.T5Config(vocab_size=1536, memory_length=64)
  rng = np.random.default_rng(0)
  shapes = parameters.parameter_shapes(config, None, 512)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32), shapes)
  size = sum(x.nbytes for x in jax.tree.leaves(params))
  conversion.write(tmp_path / 'context=64.ckpt', conversion.LIGHTNING, params, ModelSpec(config), 1)
  del params
  for source, *target in (
    ('context=64.ckpt', 'ours'),
    ('ours', 'x.pth'),
    ('ours', 'x.npz'),
    ('ours', 't5x', '--to', 't5x'),
    ('t5x', 'again'),
    ('ours', 'context=64_again.ckpt'),
  ):
    result = subprocess.run(
      [sys.executable, '-c', MEASURE, source, *target],
      capture_output=True,
      text=True,
      cwd=tmp_path,
      check=True,
      env={'PYTHONPATH': str(ROOT), 'PATH': '', 'JAX_PLATFORMS': 'cpu', 'HOME': str(tmp_path)},
    )
    peak = int(result.stdout.split('peak')[-1])
    print(source, *target, f'{peak / size:.2f} times the weights')
    assert 0.5 * size < peak < 2 * size, (source, target, peak / size)
