"""HybridConfig: values that are refused, and models that do not fit."""

import pytest

from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.hybrid import HybridConfig
from mrmt3.network import T5Config
from mrmt3.spectrograms import SpectrogramConfig

CONFIG = HybridConfig(vocab_size=1536)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'front': 'conv'}, 'front is .conv.; it must be one of linear, harmonic'),
    ({'front_channels': (8, 16)}, 'front_channels are .* four whole numbers'),
    ({'front_channels': (8, 0, 8, 1)}, 'front_channels are .* four whole numbers'),
    ({'time_stride': 0}, 'time_stride is 0; it must be a whole number of at least 1'),
    ({'front': 'linear'}, "time_stride is 2; that needs front 'harmonic'"),
    ({'num_candidates': -1}, 'num_candidates is -1; it must be a whole number of at least 0'),
    ({'num_candidates': True}, 'num_candidates is True'),
    ({'output_positions': 1}, 'output_positions is 1; it must be True or False'),
    ({'event_state': None}, 'event_state is None; it must be True or False'),
    ({'last_event': 'x'}, 'last_event is .x.; it must be True or False'),
    ({'event_state': False}, 'last_event is True; it needs event_state'),
    ({'memory_attention': 'both'}, 'memory_attention is .both.; it must be one of joint, decoupled'),
    ({'num_decoder_layers': 0}, 'num_decoder_layers is 0'),
  ],
)
def test_values_out_of_range_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    CONFIG.replace(**changes)


def test_the_fields_of_mr_mt3_keep_their_defaults():
  plain = T5Config(vocab_size=1536)
  for name in ('num_decoder_layers', 'memory_length', 'memory_attention', 'emb_dim', 'dropout_rate'):
    assert getattr(CONFIG, name) == getattr(plain, name)
  assert CONFIG.has_frame_heads and not plain.has_frame_heads and CONFIG.kind != plain.kind


def test_lists_become_tuples_so_that_configs_are_hashable():
  config = CONFIG.replace(front_channels=list(CONFIG.front_channels))
  assert config == CONFIG and hash(config) == hash(CONFIG)


@pytest.mark.parametrize(('change', 'named'), [({'mel_hi_hz': 8000.0}, '8000'), ({'scaling': 'unit'}, 'unit')])
def test_only_the_harmonic_front_end_refuses_other_log_mels(change, named):
  mels = SpectrogramConfig(**change)
  with pytest.raises(UserError, match=f'harmonic front end reads log-mels of .*7600.*{named}'):
    ModelSpec(CONFIG, mels)
  ModelSpec(CONFIG.replace(front='linear', time_stride=1), mels)


def test_a_memory_must_fit_into_the_prior_tokens():
  with pytest.raises(UserError, match='memory_length is 64; the prior tokens are only'):
    ModelSpec(CONFIG.replace(memory_length=64), targets_length=32)


@pytest.mark.parametrize(('stride', 'frames'), [(1, 9), (2, 5), (4, 3)])
def test_the_number_of_encoder_frames_is_rounded_up(stride, frames):
  assert CONFIG.replace(time_stride=stride).num_encoder_frames(9) == frames


PLAIN = dict(
  front='linear', time_stride=1, output_positions=False, num_candidates=0, event_state=False, last_event=False
)


def test_the_published_format_is_for_mr_mt3_only():
  for config in (CONFIG, CONFIG.replace(**PLAIN)):
    with pytest.raises(UserError, match=r"model\.pth: .* 'hybrid'"):
      config.check_format('model.pth')
