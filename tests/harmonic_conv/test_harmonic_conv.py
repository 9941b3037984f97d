"""Harmonic convolutions: what a pitch sees, that all pitches are treated alike, and the whole network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3 import model_registry
from mrmt3.audio import semitones
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.framewise.harmonic_stacking import LOWEST_PITCH, PITCHES
from mrmt3.harmonic_conv import HarmonicConvConfig
from mrmt3.harmonic_conv.blocks import SHIFTS, HarmonicConvolution
from mrmt3.inference.transcriber import Transcriber
from mrmt3.nn import parameters
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

CONFIG = HarmonicConvConfig(
  vocab_size=896,
  emb_dim=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=8,
  num_encoder_layers=1,
  front_channels=(2, 4, 3, 2),
  narrow=2,
  dilations=(1, 3),
  num_candidates=6,
)
SPECTRUM = SpectrogramConfig(hop_width=250, num_mel_bins=semitones.FILTERS, front_end='semitones')
WORDS = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)


@functools.cache
def encoder(dilations=CONFIG.dilations):
  """Return the encoder and parameters in which no map is zero."""
  module = CONFIG.replace(dilations=dilations).encoder()
  x = jnp.zeros((1, 16, semitones.FILTERS))
  params = jax.jit(functools.partial(module.init, method=module.with_pitches))(jax.random.key(0), x)['params']
  keys = iter(jax.random.split(jax.random.key(1), 200))

  def noisy(path, value):
    own = 0.1 * jax.random.normal(next(keys), value.shape)
    named = '/'.join(str(part.key) for part in path)
    return value if 'scale' in named or 'notes_bias' in named or 'harmonics_bias' in named else value + own

  return module, jax.tree_util.tree_map_with_path(noisy, params)


def pitch_features(x):
  module, params = encoder()
  return jax.jit(functools.partial(module.apply, method=module.with_pitches))({'params': params}, x)[1]


def test_a_block_sees_harmonics_neighbours_and_frames_around():
  block = HarmonicConvolution(16, 2)
  x = jax.random.normal(jax.random.key(0), (16, PITCHES, 12, 1))
  params = block.init(jax.random.key(1), x)['params']
  assert np.array_equal(block.apply({'params': params}, x), x)  # a fresh block is the identity
  params = jax.tree.map(lambda value: value + 0.1, params)
  gradient = jax.grad(lambda x: (block.apply({'params': params}, x) ** 2)[:, 40, 6].sum())(x)
  seen = {(int(p) - 40, int(t) - 6) for p, t in np.argwhere(np.abs(gradient).max(axis=(0, 3)) > 0)}
  assert seen == {(0, 0), *((shift, 0) for shift in SHIFTS), *((0, step) for step in (-4, -2, 2, 4))}


@pytest.mark.parametrize('shift', [1, 4])
def test_a_transposed_spectrum_gives_transposed_features(shift):
  x = np.full((1, 8, semitones.FILTERS), -1.0, np.float32)  # 0 after scale and shift, as beyond the range
  notes = np.random.default_rng(0).normal(size=(1, 8, 60)).astype(np.float32)
  low, high = x.copy(), x.copy()
  begin = 25 * semitones.PER_SEMITONE
  for window in (0, semitones.SHORT_FILTERS):
    low[..., window + begin : window + begin + 60] += notes
    first = window + begin + shift * semitones.PER_SEMITONE
    high[..., first : first + 60] += notes
  module, params = encoder((2,))
  plain = jax.tree.map(jnp.asarray, params)
  front = plain['harmonic_front']
  for name in ('scale', 'shift'):  # of single filters, which need not be alike
    front[name] = jnp.full_like(front[name], 0.5)
  run = functools.partial(module.apply, {'params': plain}, method=module.with_pitches)
  lower, higher = run(low)[1], run(high)[1]
  inside = slice(40, PITCHES - 44)  # what does not see the ends of the range
  moved = slice(40 + shift, PITCHES - 44 + shift)
  np.testing.assert_allclose(lower[:, inside], higher[:, moved], atol=1e-4)
  assert np.std(lower[:, inside]) > 0.01


def test_only_the_context_within_reach_matters():
  x = jax.random.normal(jax.random.key(0), (1, 40, semitones.FILTERS))
  gradient = jax.grad(lambda x: pitch_features(x)[:, 40 - LOWEST_PITCH, 10].sum())(x)
  frames = np.flatnonzero(np.abs(gradient).max(axis=(0, 2)))
  reach = 2 * 2 * (1 + 3) + 2  # log-mel frames: two of each encoder frame, two steps of each dilation, the neighbours
  assert frames.min() >= 20 - 9 - reach and frames.max() <= 20 + 2 + reach


def test_the_whole_network_transcribes():
  spec = ModelSpec(CONFIG, SPECTRUM, WORDS, segment_frames=32, targets_length=64)
  assert isinstance(CONFIG, model_registry.network_class('harmonic_conv'))
  shapes = parameters.parameter_shapes(CONFIG, spec.token_ids, semitones.FILTERS)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda shape: rng.normal(0, 0.05, shape.shape).astype(np.float32), shapes)
  result = Transcriber(params, spec).transcribe(rng.normal(0, 0.1, 20000).astype(np.float32), 16000)
  assert len(result.segments) == 3


@pytest.mark.parametrize(
  ('changes', 'named'),
  [({'dilations': (1, 0)}, 'dilations'), ({'dilations': 3}, 'dilations'), ({'narrow': 0}, 'narrow')],
)
def test_sizes_that_make_no_sense_are_errors(changes, named):
  with pytest.raises(UserError, match=named):
    CONFIG.replace(**changes)


def test_another_spectrogram_is_an_error():
  with pytest.raises(UserError, match='semitones'):
    ModelSpec(CONFIG, SpectrogramConfig(hop_width=250, num_mel_bins=480), WORDS, segment_frames=32, targets_length=64)
