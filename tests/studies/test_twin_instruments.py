"""Tests of the twin-instrument task: a network with memory solves it, a network without memory guesses."""

import dataclasses
import functools

import numpy as np

from mrmt3 import train
from mrmt3.audio.files import read_audio
from mrmt3.data import slakh_layout
from mrmt3.data.example_config import ExampleConfig
from mrmt3.data.examples import Library, Part, Window
from mrmt3.data.sources.slakh import SlakhFolder
from mrmt3.engine import optimizers, partitioning, trainer, utils
from mrmt3.inference.transcriber import Transcriber
from mrmt3.models import MemoryEncoderDecoderModel
from mrmt3.studies import twin_instruments
from mrmt3.training import schedules

SECONDS = 32 * 256 / 16000
PROGRAM_IDS = [3 + 1132 + program for program in twin_instruments.TWINS]


def test_pieces_are_balanced_and_stay_in_their_segments():
  table = twin_instruments.compose(np.random.default_rng(0), SECONDS, pairs=4)
  segment, drums = (table['onset'] // SECONDS).astype(int), table['is_drum']
  assert set(segment[drums]) == {0, 2, 4, 6} and set(segment[~drums]) == {1, 3, 5, 7}
  np.testing.assert_array_equal(segment, table['offset'] // SECONDS)
  for cue in table[drums]:
    twins = table['program'][~drums & (segment == cue['onset'] // SECONDS + 1)]
    assert set(twins) == {twin_instruments.TWINS[twin_instruments.CUES.index(cue['pitch'])]}
  assert sorted(table['pitch'][drums]) == [36, 36, 38, 38]


def test_twins_sound_alike():
  table = twin_instruments.compose(np.random.default_rng(0), SECONDS, pairs=2)
  pitched = table[~table['is_drum']]
  other = pitched.copy()
  other['program'] = np.where(pitched['program'] == 40, 73, 40)
  render = functools.partial(twin_instruments.render, samples=40_000)
  np.testing.assert_array_equal(render(pitched, rng=None), render(other, rng=None))


def test_same_seed_same_bytes(tmp_path):
  for name in ('a', 'b'):
    twin_instruments.write_dataset(tmp_path / name, 3, 1, 1, SECONDS, pairs=2)
  files = sorted(path.relative_to(tmp_path / 'a') for path in (tmp_path / 'a').rglob('*') if path.is_file())
  assert len(files) > 10
  for file in files:
    assert (tmp_path / 'a' / file).read_bytes() == (tmp_path / 'b' / file).read_bytes()


def twin_accuracy(model_dir, data) -> float:
  """Return the share of the test set's twin segments whose first twin program is right."""
  transcriber = Transcriber.load(model_dir)
  library = Library(SlakhFolder(str(data)), transcriber.spec, ExampleConfig())
  right = []
  for piece, track in enumerate(slakh_layout.find_tracks(data, 'test')):
    found = transcriber.transcribe(read_audio(track.audio_path), 16000).segments
    for index, segment in enumerate(found):
      tokens, _ = library.tokens('test', Window((Part(piece, 32 * index),), 32))
      wanted = [token for token in tokens if token in PROGRAM_IDS]
      if wanted:
        right.append([token for token in segment.tokens if token in PROGRAM_IDS][:1] == wanted[:1])
  assert len(right) == 80
  return float(np.mean(right))


def test_memory_distinguishes_twins(tmp_path, small_spec):
  """A small version of `mrmt3 bench memory`: one note per segment and a minute of training."""
  from mrmt3.tasks import slakh as slakh_task

  data = tmp_path / 'data'
  twin_instruments.write_dataset(data, 0, 40, 20, SECONDS, pairs=4, notes_per_segment=1)
  accuracy = {}
  for memory_length in (8, 0):
    network = dataclasses.replace(
      small_spec.network,
      emb_dim=32,
      num_heads=2,
      head_dim=16,
      mlp_dim=64,
      dropout_rate=0.0,
      memory_length=memory_length,
    )
    spec = dataclasses.replace(
      small_spec,
      network=network,
      targets_length=16,
      spectrogram=dataclasses.replace(small_spec.spectrogram, scaling='none'),
    )
    lengths = {'inputs': 32, 'targets': 16, 'prior_targets': 16}
    task = slakh_task.task(str(data), spec, ExampleConfig(sampling='grid'), cache_bytes=1 << 27)
    train.train(
      model=MemoryEncoderDecoderModel(
        spec,
        optimizers.adamw(schedules.warmup_cosine(5e-3, 50, 450, 0.1)),
        loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
      ),
      train_dataset_cfg=utils.DatasetConfig(task, lengths, 'train', batch_size=32, shuffle=True, seed=0),
      train_eval_dataset_cfg=None,
      infer_eval_dataset_cfg=None,
      checkpoint_cfg=utils.CheckpointConfig(utils.SaveCheckpointConfig()),
      partitioner=partitioning.PjitPartitioner(),
      trainer_cls=functools.partial(trainer.Trainer, learning_rate_fn=lambda step: 0.0, num_microbatches=None),
      model_dir=str(tmp_path / f'model{memory_length}'),
      total_steps=450,
      eval_steps=1,
      eval_period=450,
      random_seed=0,
      summarize_config_fn=lambda *_: None,
      stats_period=25,
    )
    accuracy[memory_length] = twin_accuracy(tmp_path / f'model{memory_length}', data)
  assert accuracy[8] >= 0.95, accuracy
  assert 0.3 <= accuracy[0] <= 0.7, accuracy
