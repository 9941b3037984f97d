"""Measures the input pipeline's training examples per second, compared with magenta/mt3's on the same audio and notes.

    python benchmarks/input_pipeline.py --mt3 CHECKOUT --t5x CHECKOUT [--data DATA_DIR]

| | mrmt3 | magenta/mt3 (see mt3_pipeline.py) |
|---|---|---|
| examples | random segments of 256 frames, prior segment (max_hop 3), shuffling | its Slakh task, no prior segments |
| batch | 16 | 16 |
| log-mel | in the pipeline ('host'), or in the model, from raw samples ('device') | in the pipeline |
| kept between epochs | piece cache with events, on disk | tokenized pieces, in memory |
| "preparing" | TFRecords with float samples to the piece cache with events | the same records to tokenized pieces |

It also measures preparing from FLAC and MIDI files with mrmt3.

Without --data it first renders half an hour of music. Without --mt3 it prints only mrmt3's figures. --memory makes
20,000 examples and prints the growth of the process's memory.

MT3 and t5x are checkouts of their repositories and need not be installed, but their dependencies must be: mrmt3's extra
t5x, librosa, scikit-learn, t5 with --no-deps (otherwise it installs other versions of seqio), babel, nltk, portalocker,
rouge-score and sacrebleu. Two more modules must be on PYTHONPATH: `airio`, which is not on the package index, with
`core` and `pygrain_common` (t5x needs only the names DatasetProviderBase, Task, Mixture, AirIODatasetIterator and
dataset_providers), and a jestimator that imports PartitionSpec from jax.sharding (t5x needs only amos.ScaleByAmosState,
amos.amos and amos_helper.state_partition_rule). --python selects the interpreter with these packages.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mt3_pipeline
import numpy as np

BATCH_SIZE = 16
TARGETS = {'host': 3, 'device': 10, 'prepare': 5}  # target ratios to MT3's rate
MEMORY_EXAMPLES = 20_000
MEMORY_EVERY = 500  # examples between two measurements of the memory


def our_dataset(data_dir: str, spec, log_mel_on: str, cache_dir: str):
  """Return an infinite tf.data.Dataset of batches, as in `mrmt3.train`."""
  from mrmt3.data.example_config import ExampleConfig
  from mrmt3.data.feature_converters import MemoryFeatureConverter
  from mrmt3.engine import utils
  from mrmt3.tasks import slakh

  task = slakh.task(
    data_dir, spec, ExampleConfig(max_hop=3, shuffle_scope='paper', log_mel_on=log_mel_on), cache_dir=cache_dir
  )
  config = utils.DatasetConfig(
    mixture_or_task_name=task,
    task_feature_lengths={**lengths_of(spec), 'prior_targets': spec.targets_length},
    split='train',
    batch_size=BATCH_SIZE,
    shuffle=True,
    seed=0,
    trim_output_features=False,
  )
  return utils.get_dataset(config, MemoryFeatureConverter, seed=0)


def lengths_of(spec) -> dict[str, int]:
  """Return the feature lengths of both pipelines."""
  return {'inputs': spec.segment_frames, 'targets': spec.targets_length}


def measure_ours(data_dir: str, spec, cache_dir: str, seconds: float) -> dict[str, dict]:
  """Return `mt3_pipeline.measure` of 'host' and 'device', and 'prepare': seconds from files to events."""
  from mrmt3 import vocabularies
  from mrmt3.data import piece_cache
  from mrmt3.data.sources.slakh import SlakhFolder
  from mrmt3.training.data_iterator import DataIterator

  started = time.perf_counter()
  store = piece_cache.prepare(SlakhFolder(data_dir), 'train', spec.spectrogram.sample_rate, cache_dir=cache_dir)
  stored = time.perf_counter()
  store.encode(vocabularies.build_codec(spec.vocabulary))
  audio_seconds = float(store.lengths.sum() / spec.spectrogram.sample_rate)
  figures = {
    'prepare': {'audio_seconds': audio_seconds, 'store': stored - started, 'events': time.perf_counter() - stored}
  }
  for where in ('host', 'device'):
    with contextlib.closing(DataIterator(our_dataset(data_dir, spec, where, cache_dir))) as batches:
      figures[where] = mt3_pipeline.measure(batches, seconds)
  return figures


def prepare_records(records: Path, spec, cache_dir: str) -> float:
  """Return the seconds that mrmt3 needs to prepare MT3's records."""
  from mrmt3 import vocabularies
  from mrmt3.data import piece_cache
  from mrmt3.data.sources.mt3_records import Mt3Records

  started = time.perf_counter()
  source = Mt3Records(str(records.parent), 'slakh', {'train': records.name})
  store = piece_cache.prepare(source, 'train', spec.spectrogram.sample_rate, cache_dir=cache_dir)
  store.encode(vocabularies.build_codec(spec.vocabulary))
  return time.perf_counter() - started


def measure_mt3(args: argparse.Namespace, spec, records: Path) -> dict:
  """Run mt3_pipeline.py on the records; SystemExit with the end of its output if it fails."""
  paths = [*filter(None, [args.mt3, args.t5x, os.environ.get('PYTHONPATH')])]
  command = [args.python, mt3_pipeline.__file__, str(records), '--seconds', str(args.seconds)]
  command += ['--batch-size', str(BATCH_SIZE), '--lengths', json.dumps(lengths_of(spec))]
  done = subprocess.run(
    command, env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}, capture_output=True, text=True, check=False
  )
  if done.returncode:
    reason = done.stderr.strip().splitlines()[-1:] or [f'exit code {done.returncode}']
    raise SystemExit(f"MT3's pipeline failed: {reason[0]}\nSee the docstring of {__file__} for its dependencies")
  return json.loads(done.stdout.splitlines()[-1])


def measure_memory(data_dir: str, spec, cache_dir: str) -> None:
  """Make 20,000 examples with the log-mel on the host, and print this process's memory."""
  import psutil

  from mrmt3.training.data_iterator import DataIterator

  process, sizes = psutil.Process(), []
  with contextlib.closing(DataIterator(our_dataset(data_dir, spec, 'host', cache_dir))) as batches:
    for made in range(0, MEMORY_EXAMPLES, BATCH_SIZE):
      next(batches)
      if made % MEMORY_EVERY < BATCH_SIZE:
        sizes.append((made, process.memory_info().rss / 2**20))
  made, size = np.array(sizes[len(sizes) // 5 :]).T  # after the buffers have filled
  slope, _ = np.polyfit(made / 1000, size, 1)
  print(f'\nmemory over {MEMORY_EXAMPLES} examples: {", ".join(f"{size:.0f}" for _, size in sizes[::5])} MiB')
  print(
    f'slope after the first fifth: {slope:+.2f} MiB per 1000 examples (from {size.min():.0f} to {size.max():.0f} MiB)'
  )


def print_table(ours: dict, mt3: dict | None, audio_seconds: float) -> None:
  """Print figures, ratios and target ratios."""

  def row(name, unit, our_figure, mt3_figure=None, target=None):
    ratio = ''
    if mt3_figure:
      ratio = f'{mt3_figure:>10.0f} {our_figure / mt3_figure:>7.1f}x' + (f'  (target: {target}x)' if target else '')
    print(f'{name:<38} {unit:<11} {our_figure:>10.0f}{ratio}')

  print(f'\n{"":<38} {"":<11} {"mrmt3":>10}' + (f'{"mt3":>10} {"ratio":>8}' if mt3 else ''))
  per_second = mt3 and mt3['examples_per_second']
  row('training, log-mel on the host', 'examples/s', ours['host']['examples_per_second'], per_second, TARGETS['host'])
  row(
    'training, log-mel on the device',
    'examples/s',
    ours['device']['examples_per_second'],
    per_second,
    TARGETS['device'],
  )
  mt3_cpu = mt3 and 1 / mt3['cpu_seconds']
  row('the same, host, processor time', 'examples/s', 1 / ours['host']['cpu_seconds'], mt3_cpu)
  row('the same, device, processor time', 'examples/s', 1 / ours['device']['cpu_seconds'], mt3_cpu)
  prepare = ours['prepare']
  if mt3:
    mt3_rate = audio_seconds / mt3['tokenize_seconds']
    row('preparing: records to events', 'audio s/s', audio_seconds / ours['records'], mt3_rate, TARGETS['prepare'])
  row('preparing: FLAC and MIDI to events', 'audio s/s', audio_seconds / (prepare['store'] + prepare['events']))
  row('preparing: notes to events only', 'audio s/s', audio_seconds / prepare['events'])
  row('tokens per target', '', ours['host']['tokens_per_target'], mt3 and mt3['tokens_per_target'])


def render(folder: str) -> str:
  """Render half an hour of music into a folder and return it."""
  command = [sys.executable, '-m', 'mrmt3', 'dataset', 'build', '--recipe', 'corpus', '--hours', '0.5', folder]
  if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
    raise SystemExit(code)  # the command has printed the reason
  return folder


def main() -> None:
  """Render, measure and print."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data', metavar='DIR', help='data set in the Slakh layout, with a train split')
  parser.add_argument('--mt3', metavar='DIR', help='checkout of magenta/mt3')
  parser.add_argument('--t5x', metavar='DIR', help='checkout of google-research/t5x')
  parser.add_argument(
    '--python', metavar='FILE', default=sys.executable, help='interpreter for MT3 (default: this one)'
  )
  parser.add_argument(
    '--seconds', type=float, default=20, help='measuring time per pipeline, after a warm-up (default: 20)'
  )
  parser.add_argument('--memory', action='store_true', help='also measure memory over 20,000 examples')
  args = parser.parse_args()

  from mrmt3.config import ModelSpec
  from mrmt3.data.sources.slakh import SlakhFolder
  from mrmt3.network import T5Config
  from mrmt3.utils.tensorflow_setup import start_tensorflow
  from mrmt3.vocabularies import VocabularyConfig, num_embeddings

  start_tensorflow()

  spec = ModelSpec(network=T5Config(vocab_size=num_embeddings(VocabularyConfig(num_velocity_bins=1))))
  with tempfile.TemporaryDirectory() as folder:
    data_dir = args.data or render(f'{folder}/data')
    ours, mt3 = measure_ours(data_dir, spec, folder, args.seconds), None
    audio_seconds = ours['prepare'].pop('audio_seconds')
    if args.mt3:
      records = Path(folder, 'train.tfrecord')
      mt3_pipeline.write_records(records, SlakhFolder(data_dir), 'train', spec.spectrogram.sample_rate)
      ours['records'] = prepare_records(records, spec, folder)
      mt3 = measure_mt3(args, spec, records)
    print(f'{os.cpu_count()} processors, {audio_seconds / 3600:.2f} hours of audio, batches of {BATCH_SIZE}')
    print_table(ours, mt3, audio_seconds)
    sys.stdout.flush()
    if args.memory:
      measure_memory(data_dir, spec, folder)


if __name__ == '__main__':
  from mrmt3.errors import UserError

  try:
    main()
  except UserError as error:
    raise SystemExit(f'input_pipeline: error: {error}') from None
