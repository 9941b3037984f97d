"""The memory between segments: note counts from tokens, and the chain of a model conditioned on instruments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import network
from mrmt3.config import ModelSpec
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
from mrmt3.inference import batched_pieces, memory
from mrmt3.inference.transcriber import Transcriber
from mrmt3.network import T5Config
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.notes.note_array import as_notes
from mrmt3.spectrograms import SpectrogramConfig, compute_spectrogram
from mrmt3.studies import memory_conditions, probe_decoding, probe_pieces
from mrmt3.tokens import batched_parsing, segment_targets
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(steps_per_second=32, num_velocity_bins=1))
IDS = batched_parsing.token_ids(CODEC)
STATES = 64
_counts = jax.jit(batched_parsing.onset_counts, static_argnums=1)
_held = jax.jit(batched_parsing.held, static_argnums=1)

notes = st.tuples(
  st.integers(0, 120), st.integers(1, 90), st.integers(30, 90), st.sampled_from(list(CLASS_PROGRAMS)), st.booleans()
)


def padded(tokens, length=384):
  return np.pad(tokens, (0, length - len(tokens)))[None]


@settings(deadline=None, max_examples=40)
@given(st.lists(notes, max_size=25), st.sampled_from([0, 32, 64]))
def test_tokens_say_what_is_held_and_what_has_been_heard(rows, start):
  table = as_notes(
    [
      (on / 32, (on + length) / 32, pitch, 100, 0 if drum else program, drum)
      for on, length, pitch, program, drum in rows
    ]
  )
  table = segment_targets.trim_overlapping_notes(table)
  piece = segment_targets.encode_piece(table, CODEC, rounded_order=True)
  tokens = padded(segment_targets.segment_targets(piece, 2 * start, 2 * STATES, frames_per_second=64, codec=CODEC))
  begin, end = (np.round(table[name] * 32).astype(int) for name in ('onset', 'offset'))
  classes = class_index(table['program'])
  inside = ~table['is_drum'] & (begin >= start) & (begin < start + STATES)
  np.testing.assert_array_equal(_counts(tokens, IDS)[0], np.bincount(classes[inside], minlength=NUM_CLASSES))
  sounding = ~table['is_drum'] & (begin < start + STATES) & (end >= start + STATES)
  wanted = np.zeros((NUM_CLASSES, 128), bool)
  wanted[classes[sounding], table['pitch'][sounding]] = True
  np.testing.assert_array_equal(_held(tokens, IDS)[0], wanted)


def spec_of(**more):
  config = T5Config(
    vocab_size=896,
    emb_dim=48,
    num_heads=2,
    head_dim=8,
    mlp_dim=8,
    num_encoder_layers=1,
    copied_tokens=tuple(IDS),
    proposals=12,
    front='harmonic',
    front_channels=(1, 1, 1, 1),
    front_time_stride=2,
    copy_threshold=0.25,
    **more,
  )
  words = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
  return ModelSpec(
    config, SpectrogramConfig(hop_width=250, num_mel_bins=16), words, segment_frames=16, targets_length=48
  )


SEGMENT = 16 * 250


@pytest.fixture(scope='module')
def params():
  """Random weights that hear much, end little and disagree about classes."""
  rng = np.random.default_rng(0)
  shapes = network.parameter_shapes(spec_of().network, 16)
  found = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
  found['note_reader']['events_bias'] += np.repeat([1.0, 0.0, -2.0], 128).astype(np.float32)
  found['note_reader']['sounds_bias'] += 1.0
  for name in ('seen', 'seen_at_pitch'):  # what a pitch plays is to be told by the pitch, most of all
    found['note_reader'][name]['kernel'] *= 0.05
  found['note_reader']['class_of']['kernel'] *= 1.5
  return found


@pytest.fixture(scope='module')
def samples():
  return np.random.default_rng(1).normal(0, 0.1, 9 * SEGMENT + 50).astype(np.float32)


def segments_of(samples):
  whole = np.pad(samples, (0, -len(samples) % SEGMENT)).reshape(-1, SEGMENT)
  return np.asarray(compute_spectrogram(whole, spec_of().spectrogram))[:, :16]


def test_memory_counts_the_predicted_tokens(params, samples):
  """Step by step by hand: counts of all segments before, the tokens of the last."""
  spec = spec_of(instrument_memory=1.0)
  transcriber = Transcriber(params, spec)
  said = [s.tokens for s in transcriber.transcribe(samples).segments]
  counted = np.zeros(NUM_CLASSES, int)
  held = memory.empty(spec, 1)
  for mel, tokens in zip(segments_of(samples)[:-1], said, strict=False):
    np.testing.assert_array_equal(held.heard[0], counted)
    np.testing.assert_array_equal(transcriber.decode_rows(mel[None], held, np.ones(1, bool))[0, : len(tokens)], tokens)
    held = memory.after(held, transcriber.padded(tokens)[None], spec)
    notes = batched_parsing.read(jnp.asarray(tokens)[None], IDS)
    counted += np.bincount(np.asarray(notes.row)[np.asarray(notes.onset)], minlength=NUM_CLASSES + 1)[:NUM_CLASSES]
  assert counted.sum() > 20 and (counted > 0).sum() > 1
  # It matters, or nothing of this would have been tested: without what has been heard, others play.
  alone = [s.tokens for s in Transcriber(params, spec_of()).transcribe(samples).segments]
  assert any(a.tolist() != b.tolist() for a, b in zip(said[1:], alone[1:], strict=True))
  ties = [int(np.flatnonzero(tokens == IDS.tie[0])[0]) for tokens in said]
  assert ties[0] == 0 and max(ties) > 1  # nothing can go on in the first segment


def test_streams_batches_and_restarts_have_the_same_memory(params, samples):
  spec = spec_of(instrument_memory=1.0)
  transcriber = Transcriber(params, spec)
  whole = transcriber.transcribe(samples)
  streamed = as_notes(list(transcriber.stream(np.array_split(samples, 7))))
  np.testing.assert_array_equal(np.sort(streamed), np.sort(whole.notes))
  others = [samples[: 3 * SEGMENT], samples, samples[SEGMENT:]]
  np.testing.assert_array_equal(list(transcriber.transcribe_many(others, batch=2))[1].notes, whole.notes)
  for hop in (1, 2):
    full = transcriber.transcribe(samples, hop=hop)
    piece = batched_pieces.Piece([samples], known=tuple(segment.tokens for segment in full.segments[:5]))
    ((_, resumed),) = batched_pieces.collect(transcriber.run([piece], hop=hop))
    np.testing.assert_array_equal(resumed.notes, full.notes)


def test_the_piece_model_has_the_transcribers_memory(params, samples):
  spec = spec_of(instrument_memory=1.0)
  said = [s.tokens for s in Transcriber(params, spec).transcribe(samples[: 9 * SEGMENT]).segments][:9]
  mel = segments_of(samples)[:9]
  batch = {
    'encoder_input_tokens': mel[None],
    'decoder_target_tokens': np.stack([padded(t, 48)[0] for t in said])[None],
    'num_segments': np.full((1, 1), 9),
  }
  for mode in ('predicted', 'truth'):  # the truth being what it says itself
    tokens = np.asarray(jax.jit(PieceEncoderDecoderModel(spec, memory=mode).predict_batch)(params, batch))[0]
    for ours, wanted in zip(tokens, said, strict=True):
      np.testing.assert_array_equal(ours[: len(wanted)], wanted)
  alone = np.asarray(jax.jit(PieceEncoderDecoderModel(spec, memory='none').predict_batch)(params, batch))[0]
  assert any(ours[: len(wanted)].tolist() != wanted.tolist() for ours, wanted in zip(alone, said, strict=True))


def test_with_a_hop_all_of_a_piece_is_heard_and_nothing_is_known_to_be_held(params, samples):
  spec, seen = spec_of(instrument_memory=1.0), []
  transcriber = Transcriber(params, spec)

  class Watched(Transcriber):
    def decode_rows(self, inputs, remembered, active, allowed=None):
      seen.append(remembered)
      return super().decode_rows(inputs, remembered, active, allowed)

  watched = Watched(params, spec)
  result = watched.transcribe(samples[: 4 * SEGMENT], hop=2)
  assert [one.adjacent.tolist() for one in seen[:2]] == [
    [True, False],
    [False, False],
  ]  # but that nothing came before the first
  first_two = memory.counts(np.stack([transcriber.padded(s.tokens) for s in result.segments[:2]]), spec).sum(axis=0)
  np.testing.assert_array_equal(seen[1].heard, np.stack([first_two] * 2))


def test_a_study_can_replace_the_memory(params, samples):
  spec = spec_of(instrument_memory=1.0)
  transcriber, mel = Transcriber(params, spec), segments_of(samples)[:9]
  piece = probe_pieces.ProbePiece('noise', as_notes([]), mel, 144, np.zeros((9, 48), np.int32))
  said = probe_decoding.transcribe(transcriber, [piece], memory_conditions.AS_USED)['noise']
  for ours, wanted in zip(said, transcriber.transcribe(samples[: 9 * SEGMENT]).segments[:9], strict=True):
    np.testing.assert_array_equal(ours[: len(wanted.tokens)], wanted.tokens)
  held = memory_conditions.remembered(
    transcriber, memory_conditions.Condition('', hop=3), said, 5, np.random.default_rng(0)
  )
  np.testing.assert_array_equal(held.heard[0], memory.counts(np.stack(said[:3]), spec).sum(axis=0))
  assert not held.adjacent.any()
  nothing = memory_conditions.remembered(
    transcriber, memory_conditions.Condition('', empty=True), said, 5, np.random.default_rng(0)
  )
  assert not nothing.heard.any() and nothing.tokens.tolist() == memory.empty(spec, 1).tokens.tolist()


def test_networks_with_a_decoder_are_told_prior_tokens_only():
  spec = ModelSpec(T5Config(vocab_size=1664, memory_length=2), SpectrogramConfig(), VocabularyConfig())
  held = memory.empty(spec, 2)
  assert set(held.keywords(spec)) == {'prior_tokens'}
  assert not memory.empty(spec, 2).keywords(dataclasses.replace(spec, network=spec.network.replace(memory_length=0)))
  assert not memory.after(held, np.full((2, 3), 500), spec).heard.any()
  both = memory.joined([held, memory.empty(spec, 1)._replace(adjacent=np.zeros(1, bool))])
  assert both.tokens.shape == (3, spec.targets_length) and both.adjacent.tolist() == [True, True, False]
