import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import frame_losses, network
from mrmt3.config import ModelSpec
from mrmt3.instruments import SLAKH_CLASSES
from mrmt3.network import T5Config
from mrmt3.notes import as_notes
from mrmt3.segment_tokens import encode_piece, segment_targets, trim_overlapping_notes
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import build_codec

SPEC = ModelSpec(
  T5Config(vocab_size=1536, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=1),
  SpectrogramConfig(hop_width=256, num_mel_bins=16),
  segment_frames=128,
  targets_length=512,
)
CODEC = build_codec(SPEC.vocabulary)
PROGRAMS = sorted(SLAKH_CLASSES.values())
FRAMES_PER_SECOND = 62.5


def labels_of(rows, start_frame=0):
  """Returns the labels of the segment of a piece that starts at a frame, each `[frames, ...]`."""
  piece = encode_piece(as_notes(rows), CODEC)
  ids = segment_targets(piece, start_frame, 128, codec=CODEC, frames_per_second=SPEC.spectrogram.frame_rate)
  tokens = np.zeros((1, 512), np.int32)
  tokens[0, : len(ids)] = ids
  return [np.asarray(x[0]) for x in jax.jit(frame_losses.frame_labels, static_argnums=1)(tokens, SPEC)]


def test_labels_of_a_chord_a_drum_and_a_tied_note():
  start = 50 / FRAMES_PER_SECOND  # 0.8 s
  onsets, pitches, classes = labels_of(
    [
      (start - 0.3, start + 0.5, 40, 90, 33, 0),  # tied over from before
      (start + 0.16, start + 0.32, 60, 90, 0, 0),
      (start + 0.16, start + 5.00, 64, 90, 0, 0),  # goes on beyond the segment
      (start + 0.32, start + 0.34, 38, 90, 0, 1),
    ],
    start_frame=50,
  )
  piano, bass = PROGRAMS.index(0), PROGRAMS.index(33)
  assert sorted(zip(*np.nonzero(onsets), strict=True)) == [
    (10, piano * 128 + 60),
    (10, piano * 128 + 64),
    (20, frame_losses.DRUM_ROW * 128 + 38),
  ]
  sounds = {pitch: (np.flatnonzero(pitches[:, pitch]).min(), np.flatnonzero(pitches[:, pitch]).max()) for pitch in (40, 60, 64)}
  assert sounds == {40: (0, 30), 60: (10, 19), 64: (10, 127)}
  assert pitches.sum(axis=0)[[38]] == 0  # a drum has no pitch
  assert np.flatnonzero(classes[:, bass]).tolist() == list(range(31))
  assert np.flatnonzero(classes[:, piano]).tolist() == list(range(10, 128))


notes = st.tuples(
  st.floats(0, 1.9), st.floats(0.05, 3), st.integers(0, 127), st.integers(1, 127), st.sampled_from(PROGRAMS), st.booleans()
)


@settings(max_examples=50, deadline=None)
@given(st.lists(notes, max_size=20))
def test_labels_agree_with_the_notes(drawn):
  rows = trim_overlapping_notes(
    as_notes([(on, on + length, pitch, velocity, 0 if drum else program, drum) for on, length, pitch, velocity, program, drum in drawn])
  )
  onsets, pitches, _ = labels_of(rows)
  expected_onsets, expected_pitches = np.zeros((128, 35 * 128)), np.zeros((128, 128))
  for note in rows:
    first = min(127, round(round(note['onset'] * 100) / 100 * FRAMES_PER_SECOND))
    row = 34 if note['is_drum'] else PROGRAMS.index(note['program'])
    expected_onsets[first, row * 128 + note['pitch']] = 1
  np.testing.assert_array_equal(onsets, expected_onsets)
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
  empty = frame_losses.frame_labels(jnp.zeros((2, 8), jnp.int32), SPEC)
  assert all(float(x.sum()) == 0 for x in empty)
  logits = frame_losses.FrameTargets(*(x * 80 - 40 for x in empty))
  assert frame_losses.frame_loss(logits, empty).shape == (2,)
  np.testing.assert_allclose(frame_losses.frame_loss(logits, empty), 0, atol=1e-3)


def test_a_model_is_the_same_with_and_without_the_frame_head():
  frames, tokens = np.ones((1, 128, 16), np.float32), np.ones((1, 8), np.int32)
  plain, headed = network.Transformer(SPEC.network), network.Transformer(SPEC.network, tuple(frame_losses.SIZES))
  params = headed.init(jax.random.key(0), frames, tokens, tokens, enable_dropout=False)['params']
  kept = network.without_training_only(params, network.parameter_shapes(SPEC.network, 16))
  assert set(params) - set(kept) == {'frame_head'}
  np.testing.assert_array_equal(
    plain.apply({'params': kept}, frames, tokens, tokens, enable_dropout=False),
    headed.apply({'params': params}, frames, tokens, tokens, enable_dropout=False),
  )
