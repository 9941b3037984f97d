"""Copying of proposals: of a perfect reader's the decoder copies whole targets, and what it has said is not said again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import copying, network, segment_tokens
from mrmt3.config import ModelSpec
from mrmt3.engine import decoding
from mrmt3.errors import UserError
from mrmt3.inference import Transcriber
from mrmt3.instrument_choice import InstrumentChoice
from mrmt3.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.models import ContinuousInputsEncoderDecoderModel
from mrmt3.network import T5Config
from mrmt3.note_reader import DRUM, OFF, ON, Proposals, token_order
from mrmt3.notes import as_notes
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import SPECIAL_TOKENS, VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(steps_per_second=32, num_velocity_bins=1))
STATUS, ENDS = (
  tuple(tuple(index + SPECIAL_TOKENS for index in CODEC.event_type_range(kind)) for kind in kinds)
  for kinds in (('shift', 'velocity', 'program', 'tie'), ('pitch', 'drum'))
)
IDS = copying.Tokens(*STATUS, *ENDS)
SIZES = dict(vocab_size=896, emb_dim=48, num_heads=2, head_dim=8, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1)
COPYING = dict(running_status=STATUS, event_ends=ENDS, proposals=6, copies_proposals=True)
WEIGHTS = jnp.zeros(len(copying._WEIGHTS))
STATES, EOS, FLOOR = 64, 1, np.log(copying._FLOOR)


def proposals_of(events):
  """Returns events (state, group, pitch, class), certain, in the order of tokens, as a batch of one."""
  states, groups, pitches, classes = np.array(sorted(events, key=lambda e: (e[0], int(token_order(*np.array(e)[[1, 3, 2]]))))).T
  likely = np.eye(NUM_CLASSES, dtype=np.float32)[classes] * (groups != DRUM)[:, None]
  return Proposals(*(jnp.asarray(x)[None] for x in (states, groups, pitches, np.full(len(states), 9.0, np.float32), likely)))


def copied(proposals, inputs, judged=0.0):
  """Returns what is added to the logits after `inputs`, `[length, vocab]`."""
  inputs = jnp.asarray(inputs, jnp.int32)[None]
  status = network.running_status(inputs, STATUS, ENDS)
  said = jax.lax.cummax(copying.says(IDS, proposals, inputs, status).astype(jnp.int8), axis=1) > 0
  judged = jnp.full(said.shape, judged)
  return np.asarray(copying.copied_logits(IDS, WEIGHTS, proposals, judged, inputs, status, said, SIZES['vocab_size']))[0]


def tok(kind, value=0):
  """Returns a token's model id."""
  return getattr(IDS, kind)[0] + value


notes = st.tuples(
  st.integers(0, 80), st.integers(1, 40), st.integers(30, 90), st.sampled_from(list(CLASS_PROGRAMS)), st.booleans()
)


@settings(deadline=None, max_examples=25)
@given(st.lists(notes, min_size=1, max_size=25), st.sampled_from([0, 25]))
def test_what_a_perfect_reader_hears_is_copied_token_by_token(rows, start):
  """Whatever the notes: ties, unisons aside, chords, several instruments, drums."""
  table = as_notes([(on / 32, (on + length) / 32, pitch, 100, 0 if drum else program, drum) for on, length, pitch, program, drum in rows])
  table = segment_tokens.trim_overlapping_notes(table)
  # One event of a pitch a state, and nothing again within a state: unisons are proposed once.
  seen, kept = set(), []
  for note in np.sort(table, order=['is_drum', 'pitch', 'onset']):
    moments = {(round(note[name] * 32) + d, note['pitch'], note['is_drum']) for name in ('onset', 'offset') for d in (-1, 0, 1)}
    if not moments & seen:
      kept.append(note)
      seen |= moments
  piece = segment_tokens.encode_piece(np.array(kept), CODEC, rounded_order=True)
  targets = segment_tokens.segment_targets(piece, 2 * start, 2 * STATES, frames_per_second=64, codec=CODEC)
  inside = (piece.step >= start) & (piece.step < start + STATES)
  events = [
    (step - start, DRUM if drum else (ON if velocity else OFF), pitch, 0 if drum else int(class_index(program)))
    for step, program, velocity, pitch, drum in zip(
      *(getattr(piece, name)[inside].tolist() for name in ('step', 'program', 'velocity_bin', 'pitch', 'is_drum')), strict=True
    )
  ]
  begin = int(np.flatnonzero(targets == tok('tie'))[0]) + 1
  logits = copied(proposals_of(events or [(70, ON, 1, 0)]), np.concatenate([[0], targets[:-1]]))
  if not events:
    assert targets[begin] == EOS and logits[begin, tok('time', 70)] > -0.1  # which is proposed instead
    return
  assert (logits[:begin] == 0).all()
  np.testing.assert_array_equal(logits[begin:].argmax(axis=-1), targets[begin:])
  assert (logits[begin:].max(axis=-1) > -0.1).all()
  assert (np.sort(logits[begin:], axis=-1)[:, -2] < -3).all()


def test_chances_of_what_is_next():
  """The first is heard with 0.5, the second, later, with 0.8: that, or neither, is what remains."""
  proposals = proposals_of([(3, ON, 60, 0), (5, ON, 62, 4)])
  proposals = proposals._replace(scores=jnp.log(jnp.array([[1.0, 4.0]])))
  chance = np.exp(copied(proposals, [0, tok('tie')])[1]) - copying._FLOOR
  np.testing.assert_allclose(chance[[tok('time', 3), tok('time', 5), EOS]], [0.5, 0.4, 0.1], atol=1e-4)
  assert chance.sum() == pytest.approx(1, abs=1e-3)


def test_what_is_begun_is_completed():
  """After a shift something of that time comes, however unlikely; after a program something of it."""
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 4), (5, ON, 62, 4)])
  proposals = proposals._replace(scores=jnp.array([[-3.0, -3.0, 9.0]]))
  said = [0, tok('tie'), tok('time', 3), tok('program', CLASS_PROGRAMS[4]), tok('velocity', 1)]
  chances = np.exp(copied(proposals, said)) - copying._FLOOR
  assert chances[1, tok('time', 5)] > 0.8
  after_shift = chances[2, [tok('program', 0), tok('program', CLASS_PROGRAMS[4])]]
  assert after_shift.sum() == pytest.approx(1, abs=1e-3) and after_shift[0] > after_shift[1] > 0.4
  assert chances[3, tok('velocity', 1)] == pytest.approx(1, abs=1e-2)
  assert chances[4, tok('pitch', 64)] == pytest.approx(1, abs=1e-2)
  assert chances[2:, EOS] == pytest.approx(0, abs=1e-6)


def test_what_has_been_said_is_not_said_again_nor_a_state_beside():
  proposals = proposals_of([(3, ON, 60, 0), (5, ON, 60, 0)])
  said = [0, tok('tie'), tok('time', 4), tok('program', 0), tok('velocity', 1), tok('pitch', 60)]
  logits = copied(proposals, said)
  assert logits[-1].argmax() == EOS  # both count as that one
  # Another instrument may still play the same; here and there it is as likely as `again` says.
  again = 1 / (1 + np.exp(5))
  assert np.exp(logits[-1, EOS]) == pytest.approx(1 - again, abs=2e-3)
  assert np.exp(logits[-1, tok('time', 5)]) == pytest.approx(again, abs=2e-3)
  status = network.running_status(jnp.array([said]), STATUS, ENDS)
  says = np.asarray(copying.says(IDS, proposals, jnp.array([said]), status))[0]
  assert says[-1].all() and not says[:-1].any()
  logits = copied(proposals, [*said[:2], tok('time', 3), *said[3:]])
  assert logits[-1].argmax() == tok('time', 5)


def test_a_tie_says_nothing():
  proposals = proposals_of([(0, OFF, 60, 0)])
  said = [0, tok('program', 0), tok('pitch', 60), tok('tie')]
  logits = copied(proposals, said)
  assert (logits[:3] == 0).all() and logits[3].argmax() == tok('velocity', 0)  # of the program that holds


def test_one_that_comes_before_what_was_said_is_unlikely():
  """Two of one moment; the second was said first, so the first was most likely no note."""
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 0)])
  proposals = proposals._replace(scores=jnp.zeros((1, 2)))
  said = [0, tok('tie'), tok('time', 3), tok('program', 0), tok('velocity', 1), tok('pitch', 64)]
  chance = np.exp(copied(proposals, said)[-1]) - copying._FLOOR
  assert chance[tok('pitch', 60)] == pytest.approx(1 / (1 + np.exp(3)), abs=1e-3)


@pytest.mark.parametrize(
  'changes',
  [{'proposals': 0}, {'running_status': STATUS[:3]}, {'event_ends': ENDS[:1]}, {'event_ends': ENDS[::-1] + ENDS}, {'emb_dim': 36}],
)
def test_a_network_that_cannot_copy_is_named(changes):
  T5Config(**SIZES, **COPYING)
  with pytest.raises(UserError, match='copies_proposals needs'):
    T5Config(**{**SIZES, **COPYING, **changes})


def test_a_model_whose_tokens_or_states_are_others_is_named():
  config = T5Config(**SIZES, **COPYING, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2)
  mels, words = SpectrogramConfig(hop_width=250, num_mel_bins=16), VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
  ModelSpec(config, mels, words, segment_frames=8, targets_length=16)
  moved = dataclasses.replace(config, running_status=(STATUS[3], STATUS[1], STATUS[2], STATUS[3]))
  with pytest.raises(UserError, match='running_status and event_ends'):
    ModelSpec(moved, mels, words, segment_frames=8, targets_length=16)
  with pytest.raises(UserError, match=r'31\.25 states a second and 32 steps'):
    ModelSpec(config, dataclasses.replace(mels, hop_width=256), words, segment_frames=8, targets_length=16)


  with pytest.raises(UserError, match='needs ties'):
    ModelSpec(config, mels, words, segment_frames=8, targets_length=16, ties=False)
  ModelSpec(config, mels, words, segment_frames=512, targets_length=16)
  with pytest.raises(UserError, match='257 states'):
    ModelSpec(config, mels, words, segment_frames=513, targets_length=16)


def test_only_what_may_be_said_is_copied():
  """A note that is a piano's with 0.9 and a bass's with 0.1, a drum, and a bass's note, where only basses may play."""
  allowed = InstrumentChoice.parse('bass').allowed_tokens(CODEC, SIZES['vocab_size'])
  piano, bass = 0, int(class_index(33))
  proposals = proposals_of([(3, ON, 60, piano), (4, DRUM, 38, 0), (5, ON, 40, bass)])
  classes = proposals.classes.at[0, 0, bass].set(0.1).at[0, 0, piano].set(0.9)
  kept = copying.only_allowed(proposals._replace(classes=classes), IDS, jnp.asarray(allowed))
  np.testing.assert_allclose(jax.nn.sigmoid(kept.scores[0]), [0.1, 0.0, 1.0], atol=1e-3)
  np.testing.assert_allclose(kept.classes[0, :, bass], [1.0, 0.0, 1.0], atol=1e-6)
  assert copied(kept, [0, tok('tie')])[1].argmax() == tok('time', 5)
  everything = copying.only_allowed(proposals, IDS, jnp.ones(SIZES['vocab_size'], bool))
  np.testing.assert_allclose(everything.scores, proposals.scores, atol=0.1)


def a_network(dtype='float32'):
  """Returns a module that copies, with a memory and the harmonic front, its parameters, and a batch."""
  config = T5Config(
    **SIZES, **COPYING, dtype=dtype, memory_length=2, front='harmonic', front_channels=(2, 2, 2, 2), front_time_stride=2
  )
  frames, tokens = jax.random.normal(jax.random.key(1), (2, 16, 16)), jnp.tile(jnp.array([0, tok('tie'), tok('time', 3)]), (2, 1))
  module = network.Transformer(config)
  params = module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)['params']
  return module, params, frames, tokens


def test_what_the_decoder_copies_is_what_the_reader_proposes():
  module, params, frames, tokens = a_network()

  def both(network_):
    states, notes = network_.encoder.with_notes(frames, None, True)
    return network_.encode(frames, enable_dropout=False, prior_tokens=tokens), *network_.note_reader.propose(states, 6, notes)

  encoded, rows, proposals = module.apply({'params': params}, method=both)
  seen, proposed, numbers = network.split_encoded(module.config, encoded)
  assert seen.shape == (2, 8 + 6 + 2, 48)
  np.testing.assert_allclose(proposed, rows, atol=1e-6)
  for ours, theirs in zip(copying.of_rows(numbers), proposals, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('certainty', [-30.0, 0.0, 30.0])
def test_gradients_are_finite_however_certain_the_reader(dtype, certainty):
  module, params, frames, tokens = a_network(dtype)
  params['note_reader']['events_bias'] = jnp.full_like(params['note_reader']['events_bias'], certainty)

  def loss(params):
    logits = module.apply({'params': params}, frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
    return -jax.nn.log_softmax(logits)[:, :, tok('program', 5)].sum()

  slopes = jax.grad(loss)(params)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))
  assert float(jnp.abs(slopes['decoder']['copier']['weights']).max()) > 0 or certainty


def test_beams_are_scored_as_teacher_forcing_scores_them():
  """What has been said goes with a hypothesis wherever the search moves it."""
  config = T5Config(**SIZES, **COPYING, decoder_padding_masks=False)
  inputs = jax.random.normal(jax.random.key(1), (2, 16, 16))
  module, empty = network.Transformer(config), jnp.zeros((2, 14), jnp.int32)
  params = module.init(jax.random.key(0), inputs, empty, empty, enable_dropout=False)['params']
  params['note_reader']['events_bias'] += 3.0
  table = params['decoder']['token_embedder']
  table['embedding'] = 0.3 * table['embedding'].at[tok('tie')].add(1.0)
  model = ContinuousInputsEncoderDecoderModel(module, decode_fn=decoding.beam_search, input_depth=16)
  batch = {'encoder_input_tokens': inputs, 'decoder_input_tokens': empty}
  options = dict(decoder_params={'alpha': 0.0}, num_decodes=4, return_all_decodes=True)
  beams, aux = jax.jit(functools.partial(model.predict_batch_with_aux, **options))(params, batch)
  assert (beams > 0).sum() > 40 and len(np.unique(beams.reshape(8, -1), axis=0)) == 8
  for beam in range(4):
    tokens = beams[:, beam]
    shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    logits = module.apply({'params': params}, inputs, shifted, tokens, enable_dropout=False)
    likely = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose((likely * (tokens > 0)).sum(axis=1), aux['scores'][:, beam], rtol=1e-4)


def test_a_transcriber_copies_only_the_instruments_that_are_asked_for():
  config = T5Config(**SIZES, **COPYING, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2)
  words = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
  spec = ModelSpec(config, SpectrogramConfig(hop_width=250, num_mel_bins=16), words, segment_frames=64, targets_length=32)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), network.parameter_shapes(config, 16))
  params['note_reader']['events_bias'] += 2.0
  transcriber, audio = Transcriber(params, spec), rng.normal(0, 0.1, 40000).astype(np.float32)
  everything, basses = transcriber.transcribe(audio).notes, transcriber.transcribe(audio, instruments='bass').notes
  assert len(everything) and set(everything['program']) - set(range(32, 40))
  assert set(basses['program']) <= set(range(32, 40)) and not basses['is_drum'].any()


def test_a_fresh_network_copies_what_its_reader_hears():
  """The decoder's own opinion aside: its logits are 0."""
  config = T5Config(**SIZES, **COPYING, memory_length=2, logits_via_embedding=True)
  frames, tokens = jnp.zeros((1, 8, 16)), jnp.array([[0, tok('tie')]])
  module = network.Transformer(config)
  params = module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)['params']
  params['decoder']['token_embedder']['embedding'] *= 0.0
  rows = copying.as_rows(proposals_of([(k, ON, 60 + k, 3) for k in range(1, 7)]), 48)
  encoded = jnp.concatenate([jax.random.normal(jax.random.key(1), (1, 16, 48)), rows], axis=1)
  logits = module.apply({'params': params}, encoded, None, tokens, enable_dropout=False, method=network.Transformer.decode)
  assert int(logits[0, 1].argmax()) == tok('time', 1)
  assert network.split_encoded(config, encoded)[1].shape == (1, 6, 48)
  np.testing.assert_array_equal(network.split_encoded(config, encoded)[1], encoded[:, 8:14])


def test_proposals_travel_as_rows():
  proposals = proposals_of([(3, ON, 60, 0), (255, DRUM, 127, 0), (5, OFF, 60, 33)])
  for dtype in (jnp.float32, jnp.bfloat16):
    for ours, theirs in zip(copying.of_rows(copying.as_rows(proposals, 48).astype(dtype)), proposals, strict=True):
      np.testing.assert_array_equal(ours, theirs)
