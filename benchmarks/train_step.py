"""Times a training step: mrmt3, real t5x with magenta/mt3's network, and the matrix products only.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --t5x t5x --mt3 mt3 --peer_python peer/bin/python

--t5x and --mt3 are checkouts of google-research/t5x and magenta/mt3. --peer_python is an interpreter with their
dependencies. Each side runs in its own process, one after the other, with the same sizes, random weights, the same
batch, Adafactor and dropout.

It prints seconds per step (the fastest), CPU seconds, compile time and temporary memory. The bound is the time of the
step's matrix products at the rate that this machine reaches on a large product, with backward counted as twice forward.
mrmt3 uses the allocator's huge pages, as `mrmt3 train` sets them (mrmt3/utils/huge_pages.py); t5x uses them only
with --peer_large_pages.
"""

import argparse
import json
import os
import sys
import time
import types

import side_process

SIZES = {
  'base': dict(emb_dim=512, num_heads=6, num_encoder_layers=8, num_decoder_layers=8, head_dim=64, mlp_dim=1024),
  '3m': dict(emb_dim=192, num_heads=4, num_encoder_layers=3, num_decoder_layers=3, head_dim=48, mlp_dim=384),
  'tiny': dict(emb_dim=128, num_heads=4, num_encoder_layers=2, num_decoder_layers=2, head_dim=32, mlp_dim=256),
}
VOCABULARY, FRAMES, MEL = 1536, 256, 512


def make_batch(batch: int, length: int) -> dict:
  """Return random features of `batch` examples; the last quarter of each target is padding."""
  import numpy as np

  rng = np.random.default_rng(0)
  targets = rng.integers(3, VOCABULARY, (batch, length)).astype(np.int32)
  targets[:, length * 3 // 4 :] = 0
  return {
    'encoder_input_tokens': rng.normal(size=(batch, FRAMES, MEL)).astype(np.float32),
    'decoder_target_tokens': targets,
    'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    'decoder_loss_weights': (targets > 0).astype(np.int32),
  }


def our_step(size: dict, batch: dict):
  """Return mrmt3's jitted step (state, batch) -> (state, ...) and the initial state."""
  import jax

  from mrmt3 import config, models, network
  from mrmt3.engine import adafactor, partitioning, trainer

  spec = config.ModelSpec(
    network.T5Config(vocab_size=VOCABULARY, **size), targets_length=batch['decoder_target_tokens'].shape[1]
  )
  model = models.MemoryEncoderDecoderModel(spec, adafactor.Adafactor(), z_loss=1e-4)
  runner = trainer.Trainer(model, partitioning.PjitPartitioner(), jax.random.key(0), lambda step: 1e-3, None)
  return runner.train_step, runner.initial_state(batch)


def t5x_step(size: dict, batch: dict):
  """Like `our_step`, for t5x and magenta/mt3, which must be on PYTHONPATH."""
  import jax
  import jax.experimental.pjit

  # airio is not on PyPI, and t5x uses only these names. jestimator imports PartitionSpec from its former module.
  names = ('DatasetProviderBase', 'Task', 'Mixture', 'AirIODatasetIterator', 'dataset_providers')
  for name in ('airio', 'airio.core', 'airio.pygrain_common'):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update({part: type(part, (), {}) for part in names})
  sys.modules['airio'].core = sys.modules['airio.core']
  jax.experimental.pjit.PartitionSpec = jax.sharding.PartitionSpec
  import seqio
  from mt3 import models, network
  from t5x import adafactor, train_state, trainer

  vocabulary = seqio.PassThroughVocabulary(VOCABULARY)
  rules = adafactor.standard_logical_factor_rules()
  model = models.ContinuousInputsEncoderDecoderModel(
    module=network.Transformer(network.T5Config(VOCABULARY, mlp_activations=('gelu', 'linear'), **size)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=adafactor.Adafactor(1e-3, decay_rate=0.8, step_offset=0, logical_factor_rules=rules),
    input_depth=MEL,
    z_loss=1e-4,
  )
  shapes = {name: x.shape for name, x in batch.items()}
  dtypes = {name: x.dtype for name, x in batch.items()}
  variables = jax.jit(lambda rng: model.get_initial_variables(rng, shapes, dtypes))(jax.random.key(0))
  state = train_state.FlaxOptimTrainState.create(model.optimizer_def, variables)

  def step(state, batch):
    rng = jax.random.fold_in(jax.random.key(0), state.step)
    return trainer.train_with_lr(state, batch, 1e-3, rng, model, None)

  return jax.jit(step, donate_argnums=0), state


def measure(side: str, size: dict, batch: int, length: int, steps: int) -> dict:
  """Compile and run one side's step in this process; return its figures."""
  import jax

  features = make_batch(batch, length)
  step, state = {'ours': our_step, 't5x': t5x_step}[side](size, features)
  features = jax.device_put(features)
  start = time.perf_counter()
  compiled = step.lower(state, features).compile()
  compile_seconds = time.perf_counter() - start
  state, _ = jax.block_until_ready(compiled(state, features))
  walls, cpus = [], []
  for _ in range(steps):
    start, cpu_start = time.perf_counter(), time.process_time()
    state, _ = jax.block_until_ready(compiled(state, features))
    walls.append(time.perf_counter() - start)
    cpus.append(time.process_time() - cpu_start)
  memory = compiled.memory_analysis().temp_size_in_bytes
  return {
    'seconds': min(walls),
    'cpu_seconds': min(cpus),
    'compile_seconds': compile_seconds,
    'temporary_bytes': memory,
  }


def products(size: dict, batch: int, length: int) -> float:
  """Return the floating-point operations of the matrix products of a step (causal attention counted in full)."""
  emb, joined, mlp = size['emb_dim'], size['num_heads'] * size['head_dim'], size['mlp_dim']

  def layer(queries, contexts):
    attention = sum(
      2 * queries * emb * joined + 2 * keys * emb * joined + 2 * queries * keys * joined for keys in contexts
    )
    return attention + 3 * queries * emb * mlp

  forward = FRAMES * MEL * emb + length * emb * VOCABULARY
  forward += size['num_encoder_layers'] * layer(FRAMES, [FRAMES])
  forward += size['num_decoder_layers'] * layer(length, [length, FRAMES])
  return 3 * 2.0 * forward * batch


def matmul_rate() -> float:
  """Return the floating-point operations per second of a large matrix product in this process."""
  import jax
  import jax.numpy as jnp

  multiply, x, best = jax.jit(jnp.dot), jnp.ones((4096, 2048)), float('inf')
  y = jnp.ones((2048, 2048))
  jax.block_until_ready(multiply(x, y))
  for _ in range(10):
    start = time.perf_counter()
    jax.block_until_ready(multiply(x, y))
    best = min(best, time.perf_counter() - start)
  return 2 * 4096 * 2048 * 2048 / best


def main() -> None:
  """Run the sides and print a table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='base', help='size of the network (default: base)')
  parser.add_argument('--batch', type=int, help='examples per step (default: 4 for base, 16 for the others)')
  parser.add_argument('--length', type=int, help='target tokens (default: 1024 for base, 256 for the others)')
  parser.add_argument('--steps', type=int, default=3, help='number of timed steps (default: 3)')
  parser.add_argument('--t5x', help='checkout of google-research/t5x')
  parser.add_argument('--mt3', help='checkout of magenta/mt3')
  parser.add_argument('--peer_python', default=sys.executable, help='interpreter for t5x and MT3 (default: this one)')
  parser.add_argument('--peer_large_pages', action='store_true', help='use large pages for t5x, too')
  parser.add_argument('--side', choices=['ours', 't5x', 'rate'], help=argparse.SUPPRESS)
  args = parser.parse_args()
  if (args.t5x is None) != (args.mt3 is None):
    parser.error('--t5x needs --mt3, and --mt3 needs --t5x')
  for path in (args.t5x, args.mt3):
    if path is not None and not os.path.isdir(path):
      parser.error(f'{path} is not a folder; pass the path of a checkout')
  batch = args.batch or {'base': 4}.get(args.size, 16)
  length = args.length or {'base': 1024}.get(args.size, 256)
  if args.side:
    rate = args.side == 'rate'
    print(json.dumps(matmul_rate() if rate else measure(args.side, SIZES[args.size], batch, length, args.steps)))
    return
  common = ['--size', args.size, '--batch', str(batch), '--length', str(length), '--steps', str(args.steps), '--side']
  from mrmt3.utils import huge_pages  # not at the top: t5x's interpreter need not have mrmt3

  pages = {huge_pages.VARIABLE: os.environ.get(huge_pages.VARIABLE, huge_pages.VALUE)}
  rate = side_process.run(__file__, [*common, 'rate'], variables=pages)
  results = {'ours': side_process.run(__file__, [*common, 'ours'], variables=pages)}
  if args.t5x:
    paths = [os.path.abspath(args.t5x), os.path.abspath(args.mt3)]
    pages = pages if args.peer_large_pages else {}
    results['t5x'] = side_process.run(__file__, [*common, 't5x'], python=args.peer_python, path=paths, variables=pages)
  bound = products(SIZES[args.size], batch, length) / rate
  print(f'{args.size}, batch {batch}, {FRAMES} frames x {length} tokens')
  print('side   s/step  CPU s/step  compile s  temporary GB  x bound')
  for name, r in results.items():
    print(
      f'{name:5} {r["seconds"]:7.2f} {r["cpu_seconds"]:11.2f} {r["compile_seconds"]:10.1f} '
      f'{r["temporary_bytes"] / 1e9:13.2f} {r["seconds"] / bound:8.2f}'
    )
  print(f'bound {bound:7.2f}   ({rate / 1e9:.0f} GFLOP/s)')
  if 't5x' in results:
    ours, peer = results['ours'], results['t5x']
    time_ratio, memory_ratio = (ours[key] / peer[key] for key in ('seconds', 'temporary_bytes'))
    cpu_ratio = ours['cpu_seconds'] / peer['cpu_seconds']
    print(f'ours / t5x: time {time_ratio:.2f}, CPU {cpu_ratio:.2f}, memory {memory_ratio:.2f}')


if __name__ == '__main__':
  main()
