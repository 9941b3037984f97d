"""That proposals and tokens begin with the same names."""

import jax
import numpy as np
import pytest
from flax.linen import partitioning

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.event_codec import Event
from mrmt3.framewise import proposal_initialization
from mrmt3.framewise.note_heads import DRUMS, OFFSETS, ONSETS, time_code
from mrmt3.network import T5Config
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import SPECIAL_TOKENS, VocabularyConfig, build_codec

SIZES = dict(
  vocab_size=1664, emb_dim=16, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
)
MELS = SpectrogramConfig(hop_width=256, num_mel_bins=16)


def spec_of(velocity_bins):
  config = T5Config(
    **SIZES, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2, proposals=4, logits_via_embedding=True
  )
  return ModelSpec(config, MELS, VocabularyConfig(num_velocity_bins=velocity_bins), segment_frames=8, targets_length=16)


@pytest.fixture(params=[1, 127])
def named(request):
  """Returns (a function from an event to its embedding, the note reader's parameters, the model's specification)."""
  spec = spec_of(request.param)
  frames, tokens = np.zeros((1, 8, 16), np.float32), np.ones((1, 2), np.int32)
  params = network.Transformer(spec.network).init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)[
    'params'
  ]
  params = proposal_initialization.give_names(params, spec)
  codec, table = build_codec(spec.vocabulary), np.asarray(params['decoder']['token_embedder']['embedding'])
  return lambda kind, value: table[codec.encode_event(Event(kind, value)) + SPECIAL_TOKENS], params['note_reader'], spec


def test_kinds_and_classes_have_their_tokens_names(named):
  embedding, reader, spec = named
  loudest = spec.vocabulary.num_velocity_bins
  kinds, classes = np.asarray(reader['name_of_kind']), np.asarray(reader['name_of_class'])
  for pitch in (21, 60, 108):
    np.testing.assert_allclose(
      kinds[ONSETS.start + pitch], embedding('pitch', pitch) + embedding('velocity', loudest), atol=1e-5
    )
    np.testing.assert_allclose(
      kinds[OFFSETS.start + pitch], embedding('pitch', pitch) + embedding('velocity', 0), atol=1e-5
    )
    np.testing.assert_allclose(
      kinds[DRUMS.start + pitch], embedding('drum', pitch) + embedding('velocity', loudest), atol=1e-5
    )
  wanted = [embedding('program', program) for program in sorted(SLAKH_CLASSES.values())]
  np.testing.assert_array_equal(classes, wanted)


def test_a_time_shift_is_called_what_a_proposal_of_that_time_is(named):
  embedding, reader, _ = named
  # A state lasts 0.032 s: step 16 (0.16 s) is state 5, and step 8 lies half way between two.
  for step, state in ((0, 0), (16, 5), (8, 2.5)):
    wanted = time_code(np.array([state]), 16)[0] @ np.asarray(reader['time']['kernel'])
    np.testing.assert_allclose(embedding('shift', step), wanted, atol=1e-4)


def test_times_are_told_apart_and_neighbours_alike():
  codes = time_code(np.arange(64), 192)
  alike = codes @ codes[20] / 96
  assert alike[20] == pytest.approx(1) and alike[19] == pytest.approx(alike[21])
  assert (np.diff(alike[20:30]) < 0).all() and alike[21] > 0.5 and alike[30] < 0.3 and alike[50] < 0.1


def test_a_look_ahead_leads_to_the_name_of_a_later_time(named):
  _, reader, _ = named
  kernel = np.asarray(reader['time']['kernel'])
  later = np.asarray(proposal_initialization._later(kernel, 2.0))
  np.testing.assert_allclose(
    time_code(np.arange(9), 16) @ kernel @ later, time_code(np.arange(2, 11), 16) @ kernel, atol=1e-4
  )


def test_a_fresh_decoder_looks_up_what_is_proposed_at_its_time():
  import jax.numpy as jnp

  sizes = SIZES | dict(emb_dim=192, num_heads=4, head_dim=48)
  config = T5Config(**sizes, proposals=4, logits_via_embedding=True)
  spec = ModelSpec(config, SpectrogramConfig(hop_width=512, num_mel_bins=16), segment_frames=32, targets_length=16)
  frames, tokens = np.zeros((1, 32, 16), np.float32), np.ones((1, 2), np.int32)
  params = network.Transformer(config).init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)['params']
  params = proposal_initialization.give_names(params, spec)
  reader, codec = params['note_reader'], build_codec(spec.vocabulary)
  times = time_code(np.arange(32), 192) @ np.asarray(reader['time']['kernel'])
  pitches = np.arange(40, 72)
  proposed = times + np.asarray(reader['name_of_kind'])[ONSETS][pitches]  # one a state
  steps = [codec.encode_event(Event('shift', round(3.2 * state))) + SPECIAL_TOKENS for state in range(32)]
  module, proposed = network.Transformer(config), jnp.asarray(np.repeat(proposed[None], 32, axis=0))
  logits = module.apply(
    {'params': params}, proposed, None, jnp.array(steps)[:, None], enable_dropout=False, method=module.decode
  )
  first = codec.encode_event(Event('pitch', 40)) + SPECIAL_TOKENS
  found = np.asarray(logits)[:, 0, first : first + 32].argmax(axis=-1)
  assert (found == np.arange(32)).mean() > 0.5  # the rest of the decoder is still random


@pytest.mark.parametrize('told', [False, True])
def test_a_fresh_decoder_looks_at_what_comes_after_the_event_that_it_has_said(told):
  """Of notes at the same time, where it looks at that event again unless it is told."""
  import jax.numpy as jnp

  vocabulary = VocabularyConfig(num_velocity_bins=1)
  codec = build_codec(vocabulary)
  shift, velocity, pitch = (
    tuple(index + SPECIAL_TOKENS for index in codec.event_type_range(kind)) for kind in ('shift', 'velocity', 'pitch')
  )
  sizes = SIZES | dict(emb_dim=192, num_heads=4, head_dim=48)
  status = {'running_status': (shift, velocity), 'event_ends': (pitch,) if told else ()}
  config = T5Config(**sizes, proposals=4, logits_via_embedding=True, **status)
  mels = SpectrogramConfig(hop_width=512, num_mel_bins=16)
  spec = ModelSpec(config, mels, vocabulary, segment_frames=32, targets_length=16)
  frames, tokens = np.zeros((1, 32, 16), np.float32), np.ones((1, 2), np.int32)
  module = network.Transformer(config)
  params = module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)['params']
  params = proposal_initialization.give_names(params, spec)
  reader = params['note_reader']
  time = time_code(np.arange(32), 192)[5] @ np.asarray(reader['time']['kernel'])
  names = np.asarray(reader['name_of_kind'])[ONSETS][40:56] + time  # 16 notes at once
  proposed = names[1:] + names[:-1] @ np.asarray(reader['before']['kernel'])
  said = jnp.array([[shift[0] + 16, velocity[1], pitch[0] + value] for value in range(40, 55)])

  def first_weights(network_):
    decoder, layer = network_.decoder, network_.decoder.layers[0]
    held = network.running_status(said, config.running_status, config.event_ends)
    x = layer.pre_cross_attention_layer_norm(decoder._with_status(decoder.embed(said), held)[:, -1:])
    attention = layer.encoder_decoder_attention
    queries, keys = (
      part.reshape(-1, 4, 48) for part in (attention.query(x), attention.key(jnp.asarray(proposed)[None]))
    )
    return jax.nn.softmax(jnp.einsum('qhd,khd->qhk', queries, keys)).mean(axis=1)

  weights = np.asarray(module.apply({'params': params}, method=first_weights))
  following, itself = np.diag(weights).mean(), np.diag(weights, -1).mean()
  assert (following > 0.4 and itself < 0.25) if told else (following < 0.1 and itself > 0.6)


def test_a_fresh_model_has_names_and_one_without_proposals_needs_none():
  from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
  from mrmt3.models import MemoryEncoderDecoderModel

  shapes = {'encoder_input_tokens': (1, 8, 16), 'decoder_input_tokens': (1, 4), 'decoder_target_tokens': (1, 4)}
  types = {name: np.int32 for name in shapes if name.startswith('decoder')}
  spec = spec_of(1)
  params = MemoryEncoderDecoderModel(spec).get_initial_variables(jax.random.key(0), shapes, types)['params']
  again = proposal_initialization.give_names(params, spec)
  for name in ('name_of_kind', 'name_of_class'):
    np.testing.assert_array_equal(params['note_reader'][name], again['note_reader'][name])
  pieces = PieceEncoderDecoderModel(spec).get_initial_variables(jax.random.key(0), {})['params']
  for name in ('name_of_kind', 'name_of_class'):
    np.testing.assert_array_equal(
      pieces['note_reader'][name], proposal_initialization.give_names(pieces, spec)['note_reader'][name]
    )
  plain = ModelSpec(spec.network.replace(proposals=0), MELS, spec.vocabulary, segment_frames=8, targets_length=16)
  fresh = MemoryEncoderDecoderModel(plain).get_initial_variables(jax.random.key(0), shapes, types)['params']
  assert 'note_reader' not in fresh


def test_the_real_t5x_can_place_every_parameter():
  """Its partitioner refuses an array with one logical axis twice."""
  spec = spec_of(1)
  told = {'memory_length': 2, 'running_status': ((3, 1003),), 'event_ends': ((1004, 1131),)}
  spec = ModelSpec(spec.network.replace(**told), MELS, spec.vocabulary, segment_frames=8, targets_length=16)
  frames, tokens = np.zeros((1, 8, 16), np.float32), np.ones((1, 2), np.int32)
  module = network.Transformer(spec.network, with_frame_head=True)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
  )
  axes = jax.tree.leaves(variables['params_axes'], is_leaf=lambda x: hasattr(x, 'names'))
  assert len(axes) == len(jax.tree.leaves(variables['params'])) > 50
  for names in axes:
    partitioning.logical_to_mesh_axes(tuple(names.names))
