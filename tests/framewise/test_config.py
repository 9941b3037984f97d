"""FramewiseConfig: values that are refused, models that do not fit, and what it answers to training and decoding."""

import dataclasses

import numpy as np
import pytest

from mrmt3.checkpoints import spec_json
from mrmt3.config import ModelSpec
from mrmt3.decoding.options import DecodingConfig
from mrmt3.errors import UserError
from mrmt3.framewise import FramewiseConfig
from mrmt3.inference import memory
from mrmt3.notes.instruments import NUM_CLASSES
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

CONFIG = FramewiseConfig(vocab_size=896, front_channels=(1, 1, 1, 1))
MELS = SpectrogramConfig(hop_width=250, num_mel_bins=16)
WORDS = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)


def spec_of(network=CONFIG, mels=MELS, words=WORDS, **more):
  return ModelSpec(network, mels, words, segment_frames=8, targets_length=16, **more)


@pytest.mark.parametrize(
  ('name', 'values', 'message'),
  [
    ('emission_threshold', (1, -0.1, 0.001, float('nan'), 'x'), 'it must be 0, or lie in'),
    ('instrument_prior', (-1, float('inf'), float('nan'), '1'), 'it must lie in 0 .. 10'),
    ('num_candidates', (0, -1, 2.0, True), 'it must be a whole number of at least 1'),
    ('time_stride', (0, '2'), 'it must be a whole number of at least 1'),
    ('num_encoder_layers', (0,), 'it must be a whole number of at least 1'),
    ('output_positions', (1, None), 'it must be True or False'),
    ('positions', ('rotary',), 'it must be one of mt3, mr_mt3'),
    ('dropout_masks', ('none',), 'it must be one of mt3, mr_mt3'),
    ('dropout_rate', (1.0, -0.1, 'x'), 'it must lie in 0 .. 1'),
    ('emb_dim', (7, 2), 'positions need an even number'),
    ('dtype', ('float31',), 'use float32 or bfloat16'),
  ],
)
def test_values_out_of_range_are_refused(name, values, message):
  for value in values:
    with pytest.raises(UserError, match=rf'{name} is .*{message}'):
      CONFIG.replace(**{name: value})


@pytest.mark.parametrize('channels', [(8, 16), (8, 0, 8, 1), (1, 1, 1, 1.5), 'abcd', 4])
def test_wrong_front_channels_are_refused(channels):
  with pytest.raises(UserError, match=r'front_channels are .* four whole numbers'):
    FramewiseConfig(vocab_size=896, front_channels=channels)


def test_wrong_activations_are_refused():
  with pytest.raises(UserError, match='mlp_activations'):
    CONFIG.replace(mlp_activations=('sparkle',))


def test_lists_become_tuples_so_that_configs_are_hashable():
  config = CONFIG.replace(front_channels=[1, 1, 1, 1], mlp_activations=['gelu', 'linear'])
  assert config == CONFIG and hash(config) == hash(CONFIG)


def test_there_are_no_fields_for_a_decoder_or_a_memory():
  names = {field.name for field in dataclasses.fields(FramewiseConfig)}
  assert not {'num_decoder_layers', 'logits_via_embedding', 'memory_length', 'memory_attention', 'event_state'} & names


def test_an_encoder_frame_must_be_a_time_step():
  spec_of()
  with pytest.raises(UserError, match=r'31\.25 frames and 32 steps per second'):
    spec_of(mels=dataclasses.replace(MELS, hop_width=256))
  with pytest.raises(UserError, match='64 frames and 32 steps per second'):
    spec_of(CONFIG.replace(time_stride=1))


def test_segments_need_a_tie_section():
  with pytest.raises(UserError, match=r'needs? ties'):
    spec_of(ties=False)


@pytest.mark.parametrize(('change', 'named'), [({'mel_hi_hz': 8000.0}, '8000'), ({'scaling': 'unit'}, 'unit')])
def test_other_log_mels_are_refused(change, named):
  with pytest.raises(UserError, match=rf'harmonic front end reads log-mels of .*7600.*{named}'):
    spec_of(mels=dataclasses.replace(MELS, **change))


def test_it_uses_the_prior_segment():
  assert CONFIG.uses_prior and CONFIG.num_prior_segments == CONFIG.min_prior_length == 1
  context = CONFIG.encoder_context(memory.empty(spec_of(), 2))
  assert set(context) == {'prior_tokens', 'class_counts', 'adjacent'} and len(context['prior_tokens']) == 2


@pytest.mark.parametrize(('stride', 'frames'), [(1, 9), (2, 5), (4, 3)])
def test_the_number_of_encoder_frames_is_rounded_up(stride, frames):
  assert CONFIG.replace(time_stride=stride).num_encoder_frames(9) == frames


def test_notes_are_counted_for_the_instrument_prior_only():
  ids = spec_of().token_ids
  tokens = [ids.tie[0], ids.time[0], ids.program[0], ids.velocity[1], ids.pitch[0] + 20, ids.pitch[0] + 24, 1, 0]
  tokens = np.array([tokens, [ids.tie[0], 1] + [0] * 6], np.int32)
  counts = np.asarray(CONFIG.class_counts(tokens, ids))
  assert counts.shape == (2, NUM_CLASSES) and counts[0, 0] == 2 and counts.sum() == 2
  assert CONFIG.counts_classes and not CONFIG.replace(instrument_prior=0).counts_classes
  assert not np.any(CONFIG.replace(instrument_prior=0).class_counts(tokens, ids))


def test_the_published_format_has_no_place_for_it():
  with pytest.raises(UserError, match=r"model\.pth: a network of kind 'framewise' has no PyTorch format"):
    CONFIG.check_format('model.pth')


def test_descriptions_name_sizes_and_the_prior():
  assert CONFIG.describe().startswith('6 layers and no decoder, width 192, 4 heads of 48')
  assert CONFIG.describe_memory() == 'instrument prior 1'


@pytest.mark.parametrize(
  ('frames', 'message'), [(4, 'it must be 0 for'), (1, 'a multiple of time_stride'), (-1, 'at least 0')]
)
def test_context_that_does_not_fit_is_refused(frames, message):
  with pytest.raises(UserError, match=f'context_frames is {frames}; .*{message}'):
    spec_of(decoding=DecodingConfig(context_frames=frames))
  assert spec_of(decoding=DecodingConfig(context_frames=2)).step_frames == 4


def test_only_options_that_differ_from_the_first_versions_change_a_fingerprint():
  plain, other = (spec_of(decoding=decoding) for decoding in (DecodingConfig(), DecodingConfig(context_frames=2)))
  assert 'context_frames' not in spec_json.fingerprint_text(plain)
  assert spec_json.fingerprint_text(other) != spec_json.fingerprint_text(plain)
  assert spec_json.from_json(spec_json.to_json(other)) == other
