"""The memory between segments: note counts from tokens, and the chain of a model with an instrument prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3.config import ModelSpec
from mrmt3.decoding.options import DecodingConfig
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
from mrmt3.framewise import FramewiseConfig
from mrmt3.framewise.network import border_events
from mrmt3.inference import batched_pieces, memory
from mrmt3.inference.transcriber import Transcriber
from mrmt3.network import T5Config
from mrmt3.notes.instruments import CLASS_PROGRAMS, NUM_CLASSES, class_index
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.spectrograms import SpectrogramConfig, compute_spectrogram
from mrmt3.studies import memory_conditions, probe_decoding, probe_pieces
from mrmt3.tokens import batched_parsing, segment_targets
from mrmt3.tokens.token_ids import token_ids
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(steps_per_second=32, num_velocity_bins=1))
IDS = token_ids(CODEC)
FRAMES = 64
_counts = jax.jit(batched_parsing.onset_counts, static_argnums=1)
_held = jax.jit(batched_parsing.held, static_argnums=1)
_read = jax.jit(batched_parsing.read, static_argnums=1)

notes = st.tuples(
  st.integers(0, 120), st.integers(1, 90), st.integers(30, 90), st.sampled_from(list(CLASS_PROGRAMS)), st.booleans()
)


def padded(tokens, length=384):
  return np.pad(tokens, (0, length - len(tokens)))[None]


@settings(deadline=None, max_examples=40)
@given(st.lists(notes, max_size=25), st.sampled_from([0, 32, 64]))
def test_onset_counts_and_held_notes_are_those_of_the_note_array(rows, start):
  table = as_notes(
    [
      (on / 32, (on + length) / 32, pitch, 100, 0 if drum else program, drum)
      for on, length, pitch, program, drum in rows
    ]
  )
  table = trim_overlapping_notes(table)
  piece = segment_targets.encode_piece(table, CODEC, rounded_order=True)
  tokens = padded(segment_targets.segment_targets(piece, 2 * start, 2 * FRAMES, frames_per_second=64, codec=CODEC))
  begin, end = (np.round(table[name] * 32).astype(int) for name in ('onset', 'offset'))
  classes = class_index(table['program'])
  inside = ~table['is_drum'] & (begin >= start) & (begin < start + FRAMES)
  np.testing.assert_array_equal(_counts(tokens, IDS)[0], np.bincount(classes[inside], minlength=NUM_CLASSES))
  sounding = ~table['is_drum'] & (begin < start + FRAMES) & (end >= start + FRAMES)
  wanted = np.zeros((NUM_CLASSES, 128), bool)
  wanted[classes[sounding], table['pitch'][sounding]] = True
  np.testing.assert_array_equal(_held(tokens, IDS)[0], wanted)


PLAIN = DecodingConfig()


def spec_of(instrument_prior=0.0, decoding=PLAIN):
  config = FramewiseConfig(
    vocab_size=896,
    emb_dim=48,
    num_heads=2,
    head_dim=8,
    mlp_dim=8,
    num_encoder_layers=1,
    mlp_activations=('gelu', 'linear'),
    num_candidates=12,
    front_channels=(1, 1, 1, 1),
    output_positions=False,
    emission_threshold=0.25,
    instrument_prior=instrument_prior,
  )
  vocabulary = VocabularyConfig(steps_per_second=32, num_velocity_bins=1)
  return ModelSpec(
    config,
    SpectrogramConfig(hop_width=250, num_mel_bins=16),
    vocabulary,
    segment_frames=16,
    targets_length=48,
    decoding=decoding,
  )


SEGMENT = 16 * 250


@pytest.fixture(scope='module')
def params():
  """Random weights with many onsets, few offsets and varied classes."""
  rng = np.random.default_rng(0)
  shapes = spec_of().parameter_shapes()
  found = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
  found['note_reader']['events_bias'] += np.repeat([1.0, 0.0, -2.0], 128).astype(np.float32)
  found['note_reader']['sounds_bias'] += 1.0
  for name in ('seen', 'seen_at_pitch'):  # the class depends on the pitch most of all
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
  spec = spec_of(instrument_prior=1.0)
  transcriber = Transcriber(params, spec)
  emitted = [s.tokens for s in transcriber.transcribe(samples, 16000).segments]
  counted = np.zeros(NUM_CLASSES, int)
  carried = memory.empty(spec, 1)
  for mel, tokens in zip(segments_of(samples)[:-1], emitted, strict=False):
    np.testing.assert_array_equal(carried.class_counts[0], counted)
    np.testing.assert_array_equal(
      transcriber.decode_rows(mel[None], carried, np.ones(1, bool))[0, : len(tokens)], tokens
    )
    carried = memory.after(carried, transcriber.padded(tokens)[None], spec)
    notes = _read(transcriber.padded(tokens)[None], IDS)
    counted += np.bincount(np.asarray(notes.row)[np.asarray(notes.onset)], minlength=NUM_CLASSES + 1)[:NUM_CLASSES]
  assert counted.sum() > 20 and (counted > 0).sum() > 1
  # The prior has an effect, or nothing of this would have been tested.
  alone = [s.tokens for s in Transcriber(params, spec_of()).transcribe(samples, 16000).segments]
  assert any(a.tolist() != b.tolist() for a, b in zip(emitted[1:], alone[1:], strict=True))
  ties = [int(np.flatnonzero(tokens == IDS.tie[0])[0]) for tokens in emitted]
  assert ties[0] == 0 and max(ties) > 1  # nothing can continue in the first segment


@pytest.mark.parametrize('decoding', [PLAIN, DecodingConfig(context_frames=4, normalize_level=True)])
def test_streams_batches_and_restarts_have_the_same_memory(params, samples, decoding):
  spec = spec_of(1.0, decoding)
  samples = samples * np.linspace(1e-3, 1, len(samples), dtype=np.float32) if decoding.normalize_level else samples
  transcriber = Transcriber(params, spec)
  whole = transcriber.transcribe(samples, 16000)
  assert len(whole.notes) > 20 and whole.seconds == len(samples) / 16000
  streamed = as_notes(list(transcriber.stream(np.array_split(samples, 7), 16000)))
  np.testing.assert_array_equal(np.sort(streamed), np.sort(whole.notes))
  others = [samples[: 3 * SEGMENT], samples, samples[SEGMENT:]]
  np.testing.assert_array_equal(list(transcriber.transcribe_many(others, 16000, batch=2))[1].notes, whole.notes)
  for hop in (1, 2):
    full = transcriber.transcribe(samples, 16000, hop=hop)
    piece = batched_pieces.Piece([samples], known=tuple(segment.tokens for segment in full.segments[:5]))
    ((_, resumed),) = batched_pieces.collect(transcriber.run([piece], hop=hop))
    np.testing.assert_array_equal(resumed.notes, full.notes)


def test_the_piece_model_has_the_transcribers_memory(params, samples):
  spec = spec_of(instrument_prior=1.0)
  emitted = [s.tokens for s in Transcriber(params, spec).transcribe(samples[: 9 * SEGMENT], 16000).segments][:9]
  mel = segments_of(samples)[:9]
  batch = {
    'encoder_input_tokens': mel[None],
    'decoder_target_tokens': np.stack([padded(t, 48)[0] for t in emitted])[None],
    'num_segments': np.full((1, 1), 9),
  }
  for mode in ('predicted', 'truth'):  # the truth being its own output
    tokens = np.asarray(jax.jit(PieceEncoderDecoderModel(spec, memory=mode).predict_batch)(params, batch))[0]
    for ours, wanted in zip(tokens, emitted, strict=True):
      np.testing.assert_array_equal(ours[: len(wanted)], wanted)
  alone = np.asarray(jax.jit(PieceEncoderDecoderModel(spec, memory='none').predict_batch)(params, batch))[0]
  assert any(ours[: len(wanted)].tolist() != wanted.tolist() for ours, wanted in zip(alone, emitted, strict=True))


def test_with_a_hop_all_rows_are_counted_and_no_prior_segment_is_adjacent(params, samples):
  spec, seen = spec_of(instrument_prior=1.0), []
  transcriber = Transcriber(params, spec)

  class Watched(Transcriber):
    def decode_rows(self, inputs, remembered, active, allowed=None):
      seen.append(remembered)
      return super().decode_rows(inputs, remembered, active, allowed)

  watched = Watched(params, spec)
  result = watched.transcribe(samples[: 4 * SEGMENT], 16000, hop=2)
  assert [one.adjacent.tolist() for one in seen[:2]] == [
    [True, False],
    [False, False],
  ]  # nothing comes before the first segment, which is known
  first_two = memory.class_counts(np.stack([transcriber.padded(s.tokens) for s in result.segments[:2]]), spec).sum(
    axis=0
  )
  np.testing.assert_array_equal(seen[1].class_counts, np.stack([first_two] * 2))


def test_a_study_can_replace_the_memory(params, samples):
  spec = spec_of(instrument_prior=1.0)
  transcriber, mel = Transcriber(params, spec), segments_of(samples)[:9]
  piece = probe_pieces.ProbePiece('noise', as_notes([]), mel, 144, np.zeros((9, 48), np.int32))
  emitted = probe_decoding.transcribe(transcriber, [piece], memory_conditions.AS_USED)['noise']
  for ours, wanted in zip(emitted, transcriber.transcribe(samples[: 9 * SEGMENT], 16000).segments[:9], strict=True):
    np.testing.assert_array_equal(ours[: len(wanted.tokens)], wanted.tokens)
  carried = memory_conditions.remembered(
    transcriber, memory_conditions.Condition('', hop=3), emitted, 5, np.random.default_rng(0)
  )
  np.testing.assert_array_equal(carried.class_counts[0], memory.class_counts(np.stack(emitted[:3]), spec).sum(axis=0))
  assert not carried.adjacent.any()
  nothing = memory_conditions.remembered(
    transcriber, memory_conditions.Condition('', empty=True), emitted, 5, np.random.default_rng(0)
  )
  assert not nothing.class_counts.any() and nothing.tokens.tolist() == memory.empty(spec, 1).tokens.tolist()


def test_mr_mt3_is_conditioned_on_prior_tokens_only():
  spec = ModelSpec(T5Config(vocab_size=1664, memory_length=2), SpectrogramConfig(), VocabularyConfig())
  carried = memory.empty(spec, 2)
  assert set(spec.network.encoder_context(carried)) == {'prior_tokens'}
  assert not spec.network.replace(memory_length=0).encoder_context(carried)
  assert not memory.after(carried, np.full((2, 3), 500), spec).class_counts.any()
  both = memory.joined([carried, memory.empty(spec, 1)._replace(adjacent=np.zeros(1, bool))])
  assert both.tokens.shape == (3, spec.targets_length) and both.adjacent.tolist() == [True, True, False]


def test_an_event_between_two_segments_is_found_once():
  tokens = np.zeros((3, 8), np.int32)
  tokens[:, :6] = [IDS.tie[0], IDS.time[0] + 7, IDS.program[0], IDS.velocity[0] + 1, IDS.pitch[0] + 60, 1]
  tokens[1, 1] -= 1
  taken = np.asarray(border_events(jnp.asarray(tokens), IDS, 8, jnp.array([True, True, False])))
  assert np.argwhere(taken[0]).tolist() == [[0, 60], [1, 60]]  # in the last frame
  assert np.argwhere(taken[1]).tolist() == [[0, 60]]  # in the one before
  assert taken[2, 0].all() and not taken[2, 1].any()  # another segment's, whatever it is
