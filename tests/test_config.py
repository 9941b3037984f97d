import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.network import T5Config
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import VocabularyConfig

SPEC = ModelSpec(T5Config(vocab_size=1536))


@settings(max_examples=40, deadline=None)
@given(
  sizes=st.lists(st.integers(1, 64), min_size=6, max_size=6),
  dtype=st.sampled_from(['float32', 'bfloat16']),
  activations=st.sampled_from([('gelu', 'linear'), ['relu']]),
  kinds=st.lists(st.sampled_from(['mt3', 'mr_mt3']), min_size=4, max_size=4),
  rate=st.floats(0, 0.99),
  scaling=st.sampled_from(['none', 'unit']),
  bins=st.sampled_from([1, 5]),
  masks=st.booleans(),
  layout=st.sampled_from(['targets', 'start_token']),
)
def test_round_trip(sizes, dtype, activations, kinds, rate, scaling, bins, masks, layout):
  heads, encoder, decoder, head_dim, mlp, memory = sizes
  network = T5Config(
    vocab_size=1536,
    dtype=dtype,
    num_heads=heads,
    num_encoder_layers=encoder,
    num_decoder_layers=decoder,
    head_dim=head_dim,
    mlp_dim=mlp,
    memory_length=memory,
    mlp_activations=activations,
    positions=kinds[0],
    initializers=kinds[1],
    dropout_masks=kinds[2],
    dropout_rate=rate,
    decoder_padding_masks=masks,
  )
  spectrogram = SpectrogramConfig(front_end=kinds[3], scaling=scaling, num_mel_bins=128)
  spec = ModelSpec(network, spectrogram, VocabularyConfig(num_velocity_bins=bins), 128, 512, layout)
  again = ModelSpec.from_json(spec.to_json())
  assert again == spec
  assert hash(again) == hash(spec)


def test_missing_fields_take_their_defaults():
  assert ModelSpec.from_json('{"network": {"vocab_size": 1536}}') == SPEC


def edited(**changes):
  values = json.loads(SPEC.to_json())
  for path, value in changes.items():
    part, _, name = path.partition('__')
    if name:
      values[part][name] = value
    else:
      values[part] = value
  return json.dumps(values)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{', 'not JSON'),
    ('[]', 'JSON object'),
    ('{}', "no field 'network'"),
    ('{"network": {}}', "no field 'vocab_size'"),
    (edited(colour='red'), "unknown field 'colour'"),
    (edited(network__depth=3), "unknown field 'depth'"),
    (edited(network=3), 'JSON object'),
    (edited(network__emb_dim='512'), 'network.emb_dim'),
    (edited(network__emb_dim=511), 'emb_dim'),
    (edited(network__num_heads=0), 'num_heads'),
    (edited(network__dropout_rate=1.5), 'dropout_rate'),
    (edited(network__dtype='float31'), 'dtype'),
    (edited(network__positions='rotary'), 'positions'),
    (edited(network__memory_softmax='both'), 'memory_softmax'),
    (edited(network__mlp_activations=['sparkle']), 'mlp_activations'),
    (edited(network__mlp_activations=3), 'mlp_activations'),
    (edited(network__decoder_padding_masks=1), 'decoder_padding_masks'),
    (edited(network__vocab_size=1024), 'vocab_size'),
    (edited(network__memory_length=2000), 'memory_length'),
    (edited(vocabulary__num_velocity_bins=0), 'velocity'),
    (edited(vocabulary__num_velocity_bins=127), 'needs 1664'),
    (edited(spectrogram__front_end='cqt'), 'front_end'),
    (edited(segment_frames=0), 'segment_frames'),
    (edited(segment_frames=2.5), 'segment_frames'),
    (edited(prior_layout='none'), 'prior_layout'),
  ],
)
def test_nonsense_is_refused_in_one_line(text, message):
  with pytest.raises(UserError, match=message) as info:
    ModelSpec.from_json(text)
  assert '\n' not in str(info.value)


def test_parts_of_the_wrong_kind_are_refused():
  with pytest.raises(UserError, match='must be a T5Config'):
    ModelSpec(network={'vocab_size': 1536})


def test_fields_can_be_replaced_but_not_set():
  assert dataclasses.replace(SPEC, targets_length=256).targets_length == 256
  with pytest.raises(dataclasses.FrozenInstanceError):
    SPEC.targets_length = 3


def test_what_was_written_when_fronts_had_three_widths_can_be_read():
  values = json.loads(SPEC.to_json())
  values['network']['front_channels'] = [8, 16, 32]
  del values['network']['running_status'], values['network']['event_ends']
  assert (
    ModelSpec.from_json(json.dumps(values)).network.replace(front_channels=SPEC.network.front_channels) == SPEC.network
  )


def test_a_network_that_a_cpu_trains_comes_back_as_it_was():
  network = T5Config(
    vocab_size=1536,
    front='harmonic',
    front_time_stride=2,
    proposals=8,
    running_status=((3, 1003), (1135, 1262)),
    event_ends=((1004, 1131),),
  )
  spec = ModelSpec(network, SpectrogramConfig(hop_width=256, num_mel_bins=64))
  again = ModelSpec.from_json(spec.to_json())
  assert again == spec and hash(again.network) == hash(network)


def test_scaled_log_mels_are_refused_where_they_are_read_as_they_are():
  with pytest.raises(UserError, match='unit'):
    ModelSpec(T5Config(vocab_size=1536, front='harmonic'), SpectrogramConfig(scaling='unit'))
