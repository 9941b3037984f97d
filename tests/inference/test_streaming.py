"""The Python API: whole pieces, streams, batches of pieces, threads, and result formats."""

import concurrent.futures
import dataclasses
import io
import itertools
import subprocess
import sys

import jax
import mido
import network_fixture as fixture
import numpy as np
import pytest
import soundfile

import mrmt3
from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.config import ModelSpec
from mrmt3.errors import DataWarning, UserError
from mrmt3.inference import batched_pieces
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.inference.transcriber import Transcriber
from mrmt3.notes import midi as midi_io
from mrmt3.notes.note_array import NOTE_DTYPE, Note, sort_notes
from mrmt3.spectrograms import SpectrogramConfig

SPEC = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
SEGMENT = 40 * 128  # samples


def musical_params():
  """Random weights that predict more notes than time shifts, so that streams have notes to compare."""
  params = jax.tree.map(np.array, fixture.params())
  kernel = params['decoder']['logits_dense']['kernel']
  kernel[:, 23:1004] *= 0.3  # all but short time shifts
  kernel[:, 1391:] = 0  # no events
  return params


@pytest.fixture(scope='module')
def transcriber():
  return Transcriber(musical_params(), SPEC)


def noise(samples, seed=0):
  return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def table(notes):
  return sort_notes(np.array(list(notes), NOTE_DTYPE))


@pytest.mark.parametrize('length', [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 7 * SEGMENT + 300])
def test_streamed_equals_offline(transcriber, length):
  samples = noise(length)
  offline = transcriber.transcribe(samples, 16000)
  assert len(offline.segments) == length // SEGMENT + 1
  assert offline.seconds == length / 16000
  assert length < 7 * SEGMENT or len(offline.notes) > 20
  for size in (300, SEGMENT, 3 * SEGMENT + 5):
    blocks = [samples[start : start + size] for start in range(0, length, size)]
    notes = list(transcriber.stream(blocks, 16000))
    assert all(isinstance(note, Note) for note in notes)
    np.testing.assert_array_equal(table(notes), offline.notes)


def test_streamed_stereo_at_another_rate_equals_offline(transcriber):
  sound = noise((30000, 2))
  offline = transcriber.transcribe(sound, 44100)
  assert len(offline.notes)
  notes = transcriber.stream(np.split(sound, [1, 700, 12345]), 44100)
  np.testing.assert_array_equal(table(notes), offline.notes)


def test_notes_are_returned_while_audio_arrives(transcriber):
  taken = itertools.count()
  blocks = (noise(SEGMENT, next(taken)) for _ in itertools.repeat(None))  # without end
  stream = transcriber.stream(blocks, 16000)
  assert len(list(itertools.islice(stream, 20))) == 20
  # Blocks taken are blocks decoded: nothing is read ahead.
  first = next(taken)
  whole = transcriber.transcribe(np.concatenate([noise(SEGMENT, seed) for seed in range(first)]), 16000)
  assert len(whole.notes) >= 20
  assert len(list(transcriber.stream((noise(SEGMENT, seed) for seed in range(first - 1)), 16000))) >= 1


def test_files_and_samples_are_the_same(transcriber, tmp_path):
  sound = noise((20000, 2))
  audio_files.write_audio(tmp_path / 'a.wav', sound, 44100)
  samples, rate = soundfile.read(tmp_path / 'a.wav')
  calls = []
  result = transcriber.transcribe(tmp_path / 'a.wav', progress=lambda *args: calls.append(args))
  np.testing.assert_array_equal(result.notes, transcriber.transcribe(samples, rate).notes)
  assert calls[-1] == (result.seconds, 20000 / 44100)
  assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_batch_equals_one_piece_at_a_time_in_order(transcriber):
  pieces = [noise(n, seed) for seed, n in enumerate((9 * SEGMENT, 100, 4 * SEGMENT, SEGMENT, 6 * SEGMENT + 1))]
  alone = [transcriber.transcribe(piece, 16000) for piece in pieces]
  together = list(transcriber.transcribe_many(iter(pieces), 16000, batch=3))
  assert len(together) == len(alone)
  for one, other in zip(alone, together, strict=True):
    assert [s.tokens.tolist() for s in one.segments] == [s.tokens.tolist() for s in other.segments]
    np.testing.assert_array_equal(one.notes, other.notes)
    assert one.stats == other.stats


def test_a_broken_piece_does_not_stop_the_others(transcriber):
  def broken():
    yield noise(2 * SEGMENT)
    raise UserError('the cable is out')

  pieces = [
    batched_pieces.Piece([noise(4 * SEGMENT)], 0),
    batched_pieces.Piece(broken(), 1),
    batched_pieces.Piece([noise(99)], 2),
  ]
  results = {piece.key: result for piece, result in batched_pieces.collect(transcriber.run(iter(pieces), batch=2))}
  assert isinstance(results[1], UserError)
  np.testing.assert_array_equal(results[0].notes, transcriber.transcribe(noise(4 * SEGMENT), 16000).notes)
  assert len(results[2].segments) == 1


def test_threads_may_share_a_transcriber(transcriber):
  pieces = [noise(3 * SEGMENT + 7, seed) for seed in range(6)]
  alone = [transcriber.transcribe(piece, 16000).notes for piece in pieces]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    together = pool.map(lambda piece: transcriber.transcribe(piece, 16000).notes, pieces)
    for one, other in zip(alone, together, strict=True):
      np.testing.assert_array_equal(one, other)


def test_hop_remembers_the_segment_that_far_back(monkeypatch):
  from mrmt3.decoding import greedy

  priors = []

  def fake(params, inputs, context, active, allowed, weights, *, spec, max_length):
    priors.append(np.where(active[:, None], context['prior_tokens'], -1))
    predicted = np.zeros((len(inputs), max_length), np.int32)
    predicted[:, 0] = 100 * len(priors) + np.arange(len(inputs))
    return predicted

  monkeypatch.setattr(greedy, 'transcribe_segments', fake)
  transcriber = Transcriber(fixture.params(), SPEC)
  result = transcriber.transcribe(noise(7 * SEGMENT - 1), 16000, hop=3)
  assert [s.tokens[0] for s in result.segments] == [100, 101, 102, 200, 201, 202, 300]
  assert [list(p[:, 0]) for p in priors] == [[1134] * 3, [100, 101, 102], [200, -1, -1]]
  with pytest.raises(UserError, match='hop is 0'):
    transcriber.transcribe(noise(9), 16000, hop=0)


def test_resuming_gives_the_same_result(transcriber):
  samples = noise(9 * SEGMENT + 50)
  for hop, known in ((1, 4), (2, 5), (1, 10), (4, 10)):
    whole = transcriber.transcribe(samples, 16000, hop=hop)
    tokens = tuple(segment.tokens for segment in whole.segments[:known])
    piece = batched_pieces.Piece([samples], known=tokens)
    ((_, resumed),) = batched_pieces.collect(transcriber.run([piece], hop=hop))
    np.testing.assert_array_equal(resumed.notes, whole.notes)
    assert [s.tokens.tolist() for s in resumed.segments] == [s.tokens.tolist() for s in whole.segments]
    assert resumed.stats == whole.stats


def test_only_allowed_instruments_are_predicted(transcriber):
  samples = noise(12 * SEGMENT)
  everything = transcriber.transcribe(samples, 16000)
  predicted = set(np.concatenate([s.tokens for s in everything.segments]).tolist())
  choice = InstrumentChoice.parse('Strings, drums')
  forbidden = np.flatnonzero(~choice.allowed_tokens(transcriber.codec, 1536))
  assert predicted & set(forbidden.tolist())  # otherwise the test checks nothing
  result = transcriber.transcribe(samples, 16000, instruments='Strings, drums')
  assert not set(np.concatenate([s.tokens for s in result.segments]).tolist()) & set(forbidden.tolist())
  assert set(result.notes['program'][~result.notes['is_drum']].tolist()) <= set(range(40, 52))
  np.testing.assert_array_equal(table(transcriber.stream([samples], 16000, instruments='strings,drums')), result.notes)


def test_names_of_instruments():
  assert InstrumentChoice.parse('bass').programs == set(range(32, 40))
  assert InstrumentChoice.parse(['electric-bass', '56', '70-71', 'Drums']) == InstrumentChoice(
    frozenset([*range(33, 40), 56, 70, 71]), True
  )
  assert InstrumentChoice.parse('ocarina').programs == {79}
  for bad in ('', 'kazoo', '128', '9-3'):
    with pytest.raises(UserError, match='instruments'):
      InstrumentChoice.parse(bad)


def test_all_result_formats(transcriber):
  from note_seq.protobuf import music_pb2

  result = transcriber.transcribe(noise(9 * SEGMENT), 16000)
  assert len(result.notes) > 10
  sequence = music_pb2.NoteSequence.FromString(result.note_sequence().SerializeToString())
  assert [(n.start_time, n.end_time, n.pitch) for n in sequence.notes] == [
    (n['onset'], n['offset'], n['pitch']) for n in result.notes
  ]
  midi = result.pretty_midi()
  assert sum(len(track.notes) for track in midi.instruments) == len(result.notes)
  np.testing.assert_array_equal(midi_io.notes_from_midi_data(midi), result.notes)
  assert all(track.name for track in midi.instruments)
  tracks = mido.MidiFile(file=io.BytesIO(result.midi())).tracks
  assert len(tracks) == len(midi.instruments) + 1


def test_invalid_audio_raises_user_errors(transcriber, tmp_path):
  for sound, message in (
    (np.zeros(9, np.int16), 'int16'),
    (np.zeros((2, 2, 2), np.float32), r'\[2, 2, 2\]'),
    (np.array([0, np.nan], np.float32), 'no numbers'),
    (tmp_path / 'none.wav', 'no such file'),
  ):
    with pytest.raises(UserError, match=message):
      transcriber.transcribe(sound, 16000)
  for rate in (0, -1, 44100.5, float('nan'), 'fast', 3, 1e9, [44100]):
    with pytest.raises(UserError, match='sample_rate'):
      transcriber.transcribe(noise(9), rate)
  nothing, ragged = np.zeros((9, 0)), [[1.0], [1.0, 2.0]]
  for sound in (None, 3.0, b'a.wav', ['a.wav'], ragged, nothing, np.zeros(9, bool), 1j * noise(9)):
    with pytest.raises(UserError, match=r'audio (is|has)'):
      transcriber.transcribe(sound, 16000)
  with pytest.raises(UserError, match='int16'):
    list(transcriber.stream([np.zeros(9, np.int16)], 16000))


def test_samples_need_a_rate_and_files_do_not(transcriber, tmp_path):
  many, stream = transcriber.transcribe_many, transcriber.stream
  for call in (transcriber.transcribe, lambda x: list(stream([x])), lambda x: list(many([x]))):
    with pytest.raises(UserError, match=r'sample rate .* is not given'):
      call(noise(99))
  audio_files.write_audio(tmp_path / 'a.wav', noise(2 * SEGMENT), 16000)
  assert transcriber.transcribe(str(tmp_path / 'a.wav')).seconds == pytest.approx(2 * SEGMENT / 16000)


def test_channels_first_is_refused(transcriber):
  sound = noise((2 * SEGMENT, 2))
  for shape in ((2, 2 * SEGMENT), (1, 2 * SEGMENT)):
    for call in (transcriber.transcribe, lambda x, rate: list(transcriber.stream([x], rate))):
      with pytest.raises(UserError, match=r'more channels than samples; give \[n, channels\]'):
        call(noise(shape), 16000)
  assert transcriber.transcribe(sound, 16000).seconds == 2 * SEGMENT / 16000
  list(transcriber.stream([sound[:1], sound[1:]], 16000))  # a short block of stereo
  with pytest.raises(UserError, match='3 channels and those before 2'):
    list(transcriber.stream([sound, noise((99, 3))], 16000))


def test_odd_samples_are_handled_and_said_to_be_odd(transcriber):
  sound = noise(4 * SEGMENT)
  wanted = transcriber.transcribe(sound, 16000).notes
  assert len(wanted)
  for odd, message in (
    (32768 * sound, '16-bit integers'),
    (np.stack([sound, -sound], 1), 'opposite polarity'),
  ):
    with pytest.warns(DataWarning, match=message) as caught:
      np.testing.assert_array_equal(transcriber.transcribe(odd, 16000).notes, wanted)
    assert len(caught) == 1
  with pytest.warns(DataWarning, match='very quiet'):
    transcriber.transcribe(sound * 1e-4, 16000)
  with pytest.warns(DataWarning, match='silent'):
    list(transcriber.stream([np.zeros((9, 2))], 16000))
  with pytest.raises(UserError, match='full scale'):
    list(transcriber.stream([32768 * sound], 16000))


def test_load_by_folder(tmp_path):
  spec = dataclasses.replace(SPEC, prior_layout='start_token')
  orbax_checkpoints.save_checkpoint(tmp_path, 5, {'target': fixture.params()}, spec)
  loaded = mrmt3.load(tmp_path).transcribe(noise(2 * SEGMENT), 16000).notes
  np.testing.assert_array_equal(loaded, Transcriber(fixture.params(), spec).transcribe(noise(2 * SEGMENT), 16000).notes)
  with pytest.raises(UserError, match='no such checkpoint'):
    mrmt3.load(tmp_path / 'none')


LONG = """
import itertools, resource, sys
import numpy as np
from mrmt3 import inference, network
from mrmt3.config import ModelSpec
import jax

config = network.T5Config(1536, emb_dim=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=8,
                          mlp_dim=16, memory_length=4)
spec = ModelSpec(config, targets_length=12)
rng = np.random.default_rng(0)
shapes = spec.parameter_shapes()
params = jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes)
params['decoder']['logits_dense']['kernel'][:, :1004] = 0  # notes, no times
transcriber = inference.Transcriber(params, spec)
def blocks(seconds):
  for _ in range(seconds): yield rng.normal(0, 0.1, 44100).astype(np.float32)
count = 0
for seconds in map(int, sys.argv[1:]):
  for _ in transcriber.stream(blocks(seconds), 44100): count += 1
  print(seconds, count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_two_hours_within_1500_megabytes():
  """Peak memory in MB after 2 minutes and after 2 hours."""
  done = subprocess.run([sys.executable, '-c', LONG, '120', '7200'], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  (_, _, short), (_, notes, long) = (map(int, line.split()) for line in done.stdout.splitlines())
  assert notes > 3000
  assert long < 1500
  assert long < short + 50, (short, long)
