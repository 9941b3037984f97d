"""The copy mechanism: certain candidates become whole targets, and no event is emitted twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.framewise import FramewiseConfig, token_decoder
from mrmt3.framewise.candidates import DRUM, OFF, ON, TIE, NoteCandidates, in_token_order
from mrmt3.framewise.token_decoder import CandidateDecoder
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.tokens import segment_targets
from mrmt3.tokens.event_state import event_state
from mrmt3.tokens.token_ids import token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(steps_per_second=32, num_velocity_bins=1))
IDS = token_ids(CODEC)
VOCAB_SIZE = 896
FRAMES, EOS = 64, 1
FILLERS = (255, ON, 0, -99.0, 0.0)


def candidates_of(events):
  """Return events (frame, group, pitch, class) as certain candidates in token order, a batch of one."""
  frames, groups, pitches, classes = np.array(events).T  # drums' classes are 0
  shares = np.eye(NUM_CLASSES, dtype=np.float32)[classes] * (groups != DRUM)[:, None]
  numbers = (frames, groups, pitches, np.full(len(frames), 9.0, np.float32), shares)
  return in_token_order(NoteCandidates(*(jnp.asarray(x)[None] for x in numbers)))


def logits_of(candidates, inputs, threshold=0.0, allowed=None):
  """Return the logits after `inputs`, `[length, vocab]`."""
  # Always of one size, so that it is compiled once: padded with candidates that are impossible.
  more = 64 - candidates.scores.shape[1]
  wide = [
    jnp.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2), constant_values=filler)
    for x, filler in zip(candidates, FILLERS, strict=True)
  ]
  tokens = jnp.pad(jnp.asarray(inputs, jnp.int32), (0, 256 - len(inputs)))[None]
  return np.asarray(_logits(NoteCandidates(*wide), tokens, allowed, threshold))[0, : len(inputs)]


@functools.partial(jax.jit, static_argnums=3)
def _logits(candidates, tokens, allowed, threshold):
  state = event_state(tokens, IDS.state)
  emitted = jax.lax.cummax(token_decoder.completes(IDS, candidates, tokens, state).astype(jnp.int8), axis=1) > 0
  return token_decoder.candidate_logits(IDS, candidates, tokens, state, emitted, VOCAB_SIZE, threshold, allowed)


def tok(kind, value=0):
  """Return a token's model id."""
  return getattr(IDS, kind)[0] + value


notes = st.tuples(
  st.integers(0, 80), st.integers(1, 40), st.integers(30, 90), st.sampled_from(list(CLASS_PROGRAMS)), st.booleans()
)


@settings(deadline=None, max_examples=25)
@given(st.lists(notes, min_size=1, max_size=25), st.sampled_from([0, 25]))
def test_certain_candidates_give_the_targets_token_by_token(rows, start):
  """Ty, chords, several instruments and drums; unisons are left out."""
  table = as_notes(
    [
      (on / 32, (on + length) / 32, pitch, 100, 0 if drum else program, drum)
      for on, length, pitch, program, drum in rows
    ]
  )
  table = trim_overlapping_notes(table)
  # One event of a pitch in any three encoder frames: unisons are a single candidate.
  seen, kept = set(), []
  for note in np.sort(table, order=['is_drum', 'pitch', 'onset']):
    times = {
      (round(note[name] * 32) + d, note['pitch'], note['is_drum']) for name in ('onset', 'offset') for d in (-1, 0, 1)
    }
    if not times & seen:
      kept.append(note)
      seen |= times
  piece = segment_targets.encode_piece(np.array(kept), CODEC, rounded_order=True)
  targets = segment_targets.segment_targets(piece, 2 * start, 2 * FRAMES, frames_per_second=64, codec=CODEC)
  inside = (piece.step >= start) & (piece.step < start + FRAMES)
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
  logits = logits_of(candidates_of(events or [(70, ON, 1, 0)]), np.concatenate([[0], targets[:-1]]))
  if not events:
    assert targets.tolist() == [tok('tie'), EOS] and logits[1, tok('time', 70)] > -0.1  # the candidate given instead
    return
  np.testing.assert_array_equal(logits.argmax(axis=-1), targets)
  assert (logits.max(axis=-1) > -0.1).all()
  assert (np.sort(logits, axis=-1)[:, -2] < -3).all()


def test_the_next_event_is_the_first_that_is_real():
  """The first of two has probability 0.5, the second, later, 0.8; that neither is real is what remains."""
  candidates = candidates_of([(3, ON, 60, 0), (5, ON, 62, 4)])
  candidates = candidates._replace(scores=jnp.log(jnp.array([[1.0, 4.0]])))
  probability = np.exp(logits_of(candidates, [0, tok('tie')])[1])
  np.testing.assert_allclose(probability[[tok('time', 3), tok('time', 5), EOS]], [0.5, 0.4, 0.1], atol=6e-3)


@pytest.mark.parametrize('apart', [0, 2])
def test_a_threshold_judges_each_candidate_alone(apart):
  """Many unlikely candidates together are likelier than none; none is emitted, and one above the threshold is."""
  scores = np.log([[0.24 / 0.76] * 12 + [0.3 / 0.7] + [0.24 / 0.76]])
  candidates = candidates_of([(2 + apart * k, ON, 60 + k, 0) for k in range(12)] + [(40, ON, 60, 0), (44, ON, 60, 0)])
  candidates = candidates._replace(scores=jnp.asarray(scores, jnp.float32))
  tokens = [0, tok('tie')]
  assert logits_of(candidates, tokens)[1].argmax() == tok('time', 2)
  tokens += [tok('time', 40), tok('program', 0), tok('velocity', 1), tok('pitch', 60)]
  logits = logits_of(candidates, tokens, threshold=0.25)
  np.testing.assert_array_equal(logits[1:].argmax(axis=-1), [*tokens[2:], EOS])
  assert logits_of(candidates, tokens, threshold=0.2)[-1].argmax() == tok('time', 44)
  # An event that has begun is completed.
  assert logits_of(candidates, [0, tok('tie'), tok('time', 44)], threshold=0.25)[-1].argmax() == tok('program', 0)


def test_class_probabilities_decide_whether_the_program_changes():
  candidates = candidates_of([(3, ON, 60, 0)])
  candidates = candidates._replace(classes=jnp.zeros((1, 1, NUM_CLASSES)).at[0, 0, :2].set(jnp.array([0.75, 0.25])))
  first, second = tok('program', CLASS_PROGRAMS[0]), tok('program', CLASS_PROGRAMS[1])
  probability = np.exp(logits_of(candidates, [0, tok('tie'), tok('time', 3)])[2])
  np.testing.assert_allclose(probability[[first, second]], [0.75, 0.25], atol=1e-2)
  probability = np.exp(logits_of(candidates, [0, first, tok('tie'), tok('time', 3)])[3])
  np.testing.assert_allclose(probability[[tok('velocity', 1), second]], [0.75, 0.25], atol=1e-2)


def test_an_event_that_has_begun_is_completed():
  """After a time an event of that time follows, however unlikely; after a program one of that program."""
  candidates = candidates_of([(3, ON, 60, 0), (3, ON, 64, 4), (5, ON, 62, 4)])
  candidates = candidates._replace(scores=jnp.array([[-3.0, -3.0, 9.0]]))
  tokens = [0, tok('tie'), tok('time', 3), tok('program', CLASS_PROGRAMS[4]), tok('velocity', 1)]
  probability = np.exp(logits_of(candidates, tokens))
  assert probability[1, tok('time', 5)] > 0.8
  after_time = probability[2, [tok('program', 0), tok('program', CLASS_PROGRAMS[4])]]
  assert after_time.sum() == pytest.approx(1, abs=2e-2) and after_time[0] > after_time[1] > 0.4
  assert probability[3, tok('velocity', 1)] == pytest.approx(1, abs=2e-2)
  assert probability[4, tok('pitch', 64)] == pytest.approx(1, abs=2e-2)
  assert probability[2:, EOS] == pytest.approx(0, abs=1e-4)


def test_an_event_is_not_emitted_again_nor_a_frame_away():
  candidates = candidates_of([(3, ON, 60, 0), (5, ON, 60, 0)])
  tokens = [0, tok('tie'), tok('time', 4), tok('program', 0), tok('velocity', 1), tok('pitch', 60)]
  logits = logits_of(candidates, tokens)
  assert logits[-1].argmax() == EOS  # both candidates count as that event
  # Another instrument may still play the same pitch, but that is unlikely.
  again = 1 / (1 + np.exp(5))
  assert np.exp(logits[-1, EOS]) == pytest.approx(1 - again, abs=2e-2)
  assert np.exp(logits[-1, tok('time', 5)]) == pytest.approx(again, abs=2e-4)
  state = event_state(jnp.array([tokens]), IDS.state)
  completed = np.asarray(token_decoder.completes(IDS, candidates, jnp.array([tokens]), state))[0]
  assert completed[-1].all() and not completed[:-1].any()
  logits = logits_of(candidates, [*tokens[:2], tok('time', 3), *tokens[3:]])
  assert logits[-1].argmax() == tok('time', 5)


def test_a_tied_note_may_end_at_the_first_frame():
  candidates = candidates_of([(0, OFF, 60, 0), (0, TIE, 60, 0)])
  # The offset takes the program of the tie section.
  tokens = [0, tok('program', 0), tok('pitch', 60), tok('tie'), tok('velocity', 0), tok('pitch', 60)]
  np.testing.assert_array_equal(logits_of(candidates, tokens).argmax(axis=-1), [*tokens[1:], EOS])


def test_two_instruments_may_hold_a_pitch():
  candidates = candidates_of([(0, TIE, 60, 0), (0, TIE, 60, 9), (0, TIE, 62, 9)])
  programs = [tok('program', CLASS_PROGRAMS[k]) for k in (0, 9)]
  tokens = [0, programs[0], tok('pitch', 60), programs[1], tok('pitch', 60), tok('pitch', 62), tok('tie')]
  np.testing.assert_array_equal(logits_of(candidates, tokens, threshold=0.25).argmax(axis=-1), [*tokens[1:], EOS])


def test_a_candidate_before_the_last_emitted_one_is_unlikely():
  """Two onsets of one frame; the second was emitted first, so the first was most likely not real."""
  candidates = candidates_of([(3, ON, 60, 0), (3, ON, 64, 0)])
  candidates = candidates._replace(scores=jnp.zeros((1, 2)))
  tokens = [0, tok('tie'), tok('time', 3), tok('program', 0), tok('velocity', 1), tok('pitch', 64)]
  probability = np.exp(logits_of(candidates, tokens)[-1])
  assert probability[tok('pitch', 60)] == pytest.approx(1 / (1 + np.exp(3)), abs=1e-3)


def test_only_allowed_tokens_are_copied():
  """A note that is a piano's with 0.9 and a bass's with 0.1, a drum, and a bass's note, where only basses may play."""
  allowed = jnp.asarray(InstrumentChoice.parse('bass').allowed_tokens(CODEC, VOCAB_SIZE))
  piano, bass = 0, int(class_index(33))
  candidates = candidates_of([(3, ON, 60, piano), (4, DRUM, 38, 0), (5, ON, 40, bass)])
  candidates = candidates._replace(classes=candidates.classes.at[0, 0, bass].set(0.1).at[0, 0, piano].set(0.9))
  probability = np.exp(logits_of(candidates, [0, tok('tie')], allowed=allowed)[1])
  np.testing.assert_allclose(probability[[tok('time', k) for k in (3, 4, 5)]], [0.1, 0.0, 0.9], atol=1e-2)
  tokens = [0, tok('tie'), tok('time', 5), tok('program', 33), tok('velocity', 1), tok('pitch', 40)]
  logits = logits_of(candidates, tokens[:-1], 0.25, allowed)
  np.testing.assert_array_equal(logits[1:].argmax(axis=-1), tokens[2:])
  everything = jnp.ones(VOCAB_SIZE, bool)
  np.testing.assert_allclose(
    logits_of(candidates, tokens, allowed=everything), logits_of(candidates, tokens), atol=0.05
  )


def test_a_tie_of_several_possible_classes_is_emitted_once():
  candidates = candidates_of([(0, TIE, 60, 0)])
  classes = candidates.classes.at[0, 0, 0].set(0.6).at[0, 0, int(class_index(33))].set(0.4)
  allowed = jnp.asarray(InstrumentChoice.parse('bass').allowed_tokens(CODEC, VOCAB_SIZE))
  tokens = [0, tok('program', 33), tok('pitch', 60), tok('tie')]
  logits = logits_of(candidates._replace(classes=classes), tokens, 0.2, allowed)
  np.testing.assert_array_equal(logits.argmax(axis=-1), [*tokens[1:], EOS])


@pytest.mark.parametrize('after', [['time'], ['time', 'program'], ['time', 'program', 'velocity']])
def test_probabilities_add_up(after):
  rng = np.random.default_rng(0)
  candidates = candidates_of([(3, ON, 60, 0), (3, ON, 64, 4), (3, OFF, 62, 4), (3, DRUM, 38, 0), (5, ON, 62, 4)])
  classes = jax.nn.softmax(jnp.asarray(rng.normal(0, 3, (1, 5, NUM_CLASSES))))
  candidates = candidates._replace(scores=jnp.asarray(rng.normal(0, 1, (1, 5))), classes=classes)
  token = {'time': tok('time', 3), 'program': tok('program', 24), 'velocity': tok('velocity', 1)}
  for threshold in (0.0, 0.25):
    logits = logits_of(candidates, [0, tok('tie'), *(token[kind] for kind in after)], threshold)
    np.testing.assert_allclose(np.exp(logits).sum(axis=-1), 1.0, atol=1e-3)


def test_a_chord_is_completed_whatever_class_its_first_note_was_given():
  """Candidates put the first note before the second; it was emitted with another class, one that comes later."""
  candidates = candidates_of([(3, ON, 60, 0), (3, ON, 64, 5)])
  candidates = candidates._replace(
    classes=candidates.classes.at[0, 0, 0].set(0.55).at[0, 0, 9].set(0.45), scores=jnp.full((1, 2), 1.5)
  )
  tokens = [0, tok('tie'), tok('time', 3), tok('program', CLASS_PROGRAMS[9]), tok('velocity', 1), tok('pitch', 60)]
  probability = np.exp(logits_of(candidates, tokens)[-1])
  assert probability[tok('program', CLASS_PROGRAMS[5])] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=2e-2)


def test_certain_events_cost_next_to_nothing():
  """However many tokens they take, so that they are the best beam."""
  candidates = candidates_of([(k, ON, 60, 3) for k in range(1, 60, 2)])
  tokens = [0, tok('tie'), tok('time', 1), tok('program', CLASS_PROGRAMS[3]), tok('velocity', 1), tok('pitch', 60)]
  for k in range(3, 60, 2):
    tokens += [tok('time', k), tok('pitch', 60)]
  likely = jax.nn.log_softmax(logits_of(candidates, tokens))
  costs = -np.take_along_axis(np.asarray(likely)[1:], np.array([*tokens[2:], EOS])[:, None], axis=1)
  assert costs.max() < 0.02


@pytest.mark.parametrize('threshold', [0.0, 0.25])
def test_step_by_step_equals_the_whole_sequence_except_for_the_threshold(threshold):
  candidates = candidates_of([(k, ON, 60, 3) for k in range(2, 8)])
  rows = token_decoder.as_rows(candidates._replace(scores=jnp.array([[-2.0, -2.0, -0.8, -2.0, 0.3, -2.0]])))
  tokens = jnp.array([[0, tok('tie'), tok('time', 4), tok('program', 16), tok('velocity', 1), tok('pitch', 60)]])
  whole = token_decoder.sequence_logits(IDS, rows, tokens, VOCAB_SIZE)
  decoder = CandidateDecoder(FramewiseConfig(vocab_size=VOCAB_SIZE, emission_threshold=threshold), IDS)
  cache, step = decoder.init_cache(None, rows, tokens.shape[1]), jax.jit(functools.partial(decoder.step, None))
  for position in range(tokens.shape[1]):
    logits, cache = step(tokens[:, position], position, cache)
    if not threshold:
      np.testing.assert_allclose(logits, whole[:, position], atol=1e-5)
    elif position == 1:
      # Most of the candidates before are below the threshold.
      assert logits[0].argmax() == tok('time', 4) and np.abs(logits[0] - whole[0, position]).max() > 1


def test_the_step_decoder_takes_allowed_tokens():
  candidates = candidates_of([(3, ON, 60, 0), (5, ON, 40, int(class_index(33)))])
  rows = token_decoder.as_rows(candidates)
  allowed = jnp.asarray(InstrumentChoice.parse('bass').allowed_tokens(CODEC, VOCAB_SIZE))
  decoder = CandidateDecoder(FramewiseConfig(vocab_size=VOCAB_SIZE), IDS)
  cache, chosen, step = decoder.init_cache(None, rows, 8, allowed), [0], jax.jit(functools.partial(decoder.step, None))
  for position in range(6):
    logits, cache = step(jnp.array(chosen[-1:]), position, cache)
    chosen.append(int(logits[0].argmax()))
  assert chosen[1:] == [tok('tie'), tok('time', 5), tok('program', 33), tok('velocity', 1), tok('pitch', 40), EOS]


def test_the_step_decoder_has_no_parameters_and_a_cache_of_one_size():
  decoder, params = CandidateDecoder(FramewiseConfig(vocab_size=VOCAB_SIZE), IDS), {'encoder': {}, 'note_reader': {}}
  assert decoder.pack(params) is None and decoder.encoder_params(params) == params
  rows = token_decoder.as_rows(candidates_of([(3, ON, 60, 0)]))
  cache = decoder.init_cache(None, rows, 8)
  assert decoder.cache_lengths(500) == [500] and decoder.grow(cache, 16) is cache
  assert hash(decoder) == hash(CandidateDecoder(FramewiseConfig(vocab_size=VOCAB_SIZE), IDS))


def test_candidates_come_back_from_rows():
  candidates = candidates_of([(3, ON, 60, 0), (255, DRUM, 127, 0), (5, OFF, 60, 33), (0, TIE, 5, 33)])
  rows = token_decoder.as_rows(candidates)
  assert rows.shape == (1, 4, token_decoder.WIDTH) and rows.dtype == jnp.float32
  for ours, theirs in zip(token_decoder.of_rows(rows), candidates, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_paired_offsets_end_the_notes_that_sound():
  """A piano's note, its offset detected as a bass's, and the offset of a pitch that does not sound."""
  bass = int(class_index(33))
  candidates = candidates_of([(2, ON, 60, 0), (5, OFF, 60, bass), (7, OFF, 64, bass), (9, DRUM, 38, 0)])
  rows, written = token_decoder.as_rows(candidates), {}
  for pair in (False, True):
    decoder = CandidateDecoder(FramewiseConfig(vocab_size=VOCAB_SIZE), IDS, pair_offsets=pair)
    cache, chosen = decoder.init_cache(None, rows, 32), [0]
    step = jax.jit(functools.partial(decoder.step, None))
    while chosen[-1] != EOS and len(chosen) < 32:
      logits, cache = step(jnp.array(chosen[-1:]), len(chosen) - 1, cache)
      chosen.append(int(logits[0].argmax()))
    written[pair] = chosen[1:]
  begin = [tok('tie'), tok('time', 2), tok('program', 0), tok('velocity', 1), tok('pitch', 60), tok('time', 5)]
  drum = [tok('time', 9), tok('velocity', 1), tok('drum', 38), EOS]
  assert written[True] == [*begin, tok('velocity', 0), tok('pitch', 60), *drum]
  assert tok('program', 33) in written[False] and tok('pitch', 64) in written[False]


def test_what_sounds_after_each_token():
  tokens = [tok('program', 33), tok('pitch', 40), tok('tie'), tok('time', 3), tok('program', 0), tok('velocity', 1)]
  tokens += [tok('pitch', 60), tok('drum', 40), tok('program', 33), tok('velocity', 0), tok('pitch', 40)]
  sounding, seen = jnp.zeros((1, NUM_CLASSES, 128), bool), []
  states = event_state(jnp.array([tokens]), IDS.state)
  for place, token in enumerate(tokens):
    sounding = token_decoder.next_sounding(IDS, sounding, jnp.array([token]), states[:, place])
    seen.append([(int(CLASS_PROGRAMS[row]), int(pitch)) for _, row, pitch in np.argwhere(np.asarray(sounding))])
  assert seen[0] == [] and seen[1] == seen[5] == [(33, 40)]
  assert seen[6] == seen[9] == [(0, 60), (33, 40)] and seen[10] == [(0, 60)]
