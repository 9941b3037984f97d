import dataclasses

import network_fixture as fixture
import numpy as np
import pytest

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.inference.batched_pieces import until_eos
from mrmt3.inference.transcriber import Transcriber
from mrmt3.note_sequences import decode_piece
from mrmt3.spectrograms import SpectrogramConfig

SPEC = ModelSpec(
  fixture.CONFIG,
  SpectrogramConfig(num_mel_bins=64),
  segment_frames=40,
  targets_length=48,
  prior_layout='start_token',
)


def test_published_memory_chain():
  transcriber = Transcriber(fixture.params(), SPEC)
  rows = np.concatenate(list(transcriber.decode(fixture.FIXTURE['inputs'][:, None])))
  np.testing.assert_array_equal(rows, fixture.FIXTURE['generated'][:, 1:])


def test_memory_chain_passes_the_tokens_on_as_in_training(monkeypatch):
  from mrmt3.decoding import greedy

  priors, answers = [], [[1200, 5, 1], [7, 1], [9, 9, 9, 9]]

  def fake(params, inputs, context, active, allowed, weights, *, spec, max_length):
    priors.append(context['prior_tokens'])
    return np.pad(answers[len(priors) - 1], (0, max_length))[None, :max_length]

  monkeypatch.setattr(greedy, 'transcribe_segments', fake)
  transcriber = Transcriber(fixture.params(), dataclasses.replace(SPEC, prior_layout='targets'))
  list(transcriber.decode(fixture.FIXTURE['inputs'][:, None]))
  assert [p.shape for p in priors] == [(1, 48)] * 3
  for prior, expected in zip(priors, [[1134, 1], *answers], strict=False):
    np.testing.assert_array_equal(prior[0], np.pad(expected, (0, 48 - len(expected))))


def test_several_prior_segments_are_the_latest_ones(monkeypatch):
  from mrmt3.decoding import greedy

  priors, answers = [], [[1200, 5, 1], [7, 1], [9, 9, 9, 9]]

  def fake(params, inputs, context, active, allowed, weights, *, spec, max_length):
    priors.append(context['prior_tokens'])
    return np.pad(answers[len(priors) - 1], (0, max_length))[None, :max_length]

  monkeypatch.setattr(greedy, 'transcribe_segments', fake)
  network = dataclasses.replace(SPEC.network, memory_segments=2)
  transcriber = Transcriber(fixture.params(), dataclasses.replace(SPEC, network=network, prior_layout='targets'))
  list(transcriber.decode(fixture.FIXTURE['inputs'][:, None]))
  predicted = [[1134, 1], [1134, 1], *answers]
  for step, prior in enumerate(priors):
    wanted = np.concatenate([np.pad(tokens, (0, 48 - len(tokens))) for tokens in predicted[step : step + 2]])
    np.testing.assert_array_equal(prior[0], wanted)


@pytest.fixture(scope='module')
def samples():
  return np.random.default_rng(0).normal(0, 0.1, 40 * 128 * 3 - 500).astype(np.float32)


def test_transcribe(samples):
  transcriber = Transcriber(fixture.params(), SPEC)
  calls = []
  result = transcriber.transcribe(samples, 16000, progress=lambda *args: calls.append(args))
  total = len(samples) / 16000
  assert calls == [(0.32, total), (0.64, total), (total, total)]
  assert [s.start for s in result.segments] == [0, 0.32, 0.64]
  notes, stats = decode_piece([s.tokens for s in result.segments], [0, 40, 80], transcriber.codec)
  np.testing.assert_array_equal(result.notes, notes)
  assert result.stats == stats
  again = transcriber.transcribe(samples, 16000)
  np.testing.assert_array_equal(again.notes, result.notes)


def test_without_memory_segments_are_independent(samples):
  spec = dataclasses.replace(SPEC, network=dataclasses.replace(SPEC.network, memory_length=0), prior_layout='targets')
  params = {name: part for name, part in fixture.params().items() if name != 'memory_encoder'}
  models = [Transcriber(params, spec, segments_at_once=at_once) for at_once in (1, 2)]
  rows = [model.transcribe(samples, 16000).segments for model in models]
  assert [len(row) for row in rows] == [3, 3]
  for one, two in zip(*rows, strict=True):
    np.testing.assert_array_equal(one.tokens, two.tokens)


def test_without_ties_notes_begin_at_once(monkeypatch):
  # Pitch 60 from 0 to 0.4 s, across the border of two segments; with ties, the first event would be a tie.
  from mrmt3 import vocabularies
  from mrmt3.event_codec import Event

  spec = dataclasses.replace(
    SPEC, network=dataclasses.replace(SPEC.network, memory_length=0), prior_layout='targets', ties=False
  )
  params = {name: part for name, part in fixture.params().items() if name != 'memory_encoder'}
  transcriber = Transcriber(params, spec, segments_at_once=1)

  def ids(*events):
    return [*(transcriber.codec.encode_event(Event(*event)) + vocabularies.SPECIAL_TOKENS for event in events), 1]

  on, off = ('velocity', 1), ('velocity', 0)
  answers = iter([ids(on, ('pitch', 60)), ids(('shift', 8), off, ('pitch', 60))])
  monkeypatch.setattr(transcriber, 'decode_rows', lambda inputs, *_: np.array([next(answers)] * len(inputs)))
  notes = transcriber.transcribe(np.zeros(40 * 128 + 100, np.float32), 16000).notes
  assert notes[['onset', 'pitch']].tolist() == [(0.0, 60)]
  np.testing.assert_allclose(notes['offset'], 0.4)


def test_empty_audio_is_a_short_silence():
  result = Transcriber(fixture.params(), SPEC).transcribe(np.zeros(0, np.float32), 16000)
  assert len(result.segments) == 1


def test_until_eos():
  np.testing.assert_array_equal(until_eos(np.array([4, 1, 0, 0])), [4, 1])
  np.testing.assert_array_equal(until_eos(np.array([4, 5])), [4, 5])


def test_load(tmp_path, samples):
  orbax_checkpoints.save_checkpoint(tmp_path, 5, {'target': fixture.params()}, SPEC)
  loaded = Transcriber.load(tmp_path).transcribe(samples, 16000)
  made = Transcriber(fixture.params(), SPEC).transcribe(samples, 16000)
  np.testing.assert_array_equal(loaded.notes, made.notes)
  with pytest.raises(UserError, match='no such checkpoint'):
    Transcriber.load(tmp_path / 'none')
