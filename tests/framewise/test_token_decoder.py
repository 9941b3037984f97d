"""Copying of proposals: what a perfect reader hears becomes whole targets, and what has been said is not said again."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.engine import decoding
from mrmt3.errors import UserError
from mrmt3.framewise import token_decoder
from mrmt3.framewise.note_heads import DRUM, MOST_TIES, OFF, ON, TIE, Proposals, in_token_order
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.inference.transcriber import Transcriber
from mrmt3.models import ContinuousInputsEncoderDecoderModel
from mrmt3.network import T5Config
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens import batched_parsing, segment_targets
from mrmt3.tokens.event_state import running_status
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(steps_per_second=32, num_velocity_bins=1))
IDS = batched_parsing.token_ids(CODEC)
SIZES = dict(vocab_size=896, emb_dim=48, num_heads=2, head_dim=8, mlp_dim=8, num_encoder_layers=1)
COPYING = dict(copied_tokens=tuple(IDS), proposals=6)
STATES, EOS = 64, 1
FILLERS = (255, ON, 0, -99.0, 0.0)


def proposals_of(events):
  """Returns events (state, group, pitch, class), certain, in the order of tokens, as a batch of one."""
  states, groups, pitches, classes = np.array(events).T  # drums' classes are 0
  likely = np.eye(NUM_CLASSES, dtype=np.float32)[classes] * (groups != DRUM)[:, None]
  numbers = (states, groups, pitches, np.full(len(states), 9.0, np.float32), likely)
  return in_token_order(Proposals(*(jnp.asarray(x)[None] for x in numbers)))


def copied(proposals, inputs, threshold=0.0, allowed=None):
  """Returns the logits after `inputs`, `[length, vocab]`."""
  # Always of one size, so that it is compiled once: padded with what never happens.
  more = 64 - proposals.scores.shape[1]
  wide = [
    jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2), constant_values=filler)
    for x, filler in zip(proposals, FILLERS, strict=True)
  ]
  tokens = jnp.pad(jnp.asarray(inputs, jnp.int32), (0, 256 - len(inputs)))[None]
  return np.asarray(_copied(Proposals(*wide), tokens, allowed, threshold))[0, : len(inputs)]


@functools.partial(jax.jit, static_argnums=3)
def _copied(proposals, tokens, allowed, threshold):
  status = running_status(tokens, IDS[:4])
  said = jax.lax.cummax(token_decoder.says(IDS, proposals, tokens, status).astype(jnp.int8), axis=1) > 0
  return token_decoder.copied_logits(IDS, proposals, tokens, status, said, SIZES['vocab_size'], threshold, allowed)


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
  table = as_notes(
    [
      (on / 32, (on + length) / 32, pitch, 100, 0 if drum else program, drum)
      for on, length, pitch, program, drum in rows
    ]
  )
  table = trim_overlapping_notes(table)
  # One event of a pitch a state, and nothing again within a state: unisons are proposed once.
  seen, kept = set(), []
  for note in np.sort(table, order=['is_drum', 'pitch', 'onset']):
    moments = {
      (round(note[name] * 32) + d, note['pitch'], note['is_drum']) for name in ('onset', 'offset') for d in (-1, 0, 1)
    }
    if not moments & seen:
      kept.append(note)
      seen |= moments
  piece = segment_targets.encode_piece(np.array(kept), CODEC, rounded_order=True)
  targets = segment_targets.segment_targets(piece, 2 * start, 2 * STATES, frames_per_second=64, codec=CODEC)
  inside = (piece.step >= start) & (piece.step < start + STATES)
  events = [
    (step - start, DRUM if drum else (ON if velocity else OFF), pitch, 0 if drum else int(class_index(program)))
    for step, program, velocity, pitch, drum in zip(
      *(getattr(piece, name)[inside].tolist() for name in ('step', 'program', 'velocity_bin', 'pitch', 'is_drum')),
      strict=True,
    )
  ]
  events += [
    (0, TIE, int(note['pitch']), int(class_index(note['program'])))
    for note in kept
    if not note['is_drum'] and round(note['onset'] * 32) < start <= round(note['offset'] * 32)
  ]
  logits = copied(proposals_of(events or [(70, ON, 1, 0)]), np.concatenate([[0], targets[:-1]]))
  if not events:
    assert targets.tolist() == [tok('tie'), EOS] and logits[1, tok('time', 70)] > -0.1  # which is proposed instead
    return
  np.testing.assert_array_equal(logits.argmax(axis=-1), targets)
  assert (logits.max(axis=-1) > -0.1).all()
  assert (np.sort(logits, axis=-1)[:, -2] < -3).all()


def test_chances_of_what_is_next():
  """The first is heard with 0.5, the second, later, with 0.8: that, or neither, is what remains."""
  proposals = proposals_of([(3, ON, 60, 0), (5, ON, 62, 4)])
  proposals = proposals._replace(scores=jnp.log(jnp.array([[1.0, 4.0]])))
  chance = np.exp(copied(proposals, [0, tok('tie')])[1])
  np.testing.assert_allclose(chance[[tok('time', 3), tok('time', 5), EOS]], [0.5, 0.4, 0.1], atol=6e-3)


@pytest.mark.parametrize('apart', [0, 2])
def test_with_a_threshold_each_event_is_judged_alone(apart):
  """Many unlikely ones together are likelier than nothing; none of them is said, and what is likely enough is, wherever it comes."""
  scores = np.log([[0.24 / 0.76] * 12 + [0.3 / 0.7] + [0.24 / 0.76]])
  proposals = proposals_of([(2 + apart * k, ON, 60 + k, 0) for k in range(12)] + [(40, ON, 60, 0), (44, ON, 60, 0)])
  proposals = proposals._replace(scores=jnp.asarray(scores, jnp.float32))
  said = [0, tok('tie')]
  assert copied(proposals, said)[1].argmax() == tok('time', 2)
  said += [tok('time', 40), tok('program', 0), tok('velocity', 1), tok('pitch', 60)]
  logits = copied(proposals, said, threshold=0.25)
  np.testing.assert_array_equal(logits[1:].argmax(axis=-1), [*said[2:], EOS])
  assert copied(proposals, said, threshold=0.2)[-1].argmax() == tok('time', 44)
  # What has begun is completed.
  assert copied(proposals, [0, tok('tie'), tok('time', 44)], threshold=0.25)[-1].argmax() == tok('program', 0)


def test_whether_the_program_that_holds_goes_on_says_the_reader():
  proposals = proposals_of([(3, ON, 60, 0)])
  proposals = proposals._replace(classes=jnp.zeros((1, 1, NUM_CLASSES)).at[0, 0, :2].set(jnp.array([0.75, 0.25])))
  said = [0, tok('tie'), tok('time', 3)]
  first, second = tok('program', CLASS_PROGRAMS[0]), tok('program', CLASS_PROGRAMS[1])
  np.testing.assert_allclose(np.exp(copied(proposals, said)[2])[[first, second]], [0.75, 0.25], atol=1e-2)
  chances = np.exp(copied(proposals, [0, first, tok('tie'), tok('time', 3)])[3])
  np.testing.assert_allclose(chances[[tok('velocity', 1), second]], [0.75, 0.25], atol=1e-2)


def test_what_is_begun_is_completed():
  """After a shift something of that time comes, however unlikely; after a program something of it."""
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 4), (5, ON, 62, 4)])
  proposals = proposals._replace(scores=jnp.array([[-3.0, -3.0, 9.0]]))
  said = [0, tok('tie'), tok('time', 3), tok('program', CLASS_PROGRAMS[4]), tok('velocity', 1)]
  chances = np.exp(copied(proposals, said))
  assert chances[1, tok('time', 5)] > 0.8
  after_shift = chances[2, [tok('program', 0), tok('program', CLASS_PROGRAMS[4])]]
  assert after_shift.sum() == pytest.approx(1, abs=2e-2) and after_shift[0] > after_shift[1] > 0.4
  assert chances[3, tok('velocity', 1)] == pytest.approx(1, abs=2e-2)
  assert chances[4, tok('pitch', 64)] == pytest.approx(1, abs=2e-2)
  assert chances[2:, EOS] == pytest.approx(0, abs=1e-4)


def test_what_has_been_said_is_not_said_again_nor_a_state_beside():
  proposals = proposals_of([(3, ON, 60, 0), (5, ON, 60, 0)])
  said = [0, tok('tie'), tok('time', 4), tok('program', 0), tok('velocity', 1), tok('pitch', 60)]
  logits = copied(proposals, said)
  assert logits[-1].argmax() == EOS  # both count as that one
  # Another instrument may still play the same; here and there it is as likely as `again` says.
  again = 1 / (1 + np.exp(5))
  assert np.exp(logits[-1, EOS]) == pytest.approx(1 - again, abs=2e-2)
  assert np.exp(logits[-1, tok('time', 5)]) == pytest.approx(again, abs=2e-4)
  status = running_status(jnp.array([said]), IDS[:4])
  says = np.asarray(token_decoder.says(IDS, proposals, jnp.array([said]), status))[0]
  assert says[-1].all() and not says[:-1].any()
  logits = copied(proposals, [*said[:2], tok('time', 3), *said[3:]])
  assert logits[-1].argmax() == tok('time', 5)


def test_what_is_tied_has_not_ended():
  proposals = proposals_of([(0, OFF, 60, 0), (0, TIE, 60, 0)])
  said = [0, tok('program', 0), tok('pitch', 60), tok('tie'), tok('velocity', 0), tok('pitch', 60)]
  np.testing.assert_array_equal(copied(proposals, said).argmax(axis=-1), [*said[1:], EOS])  # of the program that holds


def test_two_instruments_may_hold_a_pitch():
  proposals = proposals_of([(0, TIE, 60, 0), (0, TIE, 60, 9), (0, TIE, 62, 9)])
  programs = [tok('program', CLASS_PROGRAMS[k]) for k in (0, 9)]
  said = [0, programs[0], tok('pitch', 60), programs[1], tok('pitch', 60), tok('pitch', 62), tok('tie')]
  np.testing.assert_array_equal(copied(proposals, said, threshold=0.25).argmax(axis=-1), [*said[1:], EOS])


def test_one_that_comes_before_what_was_said_is_unlikely():
  """Two of one moment; the second was said first, so the first was most likely no note."""
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 0)])
  proposals = proposals._replace(scores=jnp.zeros((1, 2)))
  said = [0, tok('tie'), tok('time', 3), tok('program', 0), tok('velocity', 1), tok('pitch', 64)]
  chance = np.exp(copied(proposals, said)[-1])
  assert chance[tok('pitch', 60)] == pytest.approx(1 / (1 + np.exp(3)), abs=1e-3)


@pytest.mark.parametrize('changes', [{'proposals': 0}, {'copied_tokens': IDS[:5]}, {'copied_tokens': IDS[::-1]}])
def test_a_network_that_cannot_copy_is_named(changes):
  assert T5Config(**SIZES, **COPYING).remembers
  for name, values in (
    ('copy_threshold', (1, -0.1, 0.001, float('nan'), 'x')),
    ('instrument_memory', (-1, float('inf'), '1')),
  ):
    for value in values:
      with pytest.raises(UserError, match=f'{name} is'):
        T5Config(**SIZES, **COPYING, **{name: value})
    with pytest.raises(UserError, match=f'{name} is given, but no copied_tokens'):
      T5Config(**SIZES, **{name: 0.5})
  with pytest.raises(UserError, match='copied_tokens are those of times'):
    T5Config(**{**SIZES, **COPYING, **changes})
  for more, message in (
    ({'memory_length': 2}, 'memory_length is 2'),
    ({'memory_segments': 2}, 'memory_segments 2'),
    ({'running_status': ((3, 4),)}, 'with copied_tokens there is none'),
  ):
    with pytest.raises(UserError, match=message):
      T5Config(**SIZES, **COPYING, **more)


def test_a_model_whose_tokens_or_states_are_others_is_named():
  config = T5Config(**SIZES, **COPYING, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2)
  mels, words = (
    SpectrogramConfig(hop_width=250, num_mel_bins=16),
    VocabularyConfig(steps_per_second=32, num_velocity_bins=1),
  )
  ModelSpec(config, mels, words, segment_frames=8, targets_length=16)
  moved = dataclasses.replace(config, copied_tokens=(IDS.tie, *IDS[1:]))
  with pytest.raises(UserError, match=r'copied_tokens are .*; the vocabulary has'):
    ModelSpec(moved, mels, words, segment_frames=8, targets_length=16)
  with pytest.raises(UserError, match=r'31\.25 states a second and 32 steps'):
    ModelSpec(config, dataclasses.replace(mels, hop_width=256), words, segment_frames=8, targets_length=16)
  with pytest.raises(UserError, match='need ties'):
    ModelSpec(config, mels, words, segment_frames=8, targets_length=16, ties=False)


def test_only_what_may_be_said_is_copied():
  """A note that is a piano's with 0.9 and a bass's with 0.1, a drum, and a bass's note, where only basses may play."""
  choice = InstrumentChoice.parse('bass')
  allowed = jnp.asarray(choice.allowed_tokens(CODEC, SIZES['vocab_size']))
  piano, bass = 0, int(class_index(33))
  proposals = proposals_of([(3, ON, 60, piano), (4, DRUM, 38, 0), (5, ON, 40, bass)])
  proposals = proposals._replace(classes=proposals.classes.at[0, 0, bass].set(0.1).at[0, 0, piano].set(0.9))
  said = [0, tok('tie')]
  chances = np.exp(copied(proposals, said, allowed=allowed)[1])
  np.testing.assert_allclose(chances[[tok('time', k) for k in (3, 4, 5)]], [0.1, 0.0, 0.9], atol=1e-2)
  said = [0, tok('tie'), tok('time', 5), tok('program', 33), tok('velocity', 1), tok('pitch', 40)]
  logits = copied(proposals, said[:-1], 0.25, allowed)
  np.testing.assert_array_equal(logits[1:].argmax(axis=-1), said[2:])
  everything = jnp.ones(SIZES['vocab_size'], bool)
  np.testing.assert_allclose(copied(proposals, said, allowed=everything), copied(proposals, said), atol=0.05)


@pytest.mark.parametrize('after', [['time'], ['time', 'program'], ['time', 'program', 'velocity']])
def test_chances_add_up(after):
  rng = np.random.default_rng(0)
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 4), (3, OFF, 62, 4), (3, DRUM, 38, 0), (5, ON, 62, 4)])
  classes = jax.nn.softmax(jnp.asarray(rng.normal(0, 3, (1, 5, NUM_CLASSES))))
  proposals = proposals._replace(scores=jnp.asarray(rng.normal(0, 1, (1, 5))), classes=classes)
  token = {'time': tok('time', 3), 'program': tok('program', 24), 'velocity': tok('velocity', 1)}
  for threshold in (0.0, 0.25):
    logits = copied(proposals, [0, tok('tie'), *(token[kind] for kind in after)], threshold)
    np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1.0, atol=1e-3)


def test_the_rest_of_a_chord_is_said_whatever_class_the_first_note_is_given():
  """The reader sorts the first note before the second; it has been given another class, one that comes later."""
  proposals = proposals_of([(3, ON, 60, 0), (3, ON, 64, 5)])
  proposals = proposals._replace(
    classes=proposals.classes.at[0, 0, 0].set(0.55).at[0, 0, 9].set(0.45), scores=jnp.full((1, 2), 1.5)
  )
  said = [0, tok('tie'), tok('time', 3), tok('program', CLASS_PROGRAMS[9]), tok('velocity', 1), tok('pitch', 60)]
  chances = np.exp(copied(proposals, said)[-1])
  assert chances[tok('program', CLASS_PROGRAMS[5])] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=2e-2)


def a_network(dtype='float32', **more):
  """Returns a module that copies, with the harmonic front, its parameters, and a batch."""
  config = T5Config(
    **SIZES, **COPYING, dtype=dtype, front='harmonic', front_channels=(2, 2, 2, 2), front_time_stride=2, **more
  )
  frames, tokens = (
    jax.random.normal(jax.random.key(1), (2, 16, 16)),
    jnp.tile(jnp.array([0, tok('tie'), tok('time', 3)]), (2, 1)),
  )
  module = network.Transformer(config)
  params = module.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)['params']
  assert set(params) == {'encoder', 'note_reader'} and 'time' not in params['note_reader']  # nobody is shown proposals
  return module, params, frames, tokens


def test_what_is_copied_is_what_the_reader_proposes():
  module, params, frames, tokens = a_network()

  def both(network_):
    states, notes = network_.encoder.with_notes(frames, None, True)
    reader = network_.note_reader
    held = batched_parsing.held(tokens, IDS)
    ties, events = reader.ties(states, notes, held), reader.propose(states, 6, notes)
    return network_.encode(frames, enable_dropout=False, prior_tokens=tokens), ties, events

  encoded, ties, proposals = module.apply({'params': params}, method=both)
  assert encoded.shape == (2, MOST_TIES + 6, token_decoder.WIDTH) and encoded.dtype == jnp.float32
  for ours, *theirs in zip(token_decoder.of_rows(encoded), ties, proposals, strict=True):
    np.testing.assert_allclose(ours, jnp.concatenate(theirs, axis=1), atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('certainty', [-30.0, 0.0, 30.0])
def test_gradients_are_finite_however_certain_the_reader(dtype, certainty):
  module, params, frames, tokens = a_network(dtype, instrument_memory=1.0)
  params['note_reader']['events_bias'] = jnp.full_like(params['note_reader']['events_bias'], certainty)

  def loss(params):
    logits = module.apply({'params': params}, frames, tokens, tokens, enable_dropout=False, prior_tokens=tokens)
    return -jax.nn.log_softmax(logits)[:, :, tok('program', 5)].sum()

  slopes = jax.jit(jax.grad(loss))(params)
  assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(slopes))
  assert float(jnp.abs(slopes['note_reader']['class_of']['kernel']).max()) > 0 or certainty


def test_a_perfect_reader_s_events_are_the_best_beam():
  """However many tokens they take: what is certain costs next to nothing."""
  proposals = proposals_of([(k, ON, 60, 3) for k in range(1, 60, 2)])
  said = [0, tok('tie'), tok('time', 1), tok('program', CLASS_PROGRAMS[3]), tok('velocity', 1), tok('pitch', 60)]
  for k in range(3, 60, 2):
    said += [tok('time', k), tok('pitch', 60)]
  likely = jax.nn.log_softmax(copied(proposals, said))
  costs = -np.take_along_axis(np.asarray(likely)[1:], np.array([*said[2:], EOS])[:, None], axis=1)
  assert costs.max() < 0.02


def test_position_after_position_is_as_all_at_once_but_for_the_threshold():
  config = T5Config(**SIZES, **COPYING, copy_threshold=0.25)
  proposals = proposals_of([(k, ON, 60, 3) for k in range(2, 8)])._replace(
    scores=jnp.array([[-2.0, -2.0, -0.8, -2.0, 0.3, -2.0]])
  )
  rows = token_decoder.as_rows(proposals)
  tokens = jnp.array([[0, tok('tie'), tok('time', 4), tok('program', 16), tok('velocity', 1), tok('pitch', 60)]])
  for threshold in (0.0, 0.25):
    module = network.Transformer(config.replace(copy_threshold=threshold))
    options = {'enable_dropout': False, 'method': network.Transformer.decode}
    forced = module.apply({}, rows, None, tokens, **options)
    _, cache = module.apply({}, rows, None, tokens, decode=True, mutable=['cache'], **options)
    ours = token_decoder.init_cache(rows)
    for place in range(tokens.shape[1]):
      now = tokens[:, place : place + 1]
      logits, cache = module.apply(cache, rows, None, now, decode=True, mutable=['cache'], **options)
      fast, ours = token_decoder.step(module.config, now[:, 0], ours)
      np.testing.assert_allclose(fast, logits[:, 0], atol=1e-5)
      if not threshold:
        np.testing.assert_allclose(fast, forced[:, place], atol=1e-5)
      elif place == 1:
        assert fast[0].argmax() == tok('time', 4) and np.abs(fast[0] - forced[0, place]).max() > 1


class CopyingModel(ContinuousInputsEncoderDecoderModel):
  """A model whose network is told the prior tokens of the batch."""

  def call_keywords(self, batch):
    return {'prior_tokens': batch['prior_tokens']}


def test_beams_are_scored_as_teacher_forcing_scores_them():
  """What has been said goes with a hypothesis wherever the search moves it."""
  config = T5Config(**SIZES, **COPYING)
  inputs = jax.random.normal(jax.random.key(1), (2, 16, 16))
  module, empty = network.Transformer(config), jnp.zeros((2, 14), jnp.int32)
  params = module.init(jax.random.key(0), inputs, empty, empty, enable_dropout=False, prior_tokens=empty)['params']
  params['note_reader']['events_bias'] += 3.0
  model = CopyingModel(module, decode_fn=decoding.beam_search, input_depth=16)
  batch = {'encoder_input_tokens': inputs, 'decoder_input_tokens': empty, 'prior_tokens': empty}
  options = dict(decoder_params={'alpha': 0.0}, num_decodes=4, return_all_decodes=True)
  beams, aux = jax.jit(functools.partial(model.predict_batch_with_aux, **options))(params, batch)
  assert (beams > 0).sum() > 40 and len(np.unique(beams.reshape(8, -1), axis=0)) == 8
  for beam in range(4):
    tokens = beams[:, beam]
    shifted = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
    logits = module.apply({'params': params}, inputs, shifted, tokens, enable_dropout=False, prior_tokens=empty)
    likely = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose((likely * (tokens > 0)).sum(axis=1), aux['scores'][:, beam], rtol=1e-4)


@pytest.mark.parametrize('hop', [1, 2, 3])
def test_a_transcriber_copies_only_the_instruments_that_are_asked_for(hop):
  config = T5Config(
    **SIZES, **COPYING, front='harmonic', front_channels=(1, 1, 1, 1), front_time_stride=2, copy_threshold=0.02
  )
  words = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
  spec = ModelSpec(
    config, SpectrogramConfig(hop_width=250, num_mel_bins=16), words, segment_frames=64, targets_length=128
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), network.parameter_shapes(config, 16))
  params['note_reader']['events_bias'] += 2.0
  params['note_reader']['sounds_bias'] += 2.0
  params['note_reader']['class_of']['kernel'] *= 0.1  # so that basses have a share of every note
  transcriber, audio = Transcriber(params, spec), rng.normal(0, 0.1, 40000).astype(np.float32)
  everything, basses = (
    transcriber.transcribe(audio, hop=hop),
    transcriber.transcribe(audio, hop=hop, instruments='bass'),
  )
  assert len(everything.notes) and set(everything.notes['program']) - set(range(32, 40))
  assert len(basses.notes) and set(basses.notes['program']) <= set(range(32, 40)) and not basses.notes['is_drum'].any()
  for segment in (*everything.segments, *basses.segments):
    assert segment.tokens[-1] == EOS  # nothing is said for ever
  # Nothing goes on in a piece's first segment.
  assert everything.segments[0].tokens[0] == basses.segments[0].tokens[0] == tok('tie')
  if hop > 1:
    assert any(segment.tokens[0] != tok('tie') for segment in basses.segments[1:])


def test_a_tie_that_may_be_of_several_classes_is_said_once():
  proposals = proposals_of([(0, TIE, 60, 0)])
  proposals = proposals._replace(classes=proposals.classes.at[0, 0, 0].set(0.6).at[0, 0, int(class_index(33))].set(0.4))
  allowed = jnp.asarray(InstrumentChoice.parse('bass').allowed_tokens(CODEC, SIZES['vocab_size']))
  said = [0, tok('program', 33), tok('pitch', 60), tok('tie')]
  np.testing.assert_array_equal(copied(proposals, said, 0.2, allowed).argmax(axis=-1), [*said[1:], EOS])


def test_proposals_travel_as_rows():
  proposals = proposals_of([(3, ON, 60, 0), (255, DRUM, 127, 0), (5, OFF, 60, 33), (0, TIE, 5, 33)])
  for ours, theirs in zip(token_decoder.of_rows(token_decoder.as_rows(proposals)), proposals, strict=True):
    np.testing.assert_array_equal(ours, theirs)
