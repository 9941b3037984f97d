import jax
import numpy as np
import pytest

from mrmt3 import network, transformer_blocks
from mrmt3.errors import UserError
from mrmt3.fronts import ConvolutionFront
from mrmt3.network import T5Config


def test_a_state_sees_three_frames_either_way_and_no_further():
  front = ConvolutionFront(8, (2, 3, 4))
  frames = np.random.default_rng(0).normal(-4, 4, (1, 16, 20)).astype(np.float32)
  params = front.init(jax.random.key(0), frames)['params']
  changed = frames.copy()
  changed[0, 8] += 1
  difference = np.abs(np.asarray(front.apply({'params': params}, changed) - front.apply({'params': params}, frames)))
  assert difference.shape == (1, 16, 8)
  assert np.flatnonzero(difference[0].max(axis=-1) > 1e-6).tolist() == list(range(5, 12))


@pytest.mark.parametrize('time_stride, length', [(1, 5), (2, 6)])
def test_the_convolution_is_that_of_its_definition(time_stride, length):
  front = ConvolutionFront(4, (2, 2, 2), time_stride)
  frames = np.random.default_rng(0).normal(-4, 4, (1, length, 9)).astype(np.float32)
  params = front.init(jax.random.key(1), frames)['params']
  x = (frames[0] * np.asarray(params['scale']) + np.asarray(params['shift']))[..., None]
  for index, (step, stride) in enumerate(((1, 1), (time_stride, 2), (1, 2))):
    kernel, bias = np.asarray(params[f'kernel_{index}']), np.asarray(params[f'bias_{index}'])
    width = -(-x.shape[1] // stride)
    before = max((width - 1) * stride + 3 - x.shape[1], 0) // 2
    # An even number of frames taken by twos is padded behind only.
    padded = np.pad(x, ((0 if step == 2 else 1, 3), (before, 3), (0, 0)))
    y = np.zeros((x.shape[0] // step, width, kernel.shape[-1]))
    for t in range(y.shape[0]):
      for f in range(width):
        y[t, f] = np.einsum('ijc,ijco->o', padded[t * step : t * step + 3, f * stride : f * stride + 3], kernel) + bias
    x = np.maximum(y, 0)
  x = x.reshape(x.shape[0], -1)
  x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * np.asarray(params['layer_norm']['scale'])
  expected = x @ np.asarray(params['projection']['kernel'])
  np.testing.assert_allclose(front.apply({'params': params}, frames)[0], expected, atol=1e-4)


def test_gin_alone_swaps_the_front():
  sizes = dict(vocab_size=64, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)
  linear = network.parameter_shapes(T5Config(**sizes), 16)['encoder']
  convolution = network.parameter_shapes(T5Config(**sizes, front='convolution', front_channels=[2, 3, 4]), 16)['encoder']
  assert set(linear) - set(convolution) == {'continuous_inputs_projection'}
  assert set(convolution) - set(linear) == {'convolution_front'}
  assert convolution['convolution_front']['kernel_2'].shape == (3, 3, 3, 4)


@pytest.mark.parametrize('options', [{'front': 'conv'}, {'front_channels': (8, 16)}, {'front_channels': (8, 0, 8)}, {'front_time_stride': 2}])
def test_nonsense_is_named(options):
  with pytest.raises(UserError, match='front'):
    T5Config(vocab_size=64, **options)


def test_states_can_carry_their_positions():
  sizes = dict(vocab_size=64, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)
  frames, tokens = np.ones((1, 6, 16), np.float32), np.ones((1, 4), np.int32)
  plain, placed = (network.Transformer(T5Config(**sizes, state_positions=wanted)) for wanted in (False, True))
  params = plain.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)
  encoded = [net.apply(params, frames, method=net.encode, enable_dropout=False) for net in (plain, placed)]
  table = transformer_blocks.sinusoidal_positions(6, 8, 'mt3')
  np.testing.assert_allclose(encoded[1], encoded[0] + table, atol=1e-5)
