"""Scoring of whole pieces during training: in each memory mode, on several devices, with bounded host memory."""

import dataclasses
import functools
import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from paths import ROOT

from mrmt3 import train
from mrmt3.data.example_config import ExampleConfig
from mrmt3.engine import adafactor, partitioning, trainer, utils
from mrmt3.errors import UserError
from mrmt3.evaluation import piece_metrics
from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel, evaluating_pieces
from mrmt3.framewise import FrameObjective
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.notes.note_array import empty_notes
from mrmt3.studies import twin_instruments
from mrmt3.tasks import slakh
from mrmt3.tokens.segment_targets import empty_segment
from mrmt3.vocabularies import build_codec

LENGTHS = {'inputs': 32, 'targets': 64, 'prior_targets': 64}


def scored_training(model_dir, data, spec, *, total_steps, eval_period, memory='predicted', batch_size=2, **model):
  """Train on random segments and score the test split's pieces every eval_period steps."""
  pieces = slakh.task(str(data), spec, ExampleConfig(sampling='pieces', log_mel_on='device'))
  segments = slakh.task(str(data), spec, ExampleConfig(sampling='grid'))
  return train.train(
    model=evaluating_pieces(MemoryEncoderDecoderModel(spec, adafactor.Adafactor(), **model), memory=memory),
    train_dataset_cfg=utils.DatasetConfig(segments, LENGTHS, 'train', batch_size=8, shuffle=True, seed=None),
    train_eval_dataset_cfg=None,
    infer_eval_dataset_cfg=utils.DatasetConfig(
      pieces,
      {'inputs': None, 'targets': None},
      'test',
      batch_size=batch_size,
      shuffle=False,
      seed=0,
      use_memory_cache=False,
    ),
    checkpoint_cfg=utils.CheckpointConfig(utils.SaveCheckpointConfig(period=total_steps), None),
    partitioner=partitioning.PjitPartitioner(),
    trainer_cls=functools.partial(
      trainer.Trainer,
      learning_rate_fn=utils.create_learning_rate_scheduler('constant', base_learning_rate=2e-2),
      num_microbatches=None,
    ),
    model_dir=str(model_dir),
    total_steps=total_steps,
    eval_steps=1,
    eval_period=eval_period,
    random_seed=0,
    summarize_config_fn=lambda *_: None,
    stats_period=eval_period,
  )


def test_training_reports_scores_pictures_and_sound(tmp_path, small_data, small_hybrid_spec, capsys):
  import tensorflow as tf
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  scored_training(tmp_path, small_data, small_hybrid_spec, total_steps=4, eval_period=2, objective=FrameObjective())
  folder = tmp_path / 'inference_eval'
  (metrics_file,) = folder.glob('*-metrics.jsonl')
  task = metrics_file.name.removesuffix('-metrics.jsonl')
  lines = [json.loads(line) for line in metrics_file.read_text().splitlines()]
  assert [line['step'] for line in lines] == [2, 4]
  assert {'onset_f1', 'leakage_ratio', 'published_leakage_ratio', 'leaked_note_ratio', 'macro_class_f1'} <= lines[
    0
  ].keys()
  for step, line in zip((2, 4), lines, strict=True):
    pieces = [json.loads(text) for text in (folder / f'{task}-pieces-{step}.jsonl').read_text().splitlines()]
    assert [piece['piece'] for piece in pieces] == ['Track00000']
    assert pieces[0]['scores']['leakage_ratio'] == line['leakage_ratio']
  assert f'{task} step 4: 1 piece' in capsys.readouterr().err
  events = EventAccumulator(str(folder / task), size_guidance={'tensors': 0})
  events.Reload()
  leakage = {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors('eval/leakage_ratio')}
  assert leakage == {line['step']: pytest.approx(line['leakage_ratio']) for line in lines}
  for tag, starts in (('Track00000/roll', b'\x89PNG'), ('Track00000/sound', b'RIFF')):
    media = events.Tensors(tag)
    assert [event.step for event in media] == [2, 4]
    assert all(event.tensor_proto.string_val[-2 if starts == b'RIFF' else -1].startswith(starts) for event in media)


@pytest.fixture(scope='module')
def weights(small_spec):
  from mrmt3.network import Transformer

  tokens = np.zeros((1, 64), np.int32)
  init = Transformer(small_spec.network).init(
    jax.random.key(3), np.zeros((1, 32, 32)), tokens, tokens, enable_dropout=False, prior_tokens=tokens
  )
  params = jax.tree.map(np.array, init['params'])
  params['decoder']['logits_dense']['kernel'] *= 3
  return params


@pytest.mark.parametrize('held', [1, 2])
def test_memory_modes_hand_on_what_they_say(weights, small_spec, held):
  from mrmt3.decoding import greedy

  small_spec = dataclasses.replace(small_spec, network=dataclasses.replace(small_spec.network, memory_segments=held))

  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
  targets = np.zeros((2, 3, 64), np.int32)
  targets[:, :, :20], targets[:, :, 20] = rng.integers(3, 1000, (2, 3, 20)), 1
  batch = {'encoder_input_tokens': inputs, 'decoder_target_tokens': targets, 'num_segments': np.array([[3], [2]])}
  empty = empty_segment(build_codec(small_spec.vocabulary))
  empty = np.tile(np.pad(empty, (0, 64 - len(empty))), (2, held))
  predicted = {}
  for memory in ('predicted', 'truth', 'none'):
    tokens = np.asarray(jax.jit(PieceEncoderDecoderModel(small_spec, memory=memory).predict_batch)(weights, batch))
    prior = empty
    for segment in range(3):
      active = segment < batch['num_segments'][:, 0]
      expected = greedy.transcribe_segments(
        weights, inputs[:, segment], {'prior_tokens': prior}, active, spec=small_spec, max_length=64
      )
      np.testing.assert_array_equal(tokens[:, segment], expected)
      if memory != 'none':
        latest = expected if memory == 'predicted' else targets[:, segment]
        prior = np.concatenate([prior[:, 64:], latest], axis=1)
    predicted[memory] = tokens
  assert (predicted['truth'] != predicted['none']).any() and (predicted['predicted'] != predicted['none']).any()
  if held == 2:  # the memory also holds the segment before: changes in it affect the segment after next
    changed = {**batch, 'decoder_target_tokens': targets.copy()}
    changed['decoder_target_tokens'][0, 0, :20] = rng.integers(3, 1000, 20)
    model = PieceEncoderDecoderModel(small_spec, memory='truth')
    scores = [
      model.score_batch(
        weights, {**x, 'decoder_loss_weights': np.eye(3)[2][None, :, None] * (x['decoder_target_tokens'] > 0)}
      )
      for x in (batch, changed)
    ]
    assert scores[0][0] != scores[1][0] and scores[0][1] == scores[1][1]
  with pytest.raises(UserError, match="memory is 'best'"):
    PieceEncoderDecoderModel(small_spec, memory='best')
  with pytest.raises(UserError, match='model is a ModelSpec'):
    evaluating_pieces(small_spec)


def test_samples_on_the_device_give_the_tokens_of_log_mels_on_the_host(weights, small_data, small_spec):
  import seqio

  tokens = {}
  for log_mel_on in ('host', 'device'):
    task = slakh.task(str(small_data), small_spec, ExampleConfig(sampling='pieces', log_mel_on=log_mel_on))
    model = PieceEncoderDecoderModel(small_spec, log_mel_on=log_mel_on)
    dataset = seqio.get_mixture_or_task(task).get_dataset(None, split='train', shuffle=False)
    batch = next(
      model.FEATURE_CONVERTER_CLS(pack=False)(dataset, {'inputs': None, 'targets': None}).batch(1).as_numpy_iterator()
    )
    assert (
      batch['encoder_input_frames'][0, :4].tolist() == [32, 32, 32, 32]
      and not batch['encoder_input_frames'][0, 5:].any()
    )
    tokens[log_mel_on] = np.asarray(jax.jit(model.predict_batch)(weights, batch))
  assert np.mean(tokens['host'] == tokens['device']) > 0.99


def test_scores_of_pieces_with_and_without_names():
  nothing = piece_metrics.PieceNotes('', empty_notes())
  assert piece_metrics.scores([nothing, nothing], [nothing, nothing])['leakage_ratio'] == 1


def test_an_evaluation_that_is_repeated_takes_the_place_of_its_line(tmp_path):
  from mrmt3.evaluation import seqio_loggers

  path = tmp_path / 'x-metrics.jsonl'
  for step, value in ((1, 0.5), (2, 0.6), (1, 0.7)):
    seqio_loggers.write_metrics_line(path, step, {'f1': value})
  assert [json.loads(line) for line in path.read_text().splitlines()] == [
    {'step': 2, 'f1': 0.6},
    {'step': 1, 'f1': 0.7},
  ]


def _free_port():
  with socket.socket() as server:
    server.bind(('localhost', 0))
    return server.getsockname()[1]


def _evaluate(model_dir, data, out, devices=1, processes=1):
  """Run evaluate_on_devices.py and return (metrics, tokens of each piece)."""
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  environment['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  script, address = str(ROOT / 'tests' / 'evaluate_on_devices.py'), f'localhost:{_free_port()}'
  more = [[str(index), str(processes), address] for index in range(processes)] if processes > 1 else [[]]
  running = [
    subprocess.Popen(
      [sys.executable, script, str(model_dir), str(data), str(out), *arguments],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for arguments in more
  ]
  for process in running:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
  (line,) = next(out.glob('inference_eval/*-metrics.jsonl')).read_text().splitlines()
  tokens = np.load(out / 'tokens.npz')
  assert int(tokens['devices']) == devices * processes
  return json.loads(line), [tokens[name] for name in tokens.files if name != 'devices']


@pytest.mark.slow
def test_scores_are_the_same_on_any_number_of_devices(tmp_path, small_spec, capsys):
  data = tmp_path / 'twins'
  twin_instruments.write_dataset(
    data, seed=1, train_pieces=24, test_pieces=11, segment_seconds=32 * 256 / 16000, pairs=2
  )
  scored_training(tmp_path / 'model', data, small_spec, total_steps=600, eval_period=600, batch_size=4)
  results = {
    '1 device': _evaluate(tmp_path / 'model', data, tmp_path / 'one'),
    '8 devices': _evaluate(tmp_path / 'model', data, tmp_path / 'eight', devices=8),
    '2 processes': _evaluate(tmp_path / 'model', data, tmp_path / 'two', processes=2),
  }
  scores, tokens = results['1 device']
  assert scores['onset_f1'] > 0.1  # it has learnt something that could differ
  for name, (others, other_tokens) in results.items():
    real = [(one > 0) | (other > 0) for one, other in zip(tokens, other_tokens, strict=True)]
    same = sum(int((one == other)[places].sum()) for one, other, places in zip(tokens, other_tokens, real, strict=True))
    agreement = same / sum(int(places.sum()) for places in real)
    with capsys.disabled():
      count = sum(int(places.sum()) for places in real)
      print(f'\n{name}: {agreement:.2%} of {count} tokens agree, onset F1 {others["onset_f1"]:.4f}')
    assert agreement > 0.99
    assert others == {key: pytest.approx(value, abs=1e-3) for key, value in scores.items()}


@pytest.mark.slow
def test_fifty_pieces_of_four_minutes_take_less_than_3_gb(tmp_path):
  import soundfile

  from mrmt3 import config, network
  from mrmt3.checkpoints import orbax as orbax_checkpoints
  from mrmt3.notes.midi import write_midi
  from mrmt3.notes.note_array import as_notes

  rng = np.random.default_rng(0)
  sound = rng.normal(0, 0.1, 240 * 16000).astype(np.float32)
  for number in range(50):
    track = tmp_path / 'data' / 'test' / f'Track{number:05}'
    onsets = np.sort(rng.uniform(0, 238, 3000))
    pitches, velocities, zeros = rng.integers(30, 90, 3000), np.full(3000, 90), np.zeros(3000)
    write_midi(
      as_notes(np.stack([onsets, onsets + 0.3, pitches, velocities, zeros, zeros], axis=1)), track / 'MIDI' / 'S00.mid'
    )
    soundfile.write(track / 'mix_16k.wav', np.roll(sound, number * 999), 16000)
    rendered = 'audio_rendered: true, integrated_loudness: -20.0, is_drum: false, midi_saved: true'
    stem = f'{{{rendered}, program_num: 0, inst_class: Piano}}'
    (track / 'metadata.yaml').write_text(f'stems:\n  S00: {stem}\n')
  sizes = dict(
    emb_dim=32, num_heads=2, num_encoder_layers=1, num_decoder_layers=1, head_dim=16, mlp_dim=32, memory_length=8
  )
  spec = config.ModelSpec(network.T5Config(vocab_size=1536, **sizes))
  shapes = spec.parameter_shapes()
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  # The decoder's output is a constant, EOS, so that only the input and output of pieces are measured.
  params['decoder']['token_embedder']['embedding'][:] = 10
  params['decoder']['decoder_norm']['scale'][:] = 1
  params['decoder']['logits_dense']['kernel'][:, 1] = 1
  orbax_checkpoints.save_checkpoint(tmp_path / 'model', 1, {'target': params}, spec)
  run = (
    'import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); '
    'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)'
  )
  bindings = [f'--gin.network.T5Config.{name}={value}' for name, value in sizes.items()]
  result = subprocess.run(
    [
      sys.executable,
      '-c',
      run,
      sys.executable,
      '-m',
      'mrmt3.eval',
      '--gin_file=models/base.gin',
      '--gin_file=runs/eval.gin',
      f'--gin.CHECKPOINT_PATH={tmp_path / "model"}',
      f'--gin.OUTPUT_DIR={tmp_path / "out"}',
      f'--gin.DATA_DIR={tmp_path / "data"}',
      '--gin.BATCH_SIZE=4',
      '--gin.seqio_loggers.PictureLogger.pieces=1',
      *bindings,
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  gigabytes = int(result.stdout.splitlines()[-1]) / 1e6
  print(f'{gigabytes:.2f} GB')
  assert ': 50 pieces' in result.stderr
  assert gigabytes < 3
