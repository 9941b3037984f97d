"""Tests of the studies of a checkpoint: memory conditions, predictions, loss, and attention on the memory."""

import dataclasses
import json

import command_line
import jax
import numpy as np
import pytest
from flax import linen as nn

from mrmt3 import spectrograms, vocabularies
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import study as study_command
from mrmt3.data.piece_targets import piece_targets
from mrmt3.errors import UserError
from mrmt3.evaluation import references as evaluation_references
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel
from mrmt3.evaluation.piece_transcriber import PieceTranscriber
from mrmt3.inference import memory
from mrmt3.inference.transcriber import Transcriber
from mrmt3.inference.transcription import decode_segments
from mrmt3.network import Transformer
from mrmt3.notes.note_array import as_notes
from mrmt3.studies import (
  decoding_frontier,
  memory_conditions,
  order_probe,
  probe_decoding,
  probe_pieces,
  teacher_forcing,
)
from mrmt3.studies.memory_conditions import AS_USED, Condition
from mrmt3.studies.results import Results
from mrmt3.tokens.shuffling import Shuffle

EOS = vocabularies.EOS_ID


def random_weights(spec, seed=3):
  """Random weights whose output depends on the inputs and on the memory."""
  tokens = np.zeros((1, 64), np.int32)
  init = Transformer(spec.network).init(
    jax.random.key(seed), np.zeros((1, 32, 32)), tokens, tokens, enable_dropout=False, prior_tokens=tokens
  )
  params = jax.tree.map(np.array, init['params'])
  params['decoder']['logits_dense']['kernel'] *= 3
  return params


@pytest.fixture(scope='module')
def params(small_spec):
  return random_weights(small_spec)


@pytest.fixture(scope='module')
def transcriber(params, small_spec):
  return Transcriber(params, small_spec)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, params, small_spec):
  folder = tmp_path_factory.mktemp('model')
  orbax_checkpoints.save_checkpoint(folder, 5, {'target': params}, small_spec)
  return folder


@pytest.fixture(scope='module')
def pieces(small_data, small_spec):
  return probe_pieces.load(evaluation_references.find_references(small_data, split='train'), small_spec)


def notes_of(transcriber, predicted):
  return {name: decode_segments(tokens, transcriber.spec)[0] for name, tokens in predicted.items()}


def run(*words):
  return command_line.run(study_command, 'study', *words)


def test_normal_use_gives_the_transcribers_notes(transcriber, pieces, small_data):
  predicted = notes_of(transcriber, probe_decoding.transcribe(transcriber, pieces, AS_USED))
  references = evaluation_references.find_references(small_data, split='train')
  assert len(predicted) == 3 and sum(map(len, predicted.values()))
  for name, reference in references.items():
    np.testing.assert_array_equal(predicted[name], transcriber.transcribe(reference.audio(16000), 16000).notes)


@pytest.mark.parametrize(
  ('mode', 'condition'), [('truth', Condition('', truth=True)), ('none', Condition('', empty=True))]
)
def test_truth_and_nothing_are_those_of_evaluate(transcriber, pieces, small_data, checkpoint, mode, condition):
  predicted = notes_of(transcriber, probe_decoding.transcribe(transcriber, pieces, condition))
  references = evaluation_references.find_references(small_data, split='train')
  triples = ((name, reference.audio(16000), reference.read()) for name, reference in references.items())
  for name, notes, _ in PieceTranscriber(checkpoint, mode).transcribe(triples):
    np.testing.assert_array_equal(predicted[name], notes)


def test_what_the_memory_holds(transcriber, small_spec):
  rng = np.random.default_rng(0)
  prior = [transcriber.padded(np.array([200 + index, 300, 400, EOS], np.int32)) for index in range(4)]
  empty = memory.empty(small_spec, 1).tokens[0]

  def held(segment, of=transcriber, **changes):
    return memory_conditions.remembered(of, Condition('', **changes), prior, segment, rng).tokens[0]

  np.testing.assert_array_equal(held(3), prior[2])
  np.testing.assert_array_equal(held(3, hop=3), prior[0])
  for nothing in (held(0), held(3, empty=True), held(3, hop=8)):
    np.testing.assert_array_equal(nothing, empty)
  assert held(3, replace=1.0)[0] == 200 + 2 or held(3, replace=1.0).tolist() != prior[2].tolist()
  network = dataclasses.replace(small_spec.network, memory_segments=2)
  two = Transcriber(random_weights(small_spec), dataclasses.replace(small_spec, network=network))
  np.testing.assert_array_equal(held(3, two), np.concatenate([prior[1], prior[2]]))
  np.testing.assert_array_equal(held(1, two), np.concatenate([empty, prior[0]]))
  published = Transcriber(random_weights(small_spec), dataclasses.replace(small_spec, prior_layout='start_token'))
  np.testing.assert_array_equal(held(3, published), np.concatenate([[0], prior[2][:-1]]))


def test_mistakes_have_the_requested_share(transcriber):
  codec = transcriber.codec
  first, _ = codec.event_type_range('pitch')
  tokens = np.full(60, first + vocabularies.SPECIAL_TOKENS + 60, np.int32)
  prior = [transcriber.padded(np.append(tokens, np.int32(EOS)))] * 40
  rng = np.random.default_rng(0)
  condition = Condition('', drop=0.1, replace=0.1)
  held = np.stack(
    [memory_conditions.remembered(transcriber, condition, prior, segment, rng).tokens[0] for segment in range(1, 40)]
  )
  kept = (held == tokens[0]).sum() / (39 * 60)
  left = (held > EOS).sum() / (39 * 60)
  assert kept == pytest.approx(0.8, abs=0.03) and left == pytest.approx(0.9, abs=0.03)


def test_another_piece_s_memory(transcriber, pieces, monkeypatch):
  as_used = probe_decoding.transcribe(transcriber, pieces, AS_USED)
  seen = []
  decode = Transcriber.decode_rows

  def watch(self, inputs, held, active, allowed=None):
    seen.append(held.tokens)
    return decode(self, inputs, held, active, allowed)

  monkeypatch.setattr(Transcriber, 'decode_rows', watch)
  probe_decoding.transcribe(transcriber, pieces, Condition('', of_another=True), as_used)
  for segment in (1, 2, 3):
    for row, other in enumerate((1, 2, 0)):
      np.testing.assert_array_equal(seen[segment][row], as_used[pieces[other].name][segment - 1])


def test_loss_is_that_of_the_piece_model(transcriber, params, pieces, small_spec):
  piece = pieces[0]
  held = [
    memory_conditions.remembered(transcriber, AS_USED, list(piece.targets), s, None) for s in range(len(piece.mel))
  ]
  loss, _ = teacher_forcing.score(params, small_spec, piece.mel, memory.joined(held), piece.targets)
  batch = {
    'encoder_input_tokens': piece.mel[None],
    'decoder_target_tokens': piece.targets[None],
    'decoder_loss_weights': (piece.targets > 0)[None],
  }
  expected = PieceEncoderDecoderModel(small_spec).score_batch(params, batch)
  np.testing.assert_allclose(-loss[piece.targets > 0].sum(), expected[0], rtol=1e-5)


def test_attention_on_the_memory(transcriber, params, pieces, small_spec):
  piece = pieces[0]
  held = memory.empty(small_spec, len(piece.mel))
  _, shares = teacher_forcing.score(params, small_spec, piece.mel, held, piece.targets)
  assert shares.shape == (1, *piece.targets.shape)
  # The same share, computed from the network's queries and keys.
  shifted = np.pad(piece.targets[:, :-1], ((0, 0), (1, 0)))
  _, state = Transformer(small_spec.network).apply(
    {'params': params},
    piece.mel,
    shifted,
    piece.targets,
    enable_dropout=False,
    prior_tokens=held.tokens,
    capture_intermediates=lambda module, _: isinstance(module, nn.Module) and module.name in ('query', 'key'),
  )
  found = state['intermediates']['decoder']['layers_0']['encoder_decoder_attention']
  queries, keys = (
    np.asarray(found[name]['__call__'][0]).reshape(len(piece.mel), -1, 2, 8) for name in ('query', 'key')
  )
  logits = np.einsum('bqhd,bkhd->bhqk', queries, keys)
  weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
  weights /= weights.sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(shares[0], weights[..., -4:].sum(axis=-1).mean(axis=1), atol=1e-5)
  assert np.ptp(shares) > 1e-3


@pytest.fixture
def chords(small_spec):
  """A piece of two chords of three simultaneous notes on three instruments."""
  rows = [(start, start + 0.2, 60 + 4 * part, 100, (0, 40, 73)[part], 0) for start in (0.05, 0.6) for part in range(3)]
  notes = as_notes(rows)
  mel = np.asarray(
    spectrograms.segment_inputs(np.zeros(16000, np.float32), small_spec.spectrogram, small_spec.segment_frames)
  )
  frames = spectrograms.num_frames(16000, small_spec.spectrogram)
  return probe_pieces.ProbePiece('chords', notes, mel, frames, piece_targets(notes, small_spec, frames, len(mel)))


def test_other_orders_are_the_same_music(chords, transcriber, small_spec):
  orders = [chords.shuffled(small_spec, Shuffle(), np.random.default_rng(seed)) for seed in range(8)]
  assert len({tokens.tobytes() for tokens in orders}) > 4
  wanted = decode_segments(chords.targets, small_spec)[0]
  assert len(wanted) == 6
  for tokens in orders:
    np.testing.assert_array_equal(decode_segments(tokens, small_spec)[0], wanted)


def test_order_costs(chords, transcriber, params, tmp_path):
  costs = {
    way: order_probe._measure(transcriber, params, [chords], *which)['chords']
    for way, which in order_probe.WAYS.items()
  }
  written = costs['as written']
  assert written['spread'] == 0 and costs['re-ordered']['spread'] > 0
  assert costs['re-ordered']['segment_loss'] != pytest.approx(written['segment_loss'], abs=1e-3)
  # With uniform token probabilities the order does not matter; losses differ only in the number of tokens.
  uniform = jax.tree.map(np.copy, params)
  uniform['decoder']['logits_dense']['kernel'][:] = 0
  for which in order_probe.WAYS.values():
    cost = order_probe._measure(transcriber, uniform, [chords], *which)['chords']
    assert cost['loss'] == pytest.approx(np.log(1536), rel=1e-5)
    assert sum(nats for nats, _ in cost['types'].values()) == pytest.approx(
      cost['loss'] * sum(n for _, n in cost['types'].values()), rel=1e-5
    )


def test_frequent_instruments():
  rows = [
    (index, index + 0.5, 60, 100, program, drum)
    for index, (program, drum) in enumerate([(0, 0)] * 6 + [(33, 0)] * 3 + [(0, 1)])
  ]
  notes = as_notes(rows)
  for share, programs, drums in (
    (0, {0, 33}, True),
    (0.1, {0, 33}, True),
    (0.2, {0, 33}, False),
    (0.31, {0}, False),
    (0.9, {0}, False),
  ):
    choice = decoding_frontier.frequent(notes, share)
    assert (choice.programs, choice.drums) == (programs, drums), share


def test_decoding_is_restricted_to_frequent_instruments(transcriber, pieces, monkeypatch):
  free = {piece.name: list(piece.targets) for piece in pieces}  # two programs, and drums for one note in nine
  assert decoding_frontier._restricted(transcriber, pieces, free, 0.0) == free
  masks = []
  decode = Transcriber.decode_rows

  def watch(self, inputs, prior, active, allowed=None):
    masks.append(allowed)
    return decode(self, inputs, prior, active, allowed)

  monkeypatch.setattr(Transcriber, 'decode_rows', watch)
  predicted = decoding_frontier._restricted(transcriber, pieces, free, 0.2)
  assert predicted.keys() == free.keys() and len(masks) == sum(len(piece.mel) for piece in pieces)
  first, last = vocabularies.token_types(transcriber.codec)['drum']
  programs, _ = vocabularies.token_types(transcriber.codec)['program']
  for mask in masks:
    assert not mask[first : last + 1].any() and set(np.flatnonzero(mask[programs : programs + 128])) == {40, 73}


@pytest.mark.parametrize('name', ['memory-probe', 'order-probe', 'frontier'])
def test_commands(name, small_data, checkpoint, tmp_path, monkeypatch, capsys):
  words = (name, '-o', tmp_path / 'out', '--data', small_data, '--split', 'train', '--checkpoint', checkpoint)
  assert run(*words, '--pieces', 2) == 0
  text = (tmp_path / 'out' / 'study.md').read_text()
  assert text in capsys.readouterr().out and 'on 2 pieces' in text and 'nan' not in text
  if name == 'memory-probe':
    assert text.count("another piece's") == 4 and text.count('\n## ') == 3
    lines = [json.loads(line) for line in (tmp_path / 'out' / 'results.jsonl').read_text().splitlines()]
    scores = {line['name']: line['result'] for line in lines}
    assert scores['truth with as in use'] != scores['truth with empty']
  # Finished results are not computed again.
  monkeypatch.setattr(Transcriber, 'decode_rows', lambda *_: pytest.fail('decodes again'))
  monkeypatch.setattr(teacher_forcing, 'score', lambda *_: pytest.fail('scores again'))
  assert run(*words, '--pieces', 2) == 0
  assert (tmp_path / 'out' / 'study.md').read_text() == text
  with pytest.raises(UserError, match='other settings \\(pieces\\)'):
    run(*words, '--pieces', 1)


def test_a_network_without_memory(small_spec, small_data, tmp_path, capsys):
  spec = dataclasses.replace(small_spec, network=small_spec.network.replace(memory_length=0))
  params = {name: part for name, part in random_weights(small_spec).items() if name != 'memory_encoder'}
  orbax_checkpoints.save_checkpoint(tmp_path / 'model', 1, {'target': params}, spec)
  words = ('-o', tmp_path / 'out', '--data', small_data, '--checkpoint', tmp_path / 'model')
  with pytest.raises(UserError, match='has no memory'):
    run('memory-probe', *words)
  assert run('order-probe', *words) == 0 and 're-ordered' in capsys.readouterr().out


def test_one_piece_has_no_other(transcriber, params, pieces, tmp_path):
  from mrmt3.studies import memory_probe

  tables, _, remarks = memory_probe.measure(transcriber, params, pieces[:1], Results(tmp_path, {}))
  assert "another piece's" not in [row.name for row in tables[0].rows] and remarks
