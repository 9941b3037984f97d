"""Proposals: which events they are, what the decoder is told of them, and that a network works with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrmt3 import network
from mrmt3.decoding import greedy
from mrmt3.errors import UserError
from mrmt3.framewise import note_heads
from mrmt3.framewise.note_heads import DRUMS, KINDS, OFFSETS, ONSETS, NoteReader
from mrmt3.network import T5Config

SIZES = dict(vocab_size=64, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)


def shown(module, states, number):
  """Returns the likeliest events as states for the decoder, and as what they are."""
  proposals = module.propose(states, number)
  return module.as_states(states, proposals), proposals


@pytest.fixture
def reader():
  """Returns a reader whose events are the first values of a state, and its parameters; a proposal is place and kind alone."""
  module = NoteReader(8, hidden=4)
  params = module.init(jax.random.key(0), jnp.zeros((1, 6, 8)), 2, method=shown)['params']
  params = jax.tree.map(jnp.zeros_like, params)
  params['events']['kernel'] = jnp.zeros((8, KINDS)).at[0, 60].set(1.0).at[1, DRUMS.start + 38].set(1.0)
  params['events_bias'] = jnp.full((KINDS,), -5.0)
  params['time']['kernel'] = jnp.eye(8)
  names = jax.random.normal(jax.random.key(1), (KINDS, 8))
  return module, {'params': {**params, 'name_of_kind': names}}


def test_the_likeliest_events_are_proposed_in_order_of_time(reader):
  module, params = reader
  states = np.zeros((1, 6, 8), np.float32)
  states[0, 1:5, 0] = [2, 6, 3, 1]  # one onset, at its peak
  states[0, 1, 1] = 9
  found = np.asarray(module.apply(params, states, 2, method=shown)[0])
  table = note_heads.time_code(np.arange(6), 8)
  names = np.asarray(params['params']['name_of_kind'])
  np.testing.assert_allclose(found[0], [names[DRUMS.start + 38] + table[1], names[60] + table[2]], atol=1e-6)


def test_within_a_state_they_come_as_tokens_do(reader):
  """What ends, then what begins by class and pitch, then drums."""
  module, params = reader
  kinds = [
    DRUMS.start + 36,
    ONSETS.start + 64,
    OFFSETS.start + 70,
    ONSETS.start + 60,
    ONSETS.start + 62,
    OFFSETS.start + 50,
  ]
  params = {'params': {**params['params']}}
  params['params']['events'] = {'kernel': jnp.zeros((8, KINDS)).at[0, jnp.array(kinds)].set(1.0)}
  # Pitch 62 is of class 3, all else of class 5.
  params['params']['kind'] = jnp.ones((KINDS, 4)).at[62].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
  classes = jnp.zeros((4, 34)).at[0, 5].set(2.0).at[1, 3].set(1.0)
  params['params']['class_of'] = {'kernel': classes}
  states = np.zeros((1, 6, 8), np.float32)
  states[0, 2, 0] = 9
  found, proposals = module.apply(params, states, 6, method=shown)
  found = np.asarray(found)[0]
  names = np.asarray(params['params']['name_of_kind']) + note_heads.time_code(np.arange(6), 8)[2]
  wanted = [
    OFFSETS.start + 50,
    OFFSETS.start + 70,
    ONSETS.start + 62,
    ONSETS.start + 60,
    ONSETS.start + 64,
    DRUMS.start + 36,
  ]
  np.testing.assert_allclose(found, names[wanted], atol=1e-5)
  assert (proposals.groups[0] * 128 + proposals.pitches[0]).tolist() == wanted and (proposals.states[0] == 2).all()
  assert proposals.classes[0, :-1].argmax(axis=-1).tolist() == [5, 5, 3, 5, 5] and not proposals.classes[0, -1].any()
  chance = 1 / (1 + np.exp(-4)) + 2 / (1 + np.exp(5))  # that it is in the state, or in one beside
  np.testing.assert_allclose(proposals.scores, np.full((1, 6), np.log(chance / (1 - chance))), rtol=1e-3)


def test_the_event_before_is_the_last_that_happens():
  certain = np.array([[1.0, 0.25, 0.5, 0.0, 1.0]])
  chances = np.asarray(note_heads._event_before(jnp.asarray(certain)))[0]
  wanted = np.zeros((5, 5))
  for n, m in np.ndindex(5, 5):
    if m < n:
      wanted[n, m] = certain[0, m] * np.prod(1 - certain[0, m + 1 : n])
  np.testing.assert_allclose(chances, wanted, atol=2e-3)


def test_each_is_told_what_comes_before_it(reader):
  module, params = reader
  params = {'params': {**params['params'], 'before': {'kernel': 2.0 * jnp.eye(8)}}}
  states = np.zeros((1, 6, 8), np.float32)
  states[0, 1, 0], states[0, 3, 0] = 9, 8
  found = np.asarray(module.apply(params, states, 2, method=shown)[0])
  name, table = np.asarray(params['params']['name_of_kind'])[60], note_heads.time_code(np.arange(6), 8)
  np.testing.assert_allclose(
    found[0], [name + table[1], name + table[3] + 2.0 * (name + table[1])], rtol=2e-3, atol=2e-3
  )


def test_a_plateau_is_one_event(reader):
  module, params = reader
  states = np.zeros((1, 6, 8), np.float32)
  states[0, 2:4, 0] = 6
  states[0, 5, 0] = 4
  found = np.asarray(module.apply(params, states, 2, method=shown)[0])
  table = note_heads.time_code(np.arange(6), 8)
  name = np.asarray(params['params']['name_of_kind'])[60]
  np.testing.assert_allclose(found[0, 0], name + table[3], atol=1e-6)
  # The other one is unlikely: it is named softly.
  certainty = 1 / (1 + np.exp(1)) + 1 / (1 + np.exp(5))
  np.testing.assert_allclose(found[0, 1], 1.5 * certainty * (name + table[5]), atol=1e-5)


def test_they_are_states_for_the_decoder_and_part_of_the_model():
  config = T5Config(**SIZES, proposals=5, memory_length=2)
  frames, tokens = np.random.default_rng(0).normal(size=(2, 7, 16)).astype(np.float32), np.ones((2, 4), np.int32)
  module = network.Transformer(config)
  options = {'enable_dropout': False, 'prior_tokens': tokens}
  params = module.init(jax.random.key(0), frames, tokens, tokens, **options)['params']
  assert set(network.parameter_shapes(config, 16)) == set(params) >= {'note_reader'}
  encoded = module.apply({'params': params}, frames, method=module.encode, **options)
  assert encoded.shape == (2, 7 + 5 + 2, 8)
  plain = network.Transformer(config.replace(proposals=0))
  np.testing.assert_array_equal(
    encoded[:, [*range(7), 12, 13]], plain.apply({'params': params}, frames, method=plain.encode, **options)
  )
  # The fast decoder sees what the network sees.
  said = greedy.transcribe_segments(params, jnp.asarray(frames), jnp.asarray(tokens), config=config, max_length=3)
  inputs = np.zeros_like(said)
  inputs[:, 1:] = said[:, :-1]
  logits = module.apply({'params': params}, frames, inputs, None, **options)
  np.testing.assert_array_equal(said[:, 0], logits[:, 0].argmax(axis=-1))


def test_gradients_reach_the_encoder_through_proposals():
  module = NoteReader(8, hidden=4)
  states = jax.random.normal(jax.random.key(2), (1, 6, 8))
  params = module.init(jax.random.key(0), states, 3, method=shown)
  slope = jax.grad(lambda x: (module.apply(params, x, 3, method=shown)[0] ** 2).sum())(states)
  assert float(jnp.abs(slope).max()) > 0 and bool(jnp.isfinite(slope).all())


def test_nonsense_is_named():
  with pytest.raises(UserError, match='proposals'):
    T5Config(**SIZES, proposals=-1)


def test_a_reader_that_shows_nothing_has_no_names_for_it():
  module, states = NoteReader(8, shown=False), jax.random.normal(jax.random.key(2), (1, 6, 8))
  params = module.init(jax.random.key(0), states, 3, method=module.propose)['params']
  assert not set(params) & {'time', 'before', 'name_of_kind', 'name_of_class', 'certainty', 'carried'}


def heard_in_turn(classes, strength, heard=None):
  """Returns the classes of notes, each as certain, weighed by shares."""
  classes = jnp.asarray(classes)[None]
  return np.asarray(note_heads.weigh_classes(classes, jnp.ones(classes.shape[:2]), heard, strength))[0]


def test_the_instrument_that_plays_most_is_the_likelier_one():
  classes = np.zeros((10, 34), np.float32)
  classes[:9, 3] = 1.0  # nine notes that are surely of class 3
  classes[9, [3, 5]] = [0.4, 0.6]
  np.testing.assert_allclose(heard_in_turn(classes, 0.0), classes, atol=1e-6)
  weighed = heard_in_turn(classes, 1.0)
  assert weighed[9].argmax() == 3 and weighed[9, 3] > 0.8
  np.testing.assert_allclose(weighed.sum(axis=-1), 1.0, atol=1e-5)
  np.testing.assert_allclose(weighed[:9], classes[:9], atol=1e-6)
  # Bayes' rule, where much has been heard before: 0.4 times 1/4 against 0.6 times 3/4.
  heard = jnp.zeros((1, 34), jnp.int32).at[0, 3].set(25000).at[0, 5].set(75000)
  np.testing.assert_allclose(heard_in_turn(classes[9:], 1.0, heard)[0, [3, 5]], [0.1 / 0.55, 0.45 / 0.55], atol=5e-3)
  # Drums have no class, before and after; what is unlikely does not count.
  assert not heard_in_turn(np.zeros((2, 34), np.float32), 1.0).any()
  counted = jnp.asarray([[0.0] * 9 + [1.0]])
  assert np.asarray(note_heads.weigh_classes(jnp.asarray(classes)[None], counted, None, 1.0))[0, 9].argmax() == 5


def test_classes_that_are_weighed_change_the_order():
  classes = jnp.zeros((1, 3, 34)).at[0, 0, 5].set(1.0).at[0, 1, 5].set(1.0).at[0, 2, [3, 5]].set(jnp.array([0.6, 0.4]))
  events = note_heads.Proposals(
    jnp.array([[0, 4, 4]]), jnp.zeros((1, 3), int), jnp.array([[60, 64, 70]]), jnp.full((1, 3), 3.0), classes
  )
  assert note_heads.in_token_order(events).pitches.tolist() == [[60, 70, 64]]
  assert note_heads.weighed_events(events, None, 2.0, 0.25).pitches.tolist() == [[60, 64, 70]]
  # What is not likely enough is not heard: then nothing speaks against class 3.
  unlikely = events._replace(scores=jnp.array([[-3.0, -3.0, 3.0]]))
  assert note_heads.weighed_events(unlikely, None, 2.0, 0.25).pitches.tolist() == [[60, 70, 64]]


def test_what_is_held_goes_on_where_its_pitch_sounds():
  module, states = NoteReader(8, shown=False), jnp.zeros((3, 6, 8))
  params = module.init(jax.random.key(0), states, None, jnp.zeros((3, 34, 128), bool), method=module.ties)['params']
  params['sounds_bias'] = jnp.full(128, -4.0).at[jnp.array([60, 62, 64])].set(4.0)
  held = np.zeros((3, 34, 128), bool)
  held[:, 7, 60] = held[:, 2, 60] = held[:, 7, 70] = (
    True  # 70 is held, but does not sound any more; 62 sounds, but is not held
  )

  def likely(held, adjacent):
    ties = module.apply({'params': params}, states, None, held, adjacent, method=module.ties)
    assert (
      (ties.groups == note_heads.TIE).all() and not ties.states.any() and ties.scores.shape == (3, note_heads.MOST_TIES)
    )
    rows = zip(ties.scores, ties.classes.argmax(axis=-1), ties.pitches, strict=True)
    return [[(int(c), int(p)) for s, c, p in zip(*row, strict=True) if s > 0] for row in rows]

  found = likely(jnp.asarray(held), jnp.array([True, True, False]))
  assert found[0] == found[1] == [(2, 60), (7, 60)]
  assert sorted(pitch for _, pitch in found[2]) == [60, 62, 64]  # where it is not known what is held, whatever sounds
  assert likely(jnp.asarray(held), None)[2] == found[0]
