"""The arithmetic of docs/scaling.md: what a training step of the base model needs, and what that means on many chips.

    python benchmarks/scaling.py               # the tables
    python benchmarks/scaling.py --compiled    # beside what compiled programs say, on 8 simulated devices (minutes)

Everything but --compiled is calculation from the published figures of the chips below and two assumptions, --utilisation
and --price. --compiled compiles (and does not run) steps of the same sizes, reads operations and memory from XLA's cost
and memory analysis and the collectives from the optimised program, and prints both and their ratio.
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
# bf16 FLOP/s, bytes of memory, bytes/s of memory, bytes/s of the links that a ring uses in one direction, chips a host: as
# published (v5e: 400 GB/s over four links and both directions; a ring has two of the links).
CHIPS = {
  'A100-80': (312e12, 80e9, 2.0e12, 300e9, 8),
  'H100': (989e12, 80e9, 3.35e12, 450e9, 8),
  'v5e': (197e12, 16e9, 0.819e12, 100e9, 8),
  'v5p': (459e12, 95e9, 2.765e12, 300e9, 4),
}
PRICES = {'A100-80': 4.0, 'H100': 8.0, 'v5e': 1.2, 'v5p': 4.2}  # $ a chip and hour; assumed
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
POD = {'v5e': 256, 'v5p': 8960, 'A100-80': 8, 'H100': 8}  # chips that these links join; beyond, the network
NETWORK = 25e9  # bytes/s of a host in the data centre, in one direction: 200 Gbit/s
EXAMPLES_PER_CORE = {'host': 583 / 2, 'device': 1800 / 2}  # measured: docs/data.md, on two cores
CORES = {'A100-80': 96, 'H100': 208, 'v5e': 224, 'v5p': 208}  # of a host


def parameters() -> int:
  """Returns the base model's number of parameters (without memory)."""
  emb, joined, mlp = SIZE['emb_dim'], SIZE['num_heads'] * SIZE['head_dim'], SIZE['mlp_dim']
  attention, feed_forward = 4 * emb * joined, 3 * emb * mlp
  encoder = SIZE['num_encoder_layers'] * (attention + feed_forward + 2 * emb) + emb + MEL * emb
  decoder = SIZE['num_decoder_layers'] * (2 * attention + feed_forward + 3 * emb) + emb + 2 * VOCABULARY * emb
  return encoder + decoder


def all_reduce_seconds(chip: str, chips: int) -> float:
  """Returns the time to add gradients (float32) up over all chips: a ring over the links, and over hosts beyond a pod."""
  gradient = 4.0 * parameters()
  within = min(chips, POD[chip])
  seconds = 2 * (within - 1) / within * gradient / CHIPS[chip][3]
  pods = chips // within
  if pods > 1:
    # Each host of a pod adds its share up with those of the other pods.
    seconds += 2 * (pods - 1) / pods * gradient / (within / CHIPS[chip][4]) / NETWORK
  return seconds


def partitioned_bytes(partitions: int, rows: int) -> float:
  """Returns the bytes that a device adds up with others in a step, float32, when a copy of the model is split: its part of the
  gradients, and activations after (backward: before) every attention and MLP."""
  states = 4.0 * SIZE['emb_dim'] * rows
  encoder = SIZE['num_encoder_layers'] * FRAMES * (2 + 2) * states
  decoder = SIZE['num_decoder_layers'] * (LENGTH * (3 + 3) + FRAMES) * states
  return 4.0 * parameters() / partitions + encoder + decoder


def activation_bytes(rows: int, remat: bool) -> float:
  """Returns the bytes that the backward pass needs of the forward pass, bfloat16 (logits float32)."""
  emb, joined, mlp = SIZE['emb_dim'], SIZE['num_heads'] * SIZE['head_dim'], SIZE['mlp_dim']
  attention = 2 * emb + 4 * joined  # input, normalised input; queries, keys, values, output
  feed_forward = 2 * emb + 4 * mlp  # the same; two maps, the activated one, the product
  encoder, decoder = (emb, emb) if remat else (attention + feed_forward, 2 * attention + feed_forward)
  kept = SIZE['num_encoder_layers'] * FRAMES * encoder + SIZE['num_decoder_layers'] * LENGTH * decoder
  return rows * (2.0 * kept + 2 * 4.0 * LENGTH * VOCABULARY)


def table(utilisation: float, batch: int, prices: dict) -> list[list[str]]:
  """Returns the rows of the table of chips."""
  flops, state = products(SIZE, 1, LENGTH), 16.0 * parameters()  # weights, gradients, two moments
  rows = []
  for chip, chips in SETUPS:
    peak, memory, bandwidth, _, per_host = CHIPS[chip]
    compute = batch * flops / (peak * utilisation)
    # Weights and moments are read and written once a step, activations written and read.
    traffic = (1.75 * state + 2 * activation_bytes(batch, False)) / bandwidth
    reduce = all_reduce_seconds(chip, chips) if chips > 1 else 0.0
    step = max(compute, traffic) + reduce  # nothing overlapped: the worst case
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
  """Returns the rows of a table of v5e chips that share one batch."""
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


STRONG_HEADER = ['v5e chips', 'examples a chip', 'compute ms', 'all-reduce ms', 'steps/s', 'of perfect scaling']
HEADER = [
  'chips',
  'batch',
  'compute ms',
  'memory ms',
  'all-reduce ms',
  'examples/s',
  'cores a host (log-mel on host / device)',
  'memory used',
  'largest part',
  'hours for 12 M examples',
  '$',
]

_BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1, 'f16': 2, 's64': 8}


def collectives(text: str) -> dict[str, list[float]]:
  """Returns, of an optimised HLO program, how many collectives of each kind there are and the bytes of their results."""
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
  """Compiles one step of the base model over this process's devices; returns what XLA says of it."""
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


def _compile_elsewhere(devices: int, partitions: int, batch: int) -> dict:
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
  return side_process.run(__file__, ['--one', str(partitions), str(batch)], variables={'XLA_FLAGS': flags})


def compare() -> None:
  """Prints calculation and compiled program side by side."""
  count = parameters()
  print('program                           what                        compiled      calculated  ratio')
  for devices, partitions in ((8, 1), (8, 2)):
    copies = devices // partitions
    found = _compile_elsewhere(devices, partitions, copies)
    name = f'{devices} devices, {copies} x {partitions}, 1 row each copy'
    reduced = found['collectives'].get('all-reduce', [0, 0.0])
    pairs = [
      ('parameters', found['parameters'], count),
      ('FLOP a device', found['flops'], products(SIZE, 1, LENGTH) / partitions),
      ('weights, moments: bytes', found['arguments'], 12.0 * count / partitions),
    ]
    pairs.append(('all-reduce: bytes', reduced[1], partitioned_bytes(partitions, 1) if partitions > 1 else 4.0 * count))
    for what, one, other in pairs:
      print(f'{name:33} {what:24} {one:15,.0f} {other:15,.0f}  {one / other:.3f}')
    print(f'{name:33} temporary: bytes         {found["temporary"]:15,.0f}')
    for kind, (number, size) in sorted(found['collectives'].items()):
      print(f'{name:33} {number:4} {kind:19} {size:15,.0f}')


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
    '--utilisation', type=float, default=0.25, help='share of the peak that products reach (assumed; 0.25)'
  )
  parser.add_argument('--batch', type=int, default=8, help='examples a chip (8)')
  parser.add_argument('--price', type=float, help='$ a chip and hour, for all chips')
  parser.add_argument('--compiled', action='store_true', help='compare with compiled programs')
  parser.add_argument('--one', nargs=2, type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if not 0 < args.utilisation <= 1 or args.batch < 1:
    parser.error('--utilisation lies between 0 and 1, --batch is 1 or more')
  if args.one:
    print(json.dumps(compiled(*args.one)))
    return
  if args.compiled:
    compare()
    return
  flops, count = products(SIZE, 1, LENGTH), parameters()
  print(
    f'base model: {count:,} parameters; one example of {FRAMES} frames and {LENGTH} tokens, {SEGMENT_SECONDS:.3f} s of music'
  )
  print(
    f'operations of a training step: {flops / 1e12:.3f} TFLOP an example; gradients to add up: {4 * count / 1e6:.0f} MB'
  )
  print(f'weights, gradients, moments: {16 * count / 1e6:.0f} MB; a checkpoint: {12 * count / 1e6:.0f} MB')
  for remat in (False, True):
    print(f'activations: {activation_bytes(1, remat) / 1e6:.0f} MB an example {"with" if remat else "without"} remat')
  print(f'\nassumed: {args.utilisation:.0%} of the peak, {args.batch} examples a chip, nothing overlapped\n')
  prices = dict.fromkeys(PRICES, args.price) if args.price else PRICES
  for row in [HEADER, ['---'] * len(HEADER), *table(args.utilisation, args.batch, prices)]:
    print('| ' + ' | '.join(row) + ' |')
  print('\none batch of 512 shared by more and more chips')
  for row in [STRONG_HEADER, ['---'] * len(STRONG_HEADER), *strong(args.utilisation, 512)]:
    print('| ' + ' | '.join(row) + ' |')
  hours = 10_000
  segments = hours * 3600 / SEGMENT_SECONDS
  print(
    f'\n{hours:,} hours of music: {segments / 1e6:.1f} M segments, {hours * 3600 * 16000 * 2 / 1e12:.2f} TB of 16-bit samples,'
  )
  print(f'{EXAMPLES / segments:.2f} epochs in {EXAMPLES / 1e6:.0f} M examples; an epoch is {segments * flops:.2e} FLOP')


if __name__ == '__main__':
  main()
