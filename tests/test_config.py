import copy
import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.checkpoints import spec_json
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.framewise import FramewiseConfig
from mrmt3.hybrid import HybridConfig
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
  again = spec_json.from_json(spec_json.to_json(spec))
  assert again == spec
  assert hash(again) == hash(spec)


def test_missing_fields_take_their_defaults():
  assert spec_json.from_json('{"network": {"vocab_size": 1536}}') == SPEC


def edited(**changes):
  values = json.loads(spec_json.to_json(SPEC))
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
    (edited(network__memory_attention='both'), 'memory_attention'),
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
    ('[' * 100_000, 'deeply'),
    (edited(segment_frames=float('nan')), 'NaN'),
    (edited(network__dropout_rate=1).replace('"dropout_rate": 1', '"dropout_rate": 1e999'), 'too large'),
    ('{"network": {"vocab_size": 1536, "vocab_size": 1664}}', 'twice'),
    ('{"network": {"vocab_size": ' + '9' * 5000 + '}}', '4300 digits'),
    (edited(network__num_encoder_layers=10**9), 'num_encoder_layers .* at most 256'),
    (edited(network__emb_dim=10**30), 'emb_dim .* at most'),
    (edited(segment_frames=10**30), 'segment_frames'),
    (edited(spectrogram__fft_size=10**30), 'fft_size'),
    (edited(spectrogram__sample_rate=10**400), 'sample_rate'),
    (edited(vocabulary__steps_per_second=10**400), 'vocab_size|wrong kind|too large'),
    (edited(network__kind=['mr_mt3']), 'kind'),
    (edited(network__kind={}), 'kind'),
    (edited(network__kind='x' * 100_000), 'kind'),
    (edited(network__dtype='int32'), 'dtype'),
    (edited(network__dtype='(999999999999,)f4'), 'dtype'),
    (edited(network__mlp_activations=[['gelu']]), 'mlp_activations'),
    (edited(network__mlp_activations=['gelu'] * 1000), 'mlp_activations'),
    (edited(colour='red' * 100_000), 'unknown field'),
    (edited(prior_layout='red' * 100_000), 'prior_layout'),
    ('{"network": {"vocab_size": 1536, "memory_softmax": ["own"]}}', 'memory_attention'),
    ('{"network": {"vocab_size": 1536, "memory_softmax": "own", "memory_attention": "joint"}}', 'both'),
  ],
)
def test_nonsense_is_refused_in_one_line(text, message):
  with pytest.raises(UserError, match=message) as info:
    spec_json.from_json(text)
  assert '\n' not in str(info.value) and len(str(info.value)) < 500


VALUES = (
  *(None, True, False, 0, 1, -1, 2, 3, 7, 1 << 20, 1 << 63, 10**400, -(10**30), 0.0, 0.5, -1.5, 1e308),
  *('', 'mt3', 'x' * 10_000, '\x00', 'float16', 'O', '<U8', 'mr_mt3', 'framewise', 'hybrid', 'targets'),
  *([], [1], [[1]], ['gelu'], [0, 0, 0, 0], [10**9] * 4, [None] * 1000, {}, {'a': 1}, {'kind': 'hybrid'}),
)
BASES = (
  SPEC,
  ModelSpec(HybridConfig(1536)),
  ModelSpec(FramewiseConfig(1152), vocabulary=VocabularyConfig(62.5, num_velocity_bins=1)),
)


def mutated(rng):
  """Return the JSON of a model with up to three values replaced."""
  values = json.loads(spec_json.to_json(rng.choice(BASES)))
  for _ in range(rng.randint(1, 3)):
    part, value = rng.choice([*values, 'other']), copy.deepcopy(rng.choice(VALUES))
    inner = values.get(part)
    if isinstance(inner, dict) and inner and rng.random() < 0.8:
      inner[rng.choice([*inner, 'other', 'say_once', 'copied_tokens', 'proposals'])] = value
    else:
      values[part] = value
  if isinstance(values.get('network'), dict) and rng.random() < 0.3:
    values['network'].pop('kind', None)  # as in old files
  return json.dumps(values)


def test_any_value_in_any_place_is_read_or_refused_in_one_line():
  rng = random.Random(0)
  for _ in range(3000):
    text = mutated(rng)
    try:
      spec = spec_json.from_json(text)
    except UserError as error:
      assert '\n' not in str(error) and len(str(error)) < 500, text
    else:
      assert spec_json.from_json(spec_json.to_json(spec)) == spec, text
      assert isinstance(hash(spec), int)


def test_parts_of_the_wrong_kind_are_refused():
  with pytest.raises(UserError, match='must be a NetworkConfig'):
    ModelSpec(network={'vocab_size': 1536})


def test_fields_can_be_replaced_but_not_set():
  assert dataclasses.replace(SPEC, targets_length=256).targets_length == 256
  with pytest.raises(dataclasses.FrozenInstanceError):
    SPEC.targets_length = 3


# The flat configuration of the first versions, with the fields of three networks.
OLD_NETWORK = {
  'vocab_size': 1536,
  'dtype': 'float32',
  'emb_dim': 192,
  'num_heads': 4,
  'num_encoder_layers': 6,
  'num_decoder_layers': 3,
  'head_dim': 48,
  'mlp_dim': 384,
  'mlp_activations': ['gelu', 'linear'],
  'dropout_rate': 0.0,
  'logits_via_embedding': True,
  'positions': 'mt3',
  'memory_length': 64,
  'memory_layers': 1,
  'memory_segments': 1,
  'memory_softmax': 'own',
  'initializers': 'mt3',
  'dropout_masks': 'mt3',
  'decoder_padding_masks': True,
  'front': 'linear',
  'front_channels': [12, 48, 32, 64],
  'front_time_stride': 1,
  'state_positions': False,
  'proposals': 0,
  'running_status': [],
  'event_ends': [],
  'say_once': False,
  'copied_tokens': [],
  'copy_threshold': 0.0,
  'instrument_memory': 0.0,
}
OLD_FRONT = {'front': 'harmonic', 'front_time_stride': 2, 'state_positions': True, 'proposals': 192}
IDS = [[3, 1003], [1132, 1133], [1135, 1262], [1134, 1134], [1004, 1131], [1263, 1390]]


def old_spec(hop_width=128, **network):
  return json.dumps(
    {
      'network': OLD_NETWORK | network,
      'spectrogram': {'hop_width': hop_width, 'num_mel_bins': 64},
      'vocabulary': {'steps_per_second': 100, 'max_shift_seconds': 10, 'num_velocity_bins': 1},
    }
  )


def test_an_old_model_json_of_mr_mt3_is_read():
  spec = spec_json.from_json(old_spec(say_once=True))
  assert type(spec.network) is T5Config and spec.network.memory_attention == 'decoupled'
  assert (spec.network.memory_length, spec.decoding.no_repeated_events) == (64, True)
  assert spec_json.from_json(spec_json.to_json(spec)) == spec


def test_an_old_model_json_of_the_hybrid_is_read():
  spec = spec_json.from_json(old_spec(**OLD_FRONT, running_status=IDS[:4], event_ends=IDS[4:]))
  assert spec.network == HybridConfig(
    **{name: OLD_NETWORK[name] for name in ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim')},
    num_encoder_layers=6,
    num_decoder_layers=3,
    dropout_rate=0.0,
    logits_via_embedding=True,
    memory_length=64,
    memory_attention='decoupled',
  )
  plain = spec_json.from_json(old_spec(**OLD_FRONT)).network
  assert (plain.event_state, plain.last_event, plain.num_candidates) == (False, False, 192)
  assert spec_json.from_json(spec_json.to_json(spec)) == spec


def test_an_old_model_json_of_the_framewise_model_is_read():
  changes = OLD_FRONT | {'memory_length': 0, 'copied_tokens': IDS, 'copy_threshold': 0.25, 'instrument_memory': 1.0}
  spec = spec_json.from_json(old_spec(hop_width=80, **changes))
  assert spec.network == FramewiseConfig(vocab_size=1536)
  assert [list(pair) for pair in spec.token_ids] == IDS
  assert spec_json.from_json(spec_json.to_json(spec)) == spec
  # A file from before the prior of instruments and the threshold existed: they were off.
  values = json.loads(old_spec(hop_width=80, **changes))
  for name in ('copy_threshold', 'instrument_memory', 'state_positions'):
    del values['network'][name]
  old = spec_json.from_json(json.dumps(values)).network
  assert (old.emission_threshold, old.instrument_prior, old.output_positions) == (0.0, 0.0, False)


def test_a_digest_of_a_model_is_that_of_its_old_file():
  """Journals and results of the first versions name a model by a digest of its model.json."""
  for changes in ({}, OLD_FRONT | {'running_status': IDS[:4], 'event_ends': IDS[4:]}):
    spec = spec_json.from_json(old_spec(**changes))
    assert json.loads(spec_json.fingerprint_text(spec))['network'] == OLD_NETWORK | changes
  other = dataclasses.replace(spec, network=spec.network.replace(memory_length=32))
  assert spec_json.fingerprint_text(other) != spec_json.fingerprint_text(spec)


def test_an_unknown_kind_of_network_is_named():
  with pytest.raises(UserError, match=r"'perceiver'.*framewise"):
    spec_json.from_json('{"network": {"kind": "perceiver", "vocab_size": 1536}}')


def test_scaled_log_mels_are_refused_by_the_harmonic_front_end():
  for network in (FramewiseConfig(vocab_size=1536), HybridConfig(vocab_size=1536)):
    with pytest.raises(UserError, match='unit'):
      ModelSpec(network, SpectrogramConfig(hop_width=80, scaling='unit'))
