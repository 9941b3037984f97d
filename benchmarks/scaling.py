"""The calculations of docs/scaling.md: the cost of a training step of the base model, on one chip and on many.

    python benchmarks/scaling.py               # the tables
    python benchmarks/scaling.py --compiled    # compared with compiled programs on 8 simulated devices (minutes)

The tables are calculated from the published figures of the chips below and two assumptions, --utilisation and --price.
--compiled compiles steps of the same sizes without running them. It reads operations and memory from XLA's cost and
memory analysis, reads collectives from the optimized program, and prints both figures and their ratio.
"""

import argparse
import json
import math
import os
import re

import side_process
from train_step import FRAMES, MEL, SIZES, VOCABULARY, make_batch, products

LENGTH, SIZE = 1024, SIZES['base']
EXAMPLES = 500_000 * 24  # of gin/runs/train.gin
SEGMENT_SECONDS = FRAMES * 128 / 16000
# Published figures: bf16 FLOP/s, bytes of memory, bytes/s of memory, bytes/s of the links that a ring uses in one
# direction, chips per host. (v5e has 400 GB/s over four links in both directions; a ring uses two of the links.)
CHIPS = {
  'A100-80': (312e12, 80e9, 2.0e12, 300e9, 8),
  'H100': (989e12, 80e9, 3.35e12, 450e9, 8),
  'v5e': (197e12, 16e9, 0.819e12, 100e9, 8),
  'v5p': (459e12, 95e9, 2.765e12, 300e9, 4),
}
PRICES = {'A100-80': 4.0, 'H100': 8.0, 'v5e': 1.2, 'v5p': 4.2}  # $ per chip and hour; assumed
SETUPS = [
  ('A100-80', 1),
  ('H100', 1),
  ('H100', 8),
  ('v5e', 1),
  ('v5e', 8),
  ('v5e', 64),
  ('v5e', 256),
  ('v5e', 1024),
  ('v5p', 256),
]
POD = {'v5e': 256, 'v5p': 8960, 'A100-80': 8, 'H100': 8}  # chips connected by these links; pods use the network
NETWORK = 25e9  # bytes/s per host in the data centre, in one direction: 200 Gbit/s
EXAMPLES_PER_CORE = {'host': 583 / 2, 'device': 1800 / 2}  # measured on two cores, see docs/data.md
CORES = {'A100-80': 96, 'H100': 208, 'v5e': 224, 'v5p': 208}  # per host


def parameters() -> int:
  """Return the base model's number of parameters (without memory)."""
  emb, joined, mlp = SIZE['emb_dim'], SIZE['num_heads'] * SIZE['head_dim'], SIZE['mlp_dim']
  attention, feed_forward = 4 * emb * joined, 3 * emb * mlp
  encoder = SIZE['num_encoder_layers'] * (attention + feed_forward + 2 * emb) + emb + MEL * emb
  decoder = SIZE['num_decoder_layers'] * (2 * attention + feed_forward + 3 * emb) + emb + 2 * VOCABULARY * emb
  return encoder + decoder


def all_reduce_seconds(chip: str, chips: int) -> float:
  """Return the time to all-reduce float32 gradients over all chips: a ring within a pod, and hosts between pods."""
  gradient = 4.0 * parameters()
  within = min(chips, POD[chip])
  seconds = 2 * (within - 1) / within * gradient / CHIPS[chip][3]
  pods = chips // within
  if pods > 1:
    # Each host of a pod reduces its share with those of the other pods.
    seconds += 2 * (pods - 1) / pods * gradient / (within / CHIPS[chip][4]) / NETWORK
  return seconds


def partitioned_bytes(partitions: int, rows: int) -> float:
  """Return the bytes (float32) that a device all-reduces per step if a copy of the model is split over `partitions`.

  These are its part of the gradients, and the activations after (backward: before) every attention and MLP.
  """
  states = 4.0 * SIZE['emb_dim'] * rows
  encoder = SIZE['num_encoder_layers'] * FRAMES * (2 + 2) * states
  decoder = SIZE['num_decoder_layers'] * (LENGTH * (3 + 3) + FRAMES) * states
  return 4.0 * parameters() / partitions + encoder + decoder


def activation_bytes(rows: int, remat: bool) -> float:
  """Return the bytes that the forward pass stores for the backward pass, bfloat16 (logits float32)."""
  emb, joined, mlp = SIZE['emb_dim'], SIZE['num_heads'] * SIZE['head_dim'], SIZE['mlp_dim']
  attention = 2 * emb + 4 * joined  # input, normalized input; queries, keys, values, output
  feed_forward = 2 * emb + 4 * mlp  # input, normalized input; two projections, the activation, the product
  encoder, decoder = (emb, emb) if remat else (attention + feed_forward, 2 * attention + feed_forward)
  kept = SIZE['num_encoder_layers'] * FRAMES * encoder + SIZE['num_decoder_layers'] * LENGTH * decoder
  return rows * (2.0 * kept + 2 * 4.0 * LENGTH * VOCABULARY)


def table(utilisation: float, batch: int, prices: dict) -> list[list[str]]:
  """Return the rows of the table of chips, as text."""
  flops, state = products(SIZE, 1, LENGTH), 16.0 * parameters()  # weights, gradients, two moments
  rows = []
  for chip, chips in SETUPS:
    peak, memory, bandwidth, _, per_host = CHIPS[chip]
    compute = batch * flops / (peak * utilisation)
    # Per step, weights and moments are read and written once, and activations are written and read.
    traffic = (1.75 * state + 2 * activation_bytes(batch, False)) / bandwidth
    reduce = all_reduce_seconds(chip, chips) if chips > 1 else 0.0
    step = max(compute, traffic) + reduce  # no overlap: the worst case
    host_rate = min(chips, per_host) * batch / step
    cores = {kind: host_rate / rate for kind, rate in EXAMPLES_PER_CORE.items()}
    parts = {'matrix units': compute, 'memory': traffic, 'all-reduce': reduce}
    limit = max(parts, key=parts.get)
    if cores['device'] > CORES[chip] * min(chips, per_host) / per_host:
      limit = 'input pipeline'
    hours = EXAMPLES / (chips * batch) * step / 3600
    rows.append(
      [
        f'{chip} x {chips}',
        f'{chips * batch:,}',
        f'{1e3 * compute:.1f}',
        f'{1e3 * traffic:.1f}',
        f'{1e3 * reduce:.2f}',
        f'{chips * batch / step:,.0f}',
        f'{cores["host"]:.1f} / {cores["device"]:.1f}',
        f'{100 * (state + activation_bytes(batch, False)) / memory:.0f} %',
        limit,
        f'{hours:.3g}',
        f'{hours * chips * prices[chip]:,.0f}',
      ]
    )
  return rows


def strong(utilisation: float, batch: int) -> list[list[str]]:
  """Return the rows of the table of v5e chips that share one batch, as text."""
  flops, rows = products(SIZE, 1, LENGTH), []
  for chips in (1, 8, 64, 256, 512):
    compute = batch / chips * flops / (CHIPS['v5e'][0] * utilisation)
    reduce = all_reduce_seconds('v5e', chips) if chips > 1 else 0.0
    efficiency = compute / (compute + reduce)
    rows.append(
      [
        f'{chips}',
        f'{batch / chips:g}',
        f'{1e3 * compute:.1f}',
        f'{1e3 * reduce:.2f}',
        f'{1 / (compute + reduce):.1f}',
        f'{100 * efficiency:.0f} %',
      ]
    )
  return rows


STRONG_HEADER = ['v5e chips', 'examples per chip', 'compute ms', 'all-reduce ms', 'steps/s', 'of perfect scaling']
HEADER = [
  'chips',
  'batch',
  'compute ms',
  'memory ms',
  'all-reduce ms',
  'examples/s',
  'cores per host (log-mel on host / device)',
  'memory used',
  'largest part',
  'hours for 12 M examples',
  '$',
]

_BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1, 'f16': 2, 's64': 8}


def collectives(text: str) -> dict[str, list[float]]:
  """Return {kind: [count, bytes of the results]} of the collectives in an optimized HLO program."""
  found = {}
  for line in text.splitlines():
    match = re.search(
      r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(', line
    )
    if match:
      size = sum(
        _BYTES.get(kind, 4) * math.prod(map(int, filter(None, shape.split(','))))
        for kind, shape in re.findall(r'(\w+)\[([\d,]*)\]', match[1])
      )
      count, total = found.get(match[2], (0, 0.0))
      found[match[2]] = [count + 1, total + size]
  return found


def compiled(partitions: int, batch: int) -> dict:
  """Compile a step of the base model for this process's devices and return XLA's analysis of it."""
  import jax

  from mrmt3 import config, models, network
  from mrmt3.engine import optimizers, partitioning, trainer

  spec = config.ModelSpec(network.T5Config(vocab_size=VOCABULARY, dropout_rate=0.0, **SIZE), targets_length=LENGTH)
  model = models.MemoryEncoderDecoderModel(spec, optimizers.adamw(1e-4), z_loss=1e-4)
  partitioner = partitioning.PjitPartitioner(num_partitions=partitions)
  runner = trainer.Trainer(model, partitioner, jax.random.key(0), lambda step: 1e-4, None)
  features = make_batch(batch, LENGTH)
  state = jax.eval_shape(runner.initial_state_unplaced, features)
  runner._shardings = partitioner.shardings(state.params, trainer.logical_axes(model, features), state)
  place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
  state = jax.tree.map(place, state, runner._shardings)
  features = jax.tree.map(lambda x: place(x, partitioner.batch_sharding), features)
  program = runner.train_step.lower(state, features).compile()
  return {
    'flops': program.cost_analysis()['flops'],
    'temporary': program.memory_analysis().temp_size_in_bytes,
    'arguments': program.memory_analysis().argument_size_in_bytes,
    'collectives': collectives(program.as_text()),
    'parameters': sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
  }


def _compile_in_subprocess(devices: int, partitions: int, batch: int) -> dict:
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  return side_process.run(__file__, ['--one', str(partitions), str(batch)], variables={'XLA_FLAGS': flags})


def compare() -> None:
  """Print the figures of compiled programs and the calculated ones."""
  count = parameters()
  print('program                           quantity                    compiled      calculated  ratio')
  for devices, partitions in ((8, 1), (8, 2)):
    copies = devices // partitions
    found = _compile_in_subprocess(devices, partitions, copies)
    name = f'{devices} devices, {copies} x {partitions}, 1 row/copy'
    reduced = found['collectives'].get('all-reduce', [0, 0.0])
    pairs = [
      ('parameters', found['parameters'], count),
      ('FLOP per device', found['flops'], products(SIZE, 1, LENGTH) / partitions),
      ('weights, moments: bytes', found['arguments'], 12.0 * count / partitions),
    ]
    pairs.append(('all-reduce: bytes', reduced[1], partitioned_bytes(partitions, 1) if partitions > 1 else 4.0 * count))
    for quantity, measured, calculated in pairs:
      print(f'{name:33} {quantity:24} {measured:15,.0f} {calculated:15,.0f}  {measured / calculated:.3f}')
    print(f'{name:33} temporary: bytes         {found["temporary"]:15,.0f}')
    for kind, (number, size) in sorted(found['collectives'].items()):
      print(f'{name:33} {number:4} {kind:19} {size:15,.0f}')


def main() -> None:
  """Print the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
    '--utilisation', type=float, default=0.25, help='share of the peak that matrix products reach (default: 0.25)'
  )
  parser.add_argument('--batch', type=int, default=8, help='examples per chip (default: 8)')
  parser.add_argument('--price', type=float, help='$ per chip and hour, for all chips (default: PRICES)')
  parser.add_argument('--compiled', action='store_true', help='compare with compiled programs')
  parser.add_argument('--one', nargs=2, type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if not 0 < args.utilisation <= 1 or args.batch < 1:
    parser.error('--utilisation must be between 0 and 1, and --batch at least 1')
  if args.one:
    print(json.dumps(compiled(*args.one)))
    return
  if args.compiled:
    compare()
    return
  flops, count = products(SIZE, 1, LENGTH), parameters()
  print(
    f'base model: {count:,} parameters; an example has {FRAMES} frames and {LENGTH} tokens, {SEGMENT_SECONDS:.3f} s'
  )
  print(f'training step: {flops / 1e12:.3f} TFLOP per example; gradients to all-reduce: {4 * count / 1e6:.0f} MB')
  print(f'weights, gradients, moments: {16 * count / 1e6:.0f} MB; a checkpoint: {12 * count / 1e6:.0f} MB')
  for remat in (False, True):
    print(f'activations: {activation_bytes(1, remat) / 1e6:.0f} MB per example {"with" if remat else "without"} remat')
  print(f'\nassumptions: {args.utilisation:.0%} of the peak, {args.batch} examples per chip, no overlap\n')
  prices = dict.fromkeys(PRICES, args.price) if args.price else PRICES
  for row in [HEADER, ['---'] * len(HEADER), *table(args.utilisation, args.batch, prices)]:
    print('| ' + ' | '.join(row) + ' |')
  print('\nstrong scaling: a batch of 512 on an increasing number of chips')
  for row in [STRONG_HEADER, ['---'] * len(STRONG_HEADER), *strong(args.utilisation, 512)]:
    print('| ' + ' | '.join(row) + ' |')
  hours = 10_000
  segments = hours * 3600 / SEGMENT_SECONDS
  print(
    f'\n{hours:,} hours of music: {segments / 1e6:.1f} M segments, '
    f'{hours * 3600 * 16000 * 2 / 1e12:.2f} TB of 16-bit samples,'
  )
  print(f'{EXAMPLES / segments:.2f} epochs in {EXAMPLES / 1e6:.0f} M examples; an epoch is {segments * flops:.2e} FLOP')


if __name__ == '__main__':
  main()
