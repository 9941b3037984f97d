"""Start values of the hybrid network: candidates and tokens share embeddings, and the decoder looks them up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3.config import ModelSpec
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
from mrmt3.event_codec import Event
from mrmt3.framewise.note_heads import DRUMS, OFFSETS, ONSETS
from mrmt3.hybrid import HybridConfig, initialization
from mrmt3.hybrid.candidate_frames import time_code
from mrmt3.hybrid.initialization import init_from_token_embeddings
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens.event_state import event_state
from mrmt3.vocabularies import SPECIAL_TOKENS, VocabularyConfig, build_codec

MELS = SpectrogramConfig(hop_width=256, num_mel_bins=16)
CONFIG = HybridConfig(
  vocab_size=1664,
  emb_dim=16,
  num_heads=2,
  head_dim=4,
  mlp_dim=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  front_channels=(1, 1, 1, 1),
  output_positions=False,
  num_candidates=4,
  event_state=False,
  last_event=False,
  logits_via_embedding=True,
)
# One encoder frame per log-mel frame, and wide enough for time codes that are told apart.
WIDE = CONFIG.replace(front='linear', time_stride=1, emb_dim=192, num_heads=4, head_dim=48)


def spec_of(velocity_bins, config=CONFIG):
  words = VocabularyConfig(num_velocity_bins=velocity_bins)
  return ModelSpec(config, MELS, words, segment_frames=8, targets_length=16)


def wide_spec(config):
  words = VocabularyConfig(num_velocity_bins=1)
  mels = SpectrogramConfig(hop_width=512, num_mel_bins=16)
  return ModelSpec(config, mels, words, segment_frames=32, targets_length=16)


@functools.cache
def fresh(spec):
  """Return fresh parameters, before candidates and tokens have the same embeddings."""
  frames, tokens = np.zeros((1, spec.segment_frames, 16), np.float32), np.ones((1, 2), np.int32)
  init = jax.jit(functools.partial(spec.module().init, enable_dropout=False))
  return init(jax.random.key(0), frames, tokens, tokens)['params']


@pytest.fixture(params=[1, 127], scope='module')
def initialized(request):
  """Return (a function from an event to its embedding, the note heads' parameters, the spec)."""
  spec = spec_of(request.param)
  params = init_from_token_embeddings(fresh(spec), spec)
  codec, table = build_codec(spec.vocabulary), np.asarray(params['decoder']['token_embedder']['embedding'])
  return lambda kind, value: table[codec.encode_event(Event(kind, value)) + SPECIAL_TOKENS], params['note_reader'], spec


def test_kinds_and_classes_have_their_tokens_embeddings(initialized):
  embedding, heads, spec = initialized
  soft, loud = embedding('velocity', 0), embedding('velocity', spec.vocabulary.num_velocity_bins)
  kinds, classes = np.asarray(heads['name_of_kind']), np.asarray(heads['name_of_class'])
  for pitch in (21, 60, 108):
    np.testing.assert_allclose(kinds[ONSETS.start + pitch], embedding('pitch', pitch) + loud, atol=1e-5)
    np.testing.assert_allclose(kinds[OFFSETS.start + pitch], embedding('pitch', pitch) + soft, atol=1e-5)
    np.testing.assert_allclose(kinds[DRUMS.start + pitch], embedding('drum', pitch) + loud, atol=1e-5)
  wanted = [embedding('program', program) for program in sorted(SLAKH_CLASSES.values())]
  np.testing.assert_array_equal(classes, wanted)


def test_a_time_token_has_the_embedding_of_a_candidates_time(initialized):
  embedding, heads, _ = initialized
  # An encoder frame lasts 0.032 s: step 16 (0.16 s) is frame 5, and step 8 lies half way between two.
  for step, frame in ((0, 0), (16, 5), (8, 2.5)):
    wanted = time_code(np.array([frame]), 16)[0] @ np.asarray(heads['time']['kernel'])
    np.testing.assert_allclose(embedding('shift', step), wanted, atol=1e-4)


def test_looking_ahead_leads_to_a_later_times_embedding(initialized):
  _, heads, _ = initialized
  kernel = np.asarray(heads['time']['kernel'])
  later = np.asarray(initialization._later(kernel, 2.0))
  wanted = time_code(np.arange(2, 11), 16) @ kernel
  np.testing.assert_allclose(time_code(np.arange(9), 16) @ kernel @ later, wanted, atol=1e-4)


def test_a_fresh_decoder_looks_up_the_candidate_at_its_time():
  spec = wide_spec(WIDE)
  params = init_from_token_embeddings(fresh(spec), spec)
  heads, codec, module = params['note_reader'], build_codec(spec.vocabulary), spec.module()
  times = time_code(np.arange(32), 192) @ np.asarray(heads['time']['kernel'])
  candidates = times + np.asarray(heads['name_of_kind'])[ONSETS][40:72]  # one in each frame
  steps = [codec.encode_event(Event('shift', round(3.2 * frame))) + SPECIAL_TOKENS for frame in range(32)]
  encoded = jnp.asarray(np.repeat(candidates[None], 32, axis=0))
  decode = jax.jit(functools.partial(module.apply, enable_dropout=False, method=module.decode))
  logits = decode({'params': params}, encoded, None, jnp.array(steps)[:, None])
  first = codec.encode_event(Event('pitch', 40)) + SPECIAL_TOKENS
  found = np.asarray(logits)[:, 0, first : first + 32].argmax(axis=-1)
  assert (found == np.arange(32)).mean() > 0.5  # the rest of the decoder is still random


@pytest.mark.parametrize('last_event', [False, True])
def test_a_fresh_decoder_looks_at_the_event_after_the_last_one(last_event):
  """Among notes of the same time; without `last_event` it looks at the last event again."""
  spec = wide_spec(WIDE.replace(event_state=True, last_event=last_event))
  params, ids = init_from_token_embeddings(fresh(spec), spec), spec.token_ids
  heads = params['note_reader']
  time = time_code(np.arange(32), 192)[5] @ np.asarray(heads['time']['kernel'])
  names = np.asarray(heads['name_of_kind'])[ONSETS][40:56] + time  # 16 notes at once
  candidates = jnp.asarray(names[1:] + names[:-1] @ np.asarray(heads['before']['kernel']))
  tokens = jnp.array([[ids.time[0] + 16, ids.velocity[1], ids.pitch[0] + value] for value in range(40, 55)])

  def first_weights(network):
    decoder, layer = network.decoder, network.decoder.layers[0]
    state = event_state(tokens, ids.state, ids.event_ends if last_event else ())
    x = layer.pre_cross_attention_layer_norm(decoder._with_state(tokens, state)[:, -1:])
    attention = layer.encoder_decoder_attention
    queries, keys = (part.reshape(-1, 4, 48) for part in (attention.query(x), attention.key(candidates[None])))
    return jax.nn.softmax(jnp.einsum('qhd,khd->qhk', queries, keys)).mean(axis=1)

  module = spec.module()
  weights = np.asarray(jax.jit(lambda p: module.apply({'params': p}, method=first_weights))(params))
  following, itself = np.diag(weights).mean(), np.diag(weights, -1).mean()
  assert (following > 0.4 and itself < 0.25) if last_event else (following < 0.1 and itself > 0.6)


def test_the_map_of_the_last_event_is_that_of_the_event_before():
  spec = spec_of(1, CONFIG.replace(event_state=True, last_event=True))
  params = init_from_token_embeddings(fresh(spec), spec)
  np.testing.assert_allclose(params['decoder']['event_map'], 2.0 * params['note_reader']['before']['kernel'])
  assert 'event_map' not in init_from_token_embeddings(fresh(spec_of(1)), spec_of(1))['decoder']


@pytest.mark.parametrize('model_class', [MemoryEncoderDecoderModel, PieceEncoderDecoderModel])
def test_fresh_models_have_the_start_values(model_class):
  shapes = {'encoder_input_tokens': (1, 8, 16), 'decoder_input_tokens': (1, 4), 'decoder_target_tokens': (1, 4)}
  types = {name: np.int32 for name in shapes if name.startswith('decoder')}

  def params_of(spec):
    model = model_class(spec)
    return jax.jit(lambda key: model.get_initial_variables(key, shapes, types)['params'])(jax.random.key(0))

  spec = spec_of(1)
  params = params_of(spec)
  again = init_from_token_embeddings(params, spec)
  for name in ('name_of_kind', 'name_of_class'):
    np.testing.assert_allclose(params['note_reader'][name], again['note_reader'][name], atol=1e-6)
  if model_class is MemoryEncoderDecoderModel:
    assert 'note_reader' not in params_of(spec_of(1, CONFIG.replace(num_candidates=0)))
