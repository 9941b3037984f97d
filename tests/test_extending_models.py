"""New models need no change of what exists but a line in the registry."""

import ast
import dataclasses
import sys
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training
from doc_blocks import code_blocks
from flax import linen as nn
from paths import ROOT

import mrmt3
from mrmt3 import model_registry
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.inference.transcriber import Transcriber
from mrmt3.inspection import task_reader
from mrmt3.nn import layers
from mrmt3.nn.network_config import NetworkConfig


def check(spec, small_data, folder):
  """Train a model for one step, save it, load it and transcribe with it; return its parameters."""
  small_training.run(folder, small_data, spec, 1)
  params, found, step = orbax_checkpoints.restore_params(folder)
  assert found == spec and step == 1
  samples = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
  segments = Transcriber(params, found).transcribe(samples, 16000).segments
  assert len(segments) > 1 and all(len(segment.tokens) for segment in segments)
  return params


def test_the_model_of_the_documentation(tmp_path, small_data, small_spec, monkeypatch):
  package, line, gin_text = code_blocks(ROOT / 'docs' / 'extending.md', 'Add a model')
  folder = tmp_path / 'package' / 'context'
  folder.mkdir(parents=True)
  (folder / '__init__.py').write_text(package)
  monkeypatch.setattr(mrmt3, '__path__', [*mrmt3.__path__, str(folder.parent)])
  monkeypatch.setattr(model_registry, 'NETWORKS', {**model_registry.NETWORKS, **ast.literal_eval('{' + line + '}')})
  (tmp_path / 'context.gin').write_text(gin_text)
  sizes = {'emb_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 16, 'memory_length': 4}
  bindings = [f'context.ContextConfig.{name} = {value}' for name, value in sizes.items()]
  try:
    network = task_reader._from_gin('', [str(tmp_path / 'context.gin')], bindings, '').spec.network
    assert (network.kind, network.neighbours, network.emb_dim) == ('context', 2, 16)
    params = check(dataclasses.replace(small_spec, network=network), small_data, tmp_path / 'model')
    assert params['encoder']['continuous_inputs_projection']['kernel'].shape == (5 * 32, 16)
    with pytest.raises(UserError, match='neighbours is 0'):
      network.replace(neighbours=0)
  finally:
    sys.modules.pop('mrmt3.context', None)


@dataclasses.dataclass(frozen=True)
class MeanConfig(NetworkConfig):
  """A network that shares nothing with MT3's: tokens are predicted from the mean of the frames and the token before."""

  kind: ClassVar[str] = 'mean'

  vocab_size: int
  width: int = 8

  def module(self, tokens, *, remat=False):
    return MeanNetwork(self)

  def step_decoder(self, tokens, max_length):
    return MeanDecoder(self, max_length)


class MeanNetwork(nn.Module):
  """Called as MT3's Transformer."""

  config: MeanConfig

  def setup(self):
    self.frames = layers.Dense(self.config.width, ('vocab', 'embed'), nn.initializers.normal(1.0), jnp.float32)
    self.tokens = layers.Embed(self.config.vocab_size, self.config.width)
    self.out = layers.Dense(self.config.vocab_size, ('embed', 'vocab'), nn.initializers.normal(1.0), jnp.float32)

  def encode(self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout=True):
    return self.frames(encoder_input_tokens).mean(axis=1, keepdims=True)

  def decode(self, encoded, encoder_input_tokens, decoder_input_tokens, decoder_target_tokens=None, **options):
    return self.out(encoded + self.tokens(decoder_input_tokens))

  def __call__(self, encoder_input_tokens, decoder_input_tokens, decoder_target_tokens, *, enable_dropout=True):
    return self.decode(self.encode(encoder_input_tokens), None, decoder_input_tokens)


@dataclasses.dataclass(frozen=True)
class MeanDecoder:
  """A `StepDecoder`; its cache is the encoder frame."""

  config: MeanConfig
  max_length: int

  def pack(self, params):
    return params

  def encoder_params(self, params):
    return params

  def init_cache(self, weights, encoded, length, allowed=None):
    return encoded

  def step(self, weights, tokens, position, cache):
    module = MeanNetwork(self.config)
    logits = module.apply({'params': weights}, cache, None, tokens[:, None], method=module.decode)
    return logits[:, 0], cache

  def cache_lengths(self, max_length):
    return [max_length]

  def grow(self, cache, length):
    return cache


def test_a_model_that_shares_nothing_with_mt3(tmp_path, small_data, small_spec, monkeypatch):
  monkeypatch.setitem(sys.modules, 'mean_model', sys.modules[__name__])
  monkeypatch.setattr(model_registry, 'NETWORKS', dict(model_registry.NETWORKS))
  model_registry.register('mean', 'mean_model:MeanConfig')
  spec = dataclasses.replace(small_spec, network=MeanConfig(vocab_size=small_spec.network.vocab_size))
  params = check(spec, small_data, tmp_path / 'model')
  assert set(params) == {'frames', 'tokens', 'out'}
  samples = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32)
  transcriber = Transcriber(params, spec)
  assert transcriber.rows > 1  # segments do not depend on each other
  tokens = transcriber.transcribe(samples, 16000).segments[0].tokens
  mel = next(iter(_log_mels(samples, spec)))
  module = MeanNetwork(spec.network)
  inputs = np.pad(tokens[:-1], (1, 0))
  logits = jax.jit(module.apply)({'params': params}, mel, inputs[None], None)
  np.testing.assert_array_equal(logits[0].argmax(axis=-1), tokens)


def _log_mels(samples, spec):
  from mrmt3 import spectrograms

  cut, valid = spectrograms.piece_segments(samples, spec.spectrogram, spec.segment_frames)
  for segment, frames in zip(cut, valid, strict=True):
    mel = spectrograms.compute_spectrogram(segment[None], spec.spectrogram)
    yield spectrograms.clear_invalid_frames(mel, frames[None])
