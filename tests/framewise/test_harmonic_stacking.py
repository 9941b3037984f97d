import jax
import numpy as np
import pytest
from flax import linen as nn

from mrmt3 import config, network, spectrograms
from mrmt3.errors import UserError
from mrmt3.framewise import harmonic_stacking
from mrmt3.framewise.harmonic_stacking import HarmonicFront
from mrmt3.network import T5Config
from mrmt3.nn import layers

SIZES = dict(vocab_size=64, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)
CHANNELS = (2, 4, 3, 2)
MELS = spectrograms.SpectrogramConfig(hop_width=256, num_mel_bins=256)


@pytest.mark.parametrize('pitch', [45, 57, 69, 81, 100])
def test_a_tone_lies_at_its_semitone(pitch):
  hz = 440 * 2 ** ((pitch - 69) / 12)
  samples = np.sin(2 * np.pi * hz * np.arange(16000) / 16000).astype(np.float32)
  thirds = np.asarray(spectrograms.compute_spectrogram(samples, MELS))[20] @ harmonic_stacking.semitone_weights(256)
  heard = np.where(thirds == 0, -np.inf, thirds).reshape(-1, 3)
  assert harmonic_stacking.LOWEST_PITCH - 12 + heard.max(axis=1).argmax() == pitch
  if pitch > 60:  # lower down, mel bins are wider than semitones
    assert heard[pitch - harmonic_stacking.LOWEST_PITCH + 12].argmax() == 1


def test_nothing_is_read_beyond_the_mel_filters():
  weights = harmonic_stacking.semitone_weights(256)
  assert weights.min() >= 0 and weights.max() <= 1 and weights.sum(axis=0).max() <= 1 + 1e-6
  hz = 440 * 2 ** ((harmonic_stacking.LOWEST_PITCH - 12 - 1 / 3 + np.arange(weights.shape[1]) / 3 - 69) / 12)
  assert not weights[:, (hz < 20) | (hz > 7700)].any() and weights[:, (hz > 30) & (hz < 7500)].sum(
    axis=0
  ) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_a_state_hears_the_frames_in_which_a_note_begins_and_those_before(stride):
  front = HarmonicFront(8, CHANNELS, stride)
  frames = np.random.default_rng(0).normal(-4, 4, (1, 48, 64)).astype(np.float32)
  params = front.init(jax.random.key(0), frames)
  plain = front.apply(params, frames)
  changed = frames.copy()
  changed[0, 24] += 3
  pairs = zip(plain, front.apply(params, changed), strict=True)
  states, notes = (np.abs(np.asarray(x - y)) for x, y in pairs)
  states, notes = states[0].max(axis=-1), notes.max(axis=(0, 1))[:, 0]
  place = 24 // stride
  # What is known of a note is joined with what is known of it a state before and after.
  assert set(np.flatnonzero(notes > 1e-6)) <= set(np.flatnonzero(states > 1e-6))
  assert (
    min(np.flatnonzero(notes > 1e-6)) >= place - 2 - 1 and max(np.flatnonzero(notes > 1e-6)) <= place + 9 // stride + 1
  )
  assert {place, place + 1} <= set(np.flatnonzero(notes > 1e-6))


def test_all_pitches_are_looked_at_alike():
  front = HarmonicFront(8, CHANNELS, 2)
  rng = np.random.default_rng(1)
  params = front.init(jax.random.key(0), np.zeros((1, 16, 256), np.float32))
  semitones = rng.normal(size=(2, 12 + harmonic_stacking.PITCHES + 36, 5, 1)).astype(np.float32)
  seen = front.apply(params, semitones, method=lambda module, x: module._harmonics(x))
  moved = front.apply(params, np.roll(semitones, 5, axis=1), method=lambda module, x: module._harmonics(x))
  np.testing.assert_array_equal(seen[:, 20:60], moved[:, 25:65])
  # An octave below, the pitch itself, an octave above, a twelfth, and so on.
  wanted = [semitones[:, 12 + 40 + above, 3, 0] for above in (-12, 0, 12, 19, 24, 28, 31, 34, 36)]
  np.testing.assert_array_equal(seen[:, 40, 3, 0], np.concatenate(wanted))


def test_octaves_and_moments_beside_a_note_are_joined_with_it():
  local = np.random.default_rng(2).normal(size=(3, harmonic_stacking.PITCHES, 4, 1)).astype(np.float32)
  front = HarmonicFront(8, CHANNELS)
  params = front.init(jax.random.key(0), np.zeros((1, 4, 64), np.float32))
  joined = np.asarray(front.apply(params, local, method=lambda module, x: module._neighbours(x)))
  wanted = [local[:, pitch, state, 0] for pitch, state in ((30, 2), (30, 1), (30, 3), (18, 2), (42, 2))]
  np.testing.assert_array_equal(joined[:, 30, 2, 0], np.concatenate(wanted))
  assert not joined[3:6, 5, 0].any() and not joined[9:12, 5, 0].any()


def test_what_the_first_axis_is_mapped_to_is_what_dense_makes_of_the_last():
  x = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
  sizes = (4, ('embed', 'mlp'), nn.initializers.he_normal())
  first, last = layers.ChannelsFirstDense(*sizes), layers.Dense(*sizes)
  params = first.init(jax.random.key(0), x)['params']
  wanted = np.moveaxis(last.apply({'params': params}, np.moveaxis(x, 0, -1)), -1, 0)
  np.testing.assert_allclose(first.apply({'params': params}, x), wanted, atol=1e-5)


def test_the_norm_is_that_of_all_pitches_of_a_state():
  front = HarmonicFront(8, CHANNELS)
  frames = np.random.default_rng(3).normal(-4, 4, (2, 4, 64)).astype(np.float32)
  params = front.init(jax.random.key(0), frames)['params']
  rng = np.random.default_rng(4)
  params = jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), params)
  states, notes = front.apply({'params': params}, frames)
  assert states.shape == (2, 4, 8) and notes.shape == (CHANNELS[2], harmonic_stacking.PITCHES, 4, 2)
  flat = np.asarray(notes).transpose(3, 2, 1, 0).reshape(2, 4, -1)
  normal = layers.LayerNorm().apply({'params': params['layer_norm']}, flat)
  # Without the layer that reads whole frames nothing else is left.
  params = {**params, 'whole': jax.tree.map(np.zeros_like, params['whole'])}
  np.testing.assert_allclose(
    front.apply({'params': params}, frames)[0], normal @ params['pitches']['kernel'], atol=1e-3
  )


def test_gin_alone_swaps_the_front():
  linear = network.parameter_shapes(T5Config(**SIZES), 16)['encoder']
  harmonic = network.parameter_shapes(T5Config(**SIZES, front='harmonic', front_channels=[*CHANNELS]), 16)['encoder']
  assert set(linear) - set(harmonic) == {'continuous_inputs_projection'}
  assert set(harmonic) - set(linear) == {'harmonic_front'}
  assert harmonic['harmonic_front']['harmonics']['kernel'].shape == (9 * CHANNELS[0], CHANNELS[1])


@pytest.mark.parametrize(
  'options',
  [
    {'front': 'conv'},
    {'front': 'harmonic', 'front_channels': (8, 16)},
    {'front': 'harmonic', 'front_channels': (8, 0, 8, 1)},
    {'front_time_stride': 2},
  ],
)
def test_nonsense_is_named(options):
  with pytest.raises(UserError, match='front'):
    T5Config(vocab_size=64, **options)


def test_other_mel_filters_are_refused():
  with pytest.raises(UserError, match='7600'):
    config.ModelSpec(T5Config(vocab_size=1536, front='harmonic'), spectrograms.SpectrogramConfig(mel_hi_hz=8000.0))


def test_states_can_carry_their_positions():
  frames, tokens = np.ones((1, 6, 16), np.float32), np.ones((1, 4), np.int32)
  plain, placed = (network.Transformer(T5Config(**SIZES, state_positions=wanted)) for wanted in (False, True))
  params = plain.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)
  encoded = [net.apply(params, frames, method=net.encode, enable_dropout=False) for net in (plain, placed)]
  table = layers.sinusoidal_positions(6, 8, 'mt3')
  np.testing.assert_allclose(encoded[1], encoded[0] + table, atol=1e-5)
