"""Shared fixtures: twin-instrument pieces in the Slakh layout, and the spec of a small network."""

import atexit
import dataclasses
import os
import shutil
import signal
import tempfile

import compiled_programs
import pytest

# Compilation dominates small runs, so tests compile without optimization, and keep what they compiled for the next run
# (tests/compiled_programs.py). JAX reads these variables on import, so they are set here and not in a fixture.
if 'PYTEST_XDIST_WORKER' not in os.environ:  # workers inherit what their parent has set
  _CACHE = tempfile.mkdtemp(prefix='mrmt3-test-cache-')
  atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
  os.environ.update(
    MRMT3_CACHE=_CACHE,  # do not use the user's cache
    JAX_COMPILATION_CACHE_DIR=str(compiled_programs.start()),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='-1',
    JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES='none',  # they put the folder's name into the keys
    XLA_FLAGS=' '.join([os.environ.get('XLA_FLAGS', ''), *compiled_programs.XLA_FLAGS]).strip(),
  )

# Background jobs of a shell ignore SIGINT, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

SEGMENT_FRAMES = 32
HOP = 256
SEGMENT_SECONDS = SEGMENT_FRAMES * HOP / 16000


def pytest_addoption(parser):
  parser.addoption(
    '--max-skips', type=int, metavar='N', help='fail if more than N tests or modules are skipped, and name them'
  )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
  """Fail a run that skips more than it may: what is skipped proves nothing."""
  most, reporter = session.config.getoption('--max-skips'), session.config.pluginmanager.get_plugin('terminalreporter')
  if most is None or reporter is None:  # workers have no reporter
    return
  skipped = reporter.stats.get('skipped', [])
  reporter.write_line(f'\nskipped: {len(skipped)}; allowed: {most}')
  if len(skipped) > most:
    for report in skipped:
      reporter.write_line(f'  {report.nodeid}: {report.longrepr[2] if report.longrepr else ""}')
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
  """JAX keeps every program that a process compiles: bound the memory of a run."""
  compiled_programs.forget_many()


@pytest.fixture(scope='session')
def small_data(tmp_path_factory):
  """A folder with 3 training and 1 test piece of 4 segments each."""
  from mrmt3.studies import twin_instruments

  folder = tmp_path_factory.mktemp('data') / 'twins'
  twin_instruments.write_dataset(
    folder, seed=1, train_pieces=3, test_pieces=1, segment_seconds=SEGMENT_SECONDS, pairs=2
  )
  return folder


@pytest.fixture(scope='session')
def small_spec():
  """A ModelSpec of a network with memory that compiles and runs in seconds."""
  from mrmt3.config import ModelSpec
  from mrmt3.network import T5Config
  from mrmt3.spectrograms import SpectrogramConfig
  from mrmt3.vocabularies import VocabularyConfig

  return ModelSpec(
    network=T5Config(
      vocab_size=1536,
      emb_dim=16,
      num_heads=2,
      num_encoder_layers=1,
      num_decoder_layers=1,
      head_dim=8,
      mlp_dim=16,
      dropout_rate=0.1,
      memory_length=4,
    ),
    spectrogram=SpectrogramConfig(hop_width=HOP, num_mel_bins=32, scaling='unit'),
    vocabulary=VocabularyConfig(num_velocity_bins=1),
    segment_frames=SEGMENT_FRAMES,
    targets_length=64,
  )


@pytest.fixture(scope='session')
def small_model(tmp_path_factory, small_spec):
  """A folder with a checkpoint of `small_spec` with random parameters."""
  import jax
  import numpy as np

  from mrmt3.checkpoints import orbax as orbax_checkpoints

  folder = tmp_path_factory.mktemp('small') / 'model'
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32), small_spec.parameter_shapes())
  orbax_checkpoints.save_checkpoint(folder, 0, {'target': params}, small_spec)
  return folder


@pytest.fixture(scope='session')
def small_hybrid_spec(small_spec):
  """As `small_spec`, of the hybrid: with what a frame loss trains, else without parts of its own."""
  from mrmt3.hybrid import HybridConfig

  fields = {field.name: getattr(small_spec.network, field.name) for field in dataclasses.fields(small_spec.network)}
  plain = dict(time_stride=1, output_positions=False, num_candidates=0, event_state=False, last_event=False)
  return dataclasses.replace(small_spec, network=HybridConfig(**fields, front='linear', **plain))
