"""That proposals and tokens begin with the same names."""

import jax
import numpy as np
import pytest

from mrmt3 import event_names, network, transformer_blocks
from mrmt3.config import ModelSpec
from mrmt3.event_codec import Event
from mrmt3.instruments import SLAKH_CLASSES
from mrmt3.network import T5Config
from mrmt3.note_reader import DRUMS, OFFSETS, ONSETS
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import SPECIAL_TOKENS, VocabularyConfig, build_codec

SIZES = dict(vocab_size=1664, emb_dim=16, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)
MELS = SpectrogramConfig(hop_width=256, num_mel_bins=16)


def spec_of(velocity_bins):
  config = T5Config(**SIZES, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2, proposals=4, logits_via_embedding=True)
  return ModelSpec(config, MELS, VocabularyConfig(num_velocity_bins=velocity_bins), segment_frames=8, targets_length=16)


@pytest.fixture(params=[1, 127])
def named(request):
  """Returns (a function from an event to its embedding, the note reader's parameters, the network's configuration)."""
  spec = spec_of(request.param)
  frames, tokens = np.zeros((1, 8, 16), np.float32), np.ones((1, 2), np.int32)
  params = network.Transformer(spec.network).init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)['params']
  params = event_names.give_names(params, spec)
  codec, table = build_codec(spec.vocabulary), np.asarray(params['decoder']['token_embedder']['embedding'])
  return lambda kind, value: table[codec.encode_event(Event(kind, value)) + SPECIAL_TOKENS], params['note_reader'], spec


def test_kinds_and_classes_have_their_tokens_names(named):
  embedding, reader, spec = named
  loudest = spec.vocabulary.num_velocity_bins
  kinds, classes = np.asarray(reader['name_of_kind']), np.asarray(reader['name_of_class'])
  for pitch in (21, 60, 108):
    np.testing.assert_allclose(kinds[ONSETS.start + pitch], embedding('pitch', pitch) + embedding('velocity', loudest), atol=1e-5)
    np.testing.assert_allclose(kinds[OFFSETS.start + pitch], embedding('pitch', pitch) + embedding('velocity', 0), atol=1e-5)
    np.testing.assert_allclose(kinds[DRUMS.start + pitch], embedding('drum', pitch) + embedding('velocity', loudest), atol=1e-5)
  wanted = [embedding('program', program) for program in sorted(SLAKH_CLASSES.values())]
  np.testing.assert_array_equal(classes, wanted)


def test_a_time_shift_is_called_what_a_proposal_of_that_time_is(named):
  embedding, reader, _ = named
  # 4 states a 0.032 s: step 16 (0.16 s) is state 5.
  table = transformer_blocks.sinusoidal_positions(6, 16, 'mt3')
  np.testing.assert_allclose(embedding('shift', 16), table[5] @ np.asarray(reader['time']['kernel']), atol=1e-4)


def test_a_fresh_model_has_names_and_one_without_proposals_needs_none():
  from mrmt3.models import MemoryEncoderDecoderModel

  shapes = {'encoder_input_tokens': (1, 8, 16), 'decoder_input_tokens': (1, 4), 'decoder_target_tokens': (1, 4)}
  types = {name: np.int32 for name in shapes if name.startswith('decoder')}
  spec = spec_of(1)
  params = MemoryEncoderDecoderModel(spec).get_initial_variables(jax.random.key(0), shapes, types)['params']
  again = event_names.give_names(params, spec)
  jax.tree.map(np.testing.assert_array_equal, params, again)
  plain = ModelSpec(spec.network.replace(proposals=0), MELS, spec.vocabulary, segment_frames=8, targets_length=16)
  fresh = MemoryEncoderDecoderModel(plain).get_initial_variables(jax.random.key(0), shapes, types)['params']
  assert 'note_reader' not in fresh
