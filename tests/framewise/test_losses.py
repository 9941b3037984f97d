import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.framewise import losses
from mrmt3.framewise.note_heads import OFFSETS, FrameTargets
from mrmt3.network import T5Config
from mrmt3.notes.instruments import NUM_CLASSES, SLAKH_CLASSES
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens.segment_targets import encode_piece, segment_targets
from mrmt3.vocabularies import build_codec

SPEC = ModelSpec(
  T5Config(
    vocab_size=1536, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=1
  ),
  SpectrogramConfig(hop_width=256, num_mel_bins=16),
  segment_frames=128,
  targets_length=512,
)
CODEC = build_codec(SPEC.vocabulary)
PROGRAMS = sorted(SLAKH_CLASSES.values())
FRAMES_PER_SECOND = 62.5


def labels_of(rows, start_frame=0, spec=SPEC):
  """Returns the labels of the segment of a piece that starts at a frame, each `[frames, ...]`."""
  piece = encode_piece(as_notes(rows), CODEC)
  ids = segment_targets(piece, start_frame, 128, codec=CODEC, frames_per_second=SPEC.spectrogram.frame_rate)
  tokens = np.zeros((1, 512), np.int32)
  tokens[0, : len(ids)] = ids
  labels = jax.jit(losses.frame_labels, static_argnums=1)(tokens, spec)
  return jax.tree.map(lambda x: np.asarray(x[0]), labels)


def told_of(events, which):
  """Returns (state, kind, class) of those events, sorted."""
  return sorted(zip(events.states[which], events.kinds[which], events.classes[which], strict=True))


@pytest.mark.parametrize('stride', [1, 2])
def test_labels_of_a_chord_a_drum_and_a_tied_note(stride):
  start = 50 / FRAMES_PER_SECOND  # 0.8 s
  spec = SPEC
  if stride > 1:
    spec = dataclasses.replace(SPEC, network=SPEC.network.replace(front='harmonic', front_time_stride=stride))
  (onsets, drums, offsets, pitches, classes), found = labels_of(
    [
      (start - 0.3, start + 0.5, 40, 90, 33, 0),  # tied over from before
      (start + 0.16, start + 0.32, 60, 90, 0, 0),
      (start + 0.16, start + 5.00, 64, 90, 0, 0),  # goes on beyond the segment
      (start + 0.32, start + 0.34, 38, 90, 0, 1),
    ],
    start_frame=50,
    spec=spec,
  )
  piano, bass = PROGRAMS.index(0), PROGRAMS.index(33)
  last = 128 // stride - 1
  assert np.argwhere(onsets).tolist() == [[10 // stride, 60], [10 // stride, 64]]
  assert np.argwhere(drums).tolist() == [[20 // stride, 38]]
  assert np.argwhere(offsets).tolist() == [[20 // stride, 60], [31 // stride, 40]]
  assert told_of(found, found.begins) == [(10 // stride, 60, piano), (10 // stride, 64, piano)]
  assert told_of(found, found.ends) == [
    (20 // stride, OFFSETS.start + 60, piano),
    (31 // stride, OFFSETS.start + 40, bass),
  ]
  sounds = {
    pitch: (np.flatnonzero(pitches[:, pitch]).min(), np.flatnonzero(pitches[:, pitch]).max()) for pitch in (40, 60, 64)
  }
  ends = {1: (30, 19), 2: (14, 9)}[stride]  # off in frames 31 and 20
  assert sounds == {40: (0, ends[0]), 60: (10 // stride, ends[1]), 64: (10 // stride, last)}
  assert pitches.sum(axis=0)[[38]] == 0  # a drum has no pitch
  assert np.flatnonzero(classes[:, bass]).tolist() == list(range(ends[0] + 1))
  assert np.flatnonzero(classes[:, piano]).tolist() == list(range(10 // stride, last + 1))


notes = st.tuples(
  st.floats(0, 1.9),
  st.floats(0.05, 3),
  st.integers(0, 127),
  st.integers(1, 127),
  st.sampled_from(PROGRAMS),
  st.booleans(),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(notes, max_size=20))
def test_labels_agree_with_the_notes(drawn):
  rows = trim_overlapping_notes(
    as_notes(
      [
        (on, on + length, pitch, velocity, 0 if drum else program, drum)
        for on, length, pitch, velocity, program, drum in drawn
      ]
    )
  )
  (onsets, drums, _, pitches, _), found = labels_of(rows)
  expected_onsets, expected_drums, told = np.zeros((128, 128)), np.zeros((128, 128)), []
  for note in rows:
    first = min(127, round(round(note['onset'] * 100) / 100 * FRAMES_PER_SECOND))
    (expected_drums if note['is_drum'] else expected_onsets)[first, note['pitch']] = 1
    if not note['is_drum']:
      told.append((first, note['pitch'], PROGRAMS.index(note['program'])))
  np.testing.assert_array_equal(onsets, expected_onsets)
  np.testing.assert_array_equal(drums, expected_drums)
  assert told_of(found, found.begins) == sorted(told)
  # Sounding notes of several instruments may share a pitch; the count changes where each begins and ends.
  count = np.zeros((129, 128))
  for note in rows[~rows['is_drum']]:
    begin, end = round(note['onset'] * 100), round(note['offset'] * 100)
    if begin == end:
      continue
    count[min(127, round(begin / 100 * FRAMES_PER_SECOND)), note['pitch']] += 1
    if end < 204:  # the step that covers the end is the next segment's
      count[min(127, round(end / 100 * FRAMES_PER_SECOND)), note['pitch']] -= 1
  expected_pitches = np.clip(np.cumsum(count[:128], axis=0), 0, 1)
  np.testing.assert_array_equal(pitches, expected_pitches)


def test_a_perfect_prediction_costs_nothing_and_padding_means_silence():
  targets, events = losses.frame_labels(jnp.zeros((2, 8), jnp.int32), SPEC)
  assert all(float(x.sum()) == 0 for x in targets) and not events.begins.any() and not events.ends.any()
  logits = FrameTargets(*(x * 80 - 40 for x in targets))
  loss = losses.frame_loss(logits, jnp.zeros((2, 8, NUM_CLASSES)), targets, events)
  assert loss.shape == (2,)
  np.testing.assert_allclose(loss, 0, atol=1e-3)


def test_the_class_counts_where_an_event_is():
  targets, events = labels_of([(0.5, 0.9, 60, 90, 33, 0), (0.5, 0.9, 38, 90, 0, 1)])
  batch = lambda tree: jax.tree.map(lambda x: jnp.asarray(x)[None], tree)  # noqa: E731
  targets, events = batch(targets), batch(events)
  logits = FrameTargets(*(x * 80 - 40 for x in targets))
  guess = jnp.zeros((1, 512, NUM_CLASSES))
  loss = losses.frame_loss(logits, guess, targets, events)
  np.testing.assert_allclose(
    loss, 1.5 * np.log(NUM_CLASSES), atol=1e-3
  )  # one of 34, the end by half; the drum asks for none
  sure = guess.at[..., PROGRAMS.index(33)].set(50.0)
  np.testing.assert_allclose(losses.frame_loss(logits, sure, targets, events), 0, atol=1e-3)
  counts = losses.event_counts(logits, sure, targets, events)
  assert {name: tuple(map(int, pair)) for name, pair in counts.items()} == {
    'frame_onset_recall': (1, 1),
    'frame_onset_precision': (1, 1),
    'frame_drum_recall': (1, 1),
    'frame_drum_precision': (1, 1),
    'frame_onset_class': (1, 1),
    'frame_offset_class': (1, 1),
  }


@pytest.mark.parametrize('stride', [1, 2])
def test_a_model_is_the_same_with_and_without_the_frame_head(stride):
  config = SPEC.network.replace(front='harmonic', front_time_stride=stride, memory_length=4)
  frames, tokens = np.ones((1, 128, 16), np.float32), np.ones((1, 8), np.int32)
  plain, headed = network.Transformer(config), network.Transformer(config, with_frame_head=True)
  options = {'enable_dropout': False, 'prior_tokens': tokens}
  params = headed.init(jax.random.key(0), frames, tokens, tokens, **options)['params']
  kept = network.without_training_only(params, network.parameter_shapes(config, 16))
  assert set(params) - set(kept) == {'frame_head', 'note_reader'}
  np.testing.assert_array_equal(
    plain.apply({'params': kept}, frames, tokens, tokens, **options),
    headed.apply({'params': params}, frames, tokens, tokens, **options),
  )
  encoded, told, classes = headed.apply(
    {'params': params}, frames, tokens, tokens, method=headed.encode_and_tell, **options
  )
  assert encoded.shape == (1, config.num_states(128) + 4, config.emb_dim)
  np.testing.assert_array_equal(encoded, plain.apply({'params': kept}, frames, method=plain.encode, **options))
  assert {x.shape[1] for x in told} == {128 // stride} and classes.shape == (1, 8, NUM_CLASSES)


def a_batch():
  """Returns a batch of two examples, and its shapes and dtypes as `get_initial_variables` takes them."""
  tokens = jnp.asarray(np.random.default_rng(0).integers(3, 1000, (2, 16)), jnp.int32)
  batch = {
    'encoder_input_tokens': jnp.ones((2, 128, 16)),
    'decoder_input_tokens': tokens,
    'decoder_target_tokens': tokens,
    'decoder_loss_weights': jnp.ones((2, 16)),
  }
  return batch, {name: x.shape for name, x in batch.items()}, {name: x.dtype for name, x in batch.items()}


def test_only_frames_are_counted_where_the_decoder_rests():
  from mrmt3.models import MemoryEncoderDecoderModel

  batch, shapes, types = a_batch()
  model = MemoryEncoderDecoderModel(SPEC, frame_loss='alone')
  params = model.get_initial_variables(jax.random.key(0), shapes, types)['params']
  loss, sums = model.loss_fn(params, batch, None)
  assert sums['correct'] == 0 and sums['loss'] == sums['frame_loss'] == loss > 0
  told = {name.removeprefix('tokens/') for name in sums if name.startswith('tokens/')}
  assert told and all('frame' in name for name in told)


def test_frozen_parameters_have_no_gradient_and_the_others_the_same_as_ever():
  from mrmt3.models import MemoryEncoderDecoderModel

  batch, shapes, types = a_batch()
  spec = dataclasses.replace(SPEC, network=SPEC.network.replace(front='harmonic', proposals=4))
  plain = MemoryEncoderDecoderModel(spec)
  held = MemoryEncoderDecoderModel(spec, frozen=('encoder', 'note_reader/events', 'decoder/layers_0/mlp/wo'))
  params = plain.get_initial_variables(jax.random.key(0), shapes, types)['params']
  slope, ours = (jax.grad(lambda p, model=model: model.loss_fn(p, batch, None)[0])(params) for model in (plain, held))
  seen = set()
  for path, x in jax.tree_util.tree_flatten_with_path(ours)[0]:
    name, wanted = '/'.join(key.key for key in path), slope
    for key in path:
      wanted = wanted[key.key]
    still = name.startswith(('encoder/', 'note_reader/events/', 'decoder/layers_0/mlp/wo/'))
    seen.add(still and bool(jnp.abs(wanted).max() > 0))
    np.testing.assert_allclose(x, 0 if still else wanted, atol=1e-5 * float(jnp.abs(wanted).max()), err_msg=name)
  assert seen == {False, True}  # without them some of these would have moved


def test_frozen_parts_that_are_none_are_named():
  from mrmt3.models import MemoryEncoderDecoderModel

  for wrong in (['encode'], ['decoder/layers_7'], 'nothing'):
    with pytest.raises(UserError, match=r'no part of the parameters; parts are .*encoder'):
      MemoryEncoderDecoderModel(SPEC, frozen=wrong)
  MemoryEncoderDecoderModel(SPEC, frozen='encoder')
  MemoryEncoderDecoderModel(SPEC, frozen=('frame_head', 'note_reader/events'), frame_loss='auxiliary')
