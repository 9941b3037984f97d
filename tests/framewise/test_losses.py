"""Frame-level labels that are read from tokens, and the loss on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.config import ModelSpec
from mrmt3.framewise import losses
from mrmt3.framewise.note_heads import OFFSETS, FrameTargets
from mrmt3.hybrid import HybridConfig
from mrmt3.notes.instruments import NUM_CLASSES, SLAKH_CLASSES
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens.segment_targets import encode_piece, segment_targets

FRAMES_PER_SECOND = 62.5
PROGRAMS = sorted(SLAKH_CLASSES.values())


def spec_of(stride):
  """Return a model whose encoder frames are no whole number of time steps."""
  network = HybridConfig(vocab_size=1536, time_stride=stride)
  return ModelSpec(network, SpectrogramConfig(hop_width=256), segment_frames=128, targets_length=512)


SPECS = {stride: spec_of(stride) for stride in (1, 2)}


def labels_of(rows, start_frame=0, stride=1):
  """Return the labels of the segment of a piece that starts at a frame, each `[frames, ...]`."""
  spec = SPECS[stride]
  piece = encode_piece(as_notes(rows), spec.codec)
  ids = segment_targets(piece, start_frame, 128, codec=spec.codec, frames_per_second=spec.spectrogram.frame_rate)
  tokens = np.zeros((1, 512), np.int32)
  tokens[0, : len(ids)] = ids
  labels = jax.jit(losses.frame_labels, static_argnums=1)(tokens, spec)
  return jax.tree.map(lambda x: np.asarray(x[0]), labels)


def listed(events, which):
  """Return (frame, kind, class) of those events, sorted."""
  return sorted(zip(events.frames[which], events.kinds[which], events.classes[which], strict=True))


@pytest.mark.parametrize('stride', [1, 2])
def test_labels_of_a_chord_a_drum_and_a_tied_note(stride):
  start = 50 / FRAMES_PER_SECOND  # 0.8 s
  (onsets, drums, offsets, pitches, classes), found = labels_of(
    [
      (start - 0.3, start + 0.5, 40, 90, 33, 0),  # tied over from before
      (start + 0.16, start + 0.32, 60, 90, 0, 0),
      (start + 0.16, start + 5.00, 64, 90, 0, 0),  # continues beyond the segment
      (start + 0.32, start + 0.34, 38, 90, 0, 1),
    ],
    start_frame=50,
    stride=stride,
  )
  piano, bass = PROGRAMS.index(0), PROGRAMS.index(33)
  last = 128 // stride - 1
  assert np.argwhere(onsets).tolist() == [[10 // stride, 60], [10 // stride, 64]]
  assert np.argwhere(drums).tolist() == [[20 // stride, 38]]
  assert np.argwhere(offsets).tolist() == [[20 // stride, 60], [31 // stride, 40]]
  assert listed(found, found.begins) == [(10 // stride, 60, piano), (10 // stride, 64, piano)]
  assert listed(found, found.ends) == [
    (20 // stride, OFFSETS.start + 60, piano),
    (31 // stride, OFFSETS.start + 40, bass),
  ]
  sounding = {pitch: np.flatnonzero(pitches[:, pitch])[[0, -1]].tolist() for pitch in (40, 60, 64)}
  ends = {1: (30, 19), 2: (14, 9)}[stride]  # off in frames 31 and 20
  assert sounding == {40: [0, ends[0]], 60: [10 // stride, ends[1]], 64: [10 // stride, last]}
  assert pitches.sum(axis=0)[38] == 0  # a drum has no pitch
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
  expected_onsets, expected_drums, expected = np.zeros((128, 128)), np.zeros((128, 128)), []
  for note in rows:
    first = min(127, round(round(note['onset'] * 100) / 100 * FRAMES_PER_SECOND))
    (expected_drums if note['is_drum'] else expected_onsets)[first, note['pitch']] = 1
    if not note['is_drum']:
      expected.append((first, note['pitch'], PROGRAMS.index(note['program'])))
  np.testing.assert_array_equal(onsets, expected_onsets)
  np.testing.assert_array_equal(drums, expected_drums)
  assert listed(found, found.begins) == sorted(expected)
  # Sounding notes of several instruments may share a pitch; the count changes where each begins and ends.
  count = np.zeros((129, 128))
  for note in rows[~rows['is_drum']]:
    begin, end = round(note['onset'] * 100), round(note['offset'] * 100)
    if begin == end:
      continue
    count[min(127, round(begin / 100 * FRAMES_PER_SECOND)), note['pitch']] += 1
    if end < 204:  # the step that covers the end is the next segment's
      count[min(127, round(end / 100 * FRAMES_PER_SECOND)), note['pitch']] -= 1
  np.testing.assert_array_equal(pitches, np.clip(np.cumsum(count[:128], axis=0), 0, 1))


def test_padding_is_silence_and_a_perfect_prediction_has_no_loss():
  targets, events = losses.frame_labels(jnp.zeros((2, 8), jnp.int32), SPECS[1])
  assert all(float(x.sum()) == 0 for x in targets) and not events.begins.any() and not events.ends.any()
  logits = FrameTargets(*(x * 80 - 40 for x in targets))
  loss = losses.frame_loss(logits, jnp.zeros((2, 8, NUM_CLASSES)), targets, events)
  assert loss.shape == (2,)
  np.testing.assert_allclose(loss, 0, atol=1e-3)


def test_classes_are_trained_at_pitched_events_only():
  labels = labels_of([(0.5, 0.9, 60, 90, 33, 0), (0.5, 0.9, 38, 90, 0, 1)])
  targets, events = jax.tree.map(lambda x: jnp.asarray(x)[None], labels)
  logits = FrameTargets(*(x * 80 - 40 for x in targets))
  uniform = jnp.zeros((1, 512, NUM_CLASSES))
  loss = losses.frame_loss(logits, uniform, targets, events)
  # One of 34 for the onset, half of that for the offset; the drum adds none.
  np.testing.assert_allclose(loss, 1.5 * np.log(NUM_CLASSES), atol=1e-3)
  right = uniform.at[..., PROGRAMS.index(33)].set(50.0)
  np.testing.assert_allclose(losses.frame_loss(logits, right, targets, events), 0, atol=1e-3)
  counts = losses.event_counts(logits, right, targets, events)
  assert {name: tuple(map(int, pair)) for name, pair in counts.items()} == {
    'frame_onset_recall': (1, 1),
    'frame_onset_precision': (1, 1),
    'frame_drum_recall': (1, 1),
    'frame_drum_precision': (1, 1),
    'frame_onset_class': (1, 1),
    'frame_offset_class': (1, 1),
  }
  wrong = losses.event_counts(FrameTargets(*(-x for x in logits)), -right, targets, events)
  assert wrong['frame_onset_recall'][0] == wrong['frame_onset_class'][0] == wrong['frame_offset_class'][0] == 0
