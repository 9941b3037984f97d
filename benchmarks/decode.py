r"""Times greedy decoding: mrmt3, real t5x, the published PyTorch code, transformers' T5, and the memory bound.

  python benchmarks/decode.py
  python benchmarks/decode.py --t5x t5x --mt3 mt3 --t5x_python peer/bin/python \
    --mr_mt3 MR-MT3 --torch_python torch/bin/python

--t5x, --mt3 and --mr_mt3 are checkouts of google-research/t5x, magenta/mt3 and gudgud96/MR-MT3. The interpreters must
have their dependencies: --t5x_python those of t5x and MT3, --torch_python torch and transformers 4.30, for MR-MT3 and
for transformers' T5.

Each side runs in its own process, one after the other, with random weights of the same sizes. EOS is excluded, so that
every row decodes all its tokens. A run encodes and decodes one segment per row; the fastest of --runs counts. The bound
is the bytes that a token needs (decoder weights, keys and values), divided by the rate at which this machine reads a
large array.
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
  'tiny': dict(emb_dim=128, num_heads=4, num_encoder_layers=2, num_decoder_layers=2, head_dim=32, mlp_dim=256),
}
VOCABULARY, FRAMES, MEL, EOS = 1536, 256, 512, 1


def best_time(function, runs: int) -> float:
  """Return the shortest time of `runs` calls of a function, s."""
  times = []
  for _ in range(runs):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return min(times)


def make_inputs(batch: int):
  """Return random log-mel frames, float32 `[batch, frames, mel]`."""
  import numpy as np

  return np.random.default_rng(0).normal(size=(batch, FRAMES, MEL)).astype(np.float32)


def without_eos(params: dict) -> dict:
  """Return a Flax network's parameters with a logit of 0 for EOS, which is never the largest of 1536 random logits."""
  kernel = params['decoder']['logits_dense']['kernel']
  params['decoder']['logits_dense']['kernel'] = kernel.at[:, EOS].set(0)
  return params


def ours(size: dict, batch: int, length: int, dtype: str):
  """Return a function that decodes with mrmt3 in a dtype and return the tokens, int32 `[batch, length]`."""
  import jax
  import numpy as np

  from mrmt3 import config, network
  from mrmt3.decoding import greedy

  spec = config.ModelSpec(network.T5Config(vocab_size=VOCABULARY, dtype=dtype, **size), targets_length=max(length, 2))
  tokens = np.zeros((1, 1), np.int32)

  def init(key):
    return spec.module().init(key, make_inputs(1), tokens, tokens, enable_dropout=False)['params']

  params = without_eos(jax.jit(init)(jax.random.key(0)))
  weights = greedy.pack(params, spec)
  inputs = jax.device_put(make_inputs(batch))
  return lambda: np.asarray(
    greedy.transcribe_segments(params, inputs, {}, weights=weights, spec=spec, max_length=length)
  )


def t5x(size: dict, batch: int, length: int):
  """Like `ours`, with t5x's temperature_sample and magenta/mt3's network, which must be on PYTHONPATH."""
  import flax
  import jax
  import jax.experimental.pjit
  import numpy as np

  # airio is not on PyPI, and t5x uses only these names. jestimator imports PartitionSpec from its former module.
  names = ('DatasetProviderBase', 'Task', 'Mixture', 'AirIODatasetIterator', 'dataset_providers')
  for name in ('airio', 'airio.core', 'airio.pygrain_common'):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update({part: type(part, (), {}) for part in names})
  sys.modules['airio'].core = sys.modules['airio.core']
  jax.experimental.pjit.PartitionSpec = jax.sharding.PartitionSpec
  import seqio
  from mt3 import models, network
  from t5x import decoding

  vocabulary = seqio.PassThroughVocabulary(VOCABULARY, eos_id=EOS)
  model = models.ContinuousInputsEncoderDecoderModel(
    module=network.Transformer(network.T5Config(VOCABULARY, mlp_activations=('gelu', 'linear'), **size)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=None,
    input_depth=MEL,
    decode_fn=decoding.temperature_sample,
  )
  features = {
    'encoder_input_tokens': make_inputs(batch),
    'decoder_input_tokens': np.zeros((batch, length), np.int32),
    'decoder_target_tokens': np.zeros((batch, length), np.int32),
  }
  shapes = {name: x.shape for name, x in features.items()}
  dtypes = {name: x.dtype for name, x in features.items()}
  variables = jax.jit(lambda rng: model.get_initial_variables(rng, shapes, dtypes))(jax.random.key(0))
  params = without_eos(flax.core.unfreeze(variables['params']))

  @jax.jit
  def predict(params, batch):
    return model.predict_batch_with_aux(params, batch, decoder_params={'temperature': 0.0})[0]

  features = jax.device_put(features)
  return lambda: np.asarray(predict(params, features))


def _torch_config(size, transformers):
  return transformers.T5Config(
    d_model=size['emb_dim'],
    d_kv=size['head_dim'],
    d_ff=size['mlp_dim'],
    num_heads=size['num_heads'],
    num_layers=size['num_encoder_layers'],
    num_decoder_layers=size['num_decoder_layers'],
    vocab_size=VOCABULARY,
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    decoder_start_token_id=0,
    pad_token_id=0,
    eos_token_id=EOS,
    use_cache=False,
    encoder_vocab_size=1024,
    xl_context_length=2048,
  )


def mr_mt3(size: dict, batch: int, length: int):
  """Like `ours`, with the published PyTorch code, which must be on PYTHONPATH; it decodes row by row."""
  import torch
  import transformers
  from models.t5_segmem_v2_with_prev import T5SegMemV2WithPrev

  torch.manual_seed(0)
  model = T5SegMemV2WithPrev(_torch_config(size, transformers), segmem_num_layers=1, segmem_length=64).eval()
  inputs = torch.from_numpy(make_inputs(batch))[..., : size['emb_dim']]  # its frames have this width
  with torch.no_grad():
    model.lm_head.weight[EOS] = 0

  def run():
    with torch.no_grad(), open(os.devnull, 'w') as nowhere:
      saved, sys.stdout = sys.stdout, nowhere  # it prints its progress
      try:
        return model.generate(inputs, max_length=length).numpy()[:, 1:]
      finally:
        sys.stdout = saved

  return run


def hf_t5(size: dict, batch: int, length: int):
  """Like `ours`, with transformers' T5 and its cache; the encoder takes embeddings."""
  import torch
  import transformers

  torch.manual_seed(0)
  model = transformers.T5ForConditionalGeneration(_torch_config(size, transformers)).eval()
  inputs = torch.from_numpy(make_inputs(batch))[..., : size['emb_dim']]
  with torch.no_grad():
    model.lm_head.weight[EOS] = 0

  def run():
    with torch.no_grad():
      encoded = model.encoder(inputs_embeds=inputs, return_dict=True)
      predicted = model.generate(
        encoder_outputs=encoded,
        max_length=length + 1,
        min_length=length + 1,
        use_cache=True,
        do_sample=False,
        num_beams=1,
      )
    return predicted.numpy()[:, 1:]

  return run


def read_rate() -> float:
  """Return the bytes per second at which all cores together read an array larger than the caches."""
  from concurrent.futures import ThreadPoolExecutor

  import numpy as np

  cores = os.cpu_count() or 1
  parts = np.array_split(np.ones(1 << 27, np.float32), cores)

  def read(part):
    return [block.dot(block) for block in np.array_split(part, 64)]  # numpy releases the interpreter lock

  with ThreadPoolExecutor(cores) as pool:
    seconds = best_time(lambda: list(pool.map(read, parts)), 8)
  return sum(part.nbytes for part in parts) / seconds


def bytes_per_step(size: dict, batch: int, length: int) -> float:
  """Return the bytes that a decoder step reads, averaged over positions: float32 weights, keys and values."""
  emb, joined, mlp = size['emb_dim'], size['num_heads'] * size['head_dim'], size['mlp_dim']
  weights = size['num_decoder_layers'] * (6 * emb * joined + 3 * emb * mlp) + emb * VOCABULARY
  keys_values = size['num_decoder_layers'] * 2 * joined * (FRAMES + length / 2) * batch
  return 4.0 * (weights + keys_values)


def measure(side: str, size: dict, batch: int, length: int, runs: int) -> dict:
  """Run one side in this process and return its seconds and tokens."""
  if side == 'rate':
    return {'rate': read_rate()}
  functions = {'t5x': t5x, 'mr_mt3': mr_mt3, 'hf_t5': hf_t5}
  if side in functions:
    function = functions[side](size, batch, length)
  else:
    function = ours(size, batch, length, side.removeprefix('ours_'))
  begin = time.perf_counter()
  predicted = function()
  first = time.perf_counter() - begin
  if predicted.shape[-1] < length - 1 or (predicted[..., : length - 1] == EOS).any():
    sys.exit(f'decode: {side} returned tokens of shape {predicted.shape} with {(predicted == EOS).sum()} EOS')
  # The published code needs no compilation, and a run takes minutes.
  return {'seconds': first if side == 'mr_mt3' else best_time(function, runs), 'tokens': predicted.tolist()}


def main() -> None:
  """Run the sides and print a table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=SIZES, default='base', help='size of the network (default: base)')
  parser.add_argument('--batch', type=int, default=1, help='rows per batch (default: 1)')
  parser.add_argument('--length', type=int, default=512, help='tokens per row (default: 512)')
  parser.add_argument('--runs', type=int, default=2, help='number of timed runs per side (default: 2)')
  parser.add_argument(
    '--dtypes', default='float32', help="mrmt3's dtypes of weights and activations, such as float32,bfloat16"
  )
  parser.add_argument('--t5x', help='checkout of google-research/t5x')
  parser.add_argument('--mt3', help='checkout of magenta/mt3')
  parser.add_argument('--t5x_python', default=sys.executable, help='interpreter for t5x and MT3 (default: this one)')
  parser.add_argument('--mr_mt3', help='checkout of gudgud96/MR-MT3')
  parser.add_argument('--torch_python', help="interpreter with torch and transformers, for MR-MT3 and transformers' T5")
  parser.add_argument('--timeout', type=float, default=1800, help='time limit per side, s (default: 1800)')
  parser.add_argument('--side', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if (args.t5x is None) != (args.mt3 is None):
    parser.error('--t5x needs --mt3, and --mt3 needs --t5x')
  if args.mr_mt3 and not args.torch_python:
    parser.error('--mr_mt3 needs --torch_python')
  for path in (args.t5x, args.mt3, args.mr_mt3):
    if path is not None and not os.path.isdir(path):
      parser.error(f'{path} is not a folder; pass the path of a checkout')
  size = SIZES[args.size]
  if args.side:
    print(json.dumps(measure(args.side, size, args.batch, args.length, args.runs)))
    return
  common = ['--size', args.size, '--batch', str(args.batch), '--length', str(args.length), '--runs', str(args.runs)]
  sides = [(f'ours_{dtype}', sys.executable, []) for dtype in args.dtypes.split(',')]
  if args.t5x:
    sides.append(('t5x', args.t5x_python, [os.path.abspath(args.t5x), os.path.abspath(args.mt3)]))
  if args.torch_python:
    sides.append(('hf_t5', args.torch_python, []))
  if args.mr_mt3:
    sides.append(('mr_mt3', args.torch_python, [os.path.abspath(args.mr_mt3)]))

  def run(side, python=sys.executable, path=()):
    # transformers warns about unused weights.
    quiet = {'TRANSFORMERS_VERBOSITY': 'error'}
    arguments = [*common, '--side', side]
    return side_process.run(__file__, arguments, python=python, path=path, variables=quiet, timeout=args.timeout)

  rate = run('rate')['rate']
  bound = args.batch * rate / bytes_per_step(size, args.batch, args.length)
  print(
    f'{args.size}, batch {args.batch}, {FRAMES} frames, {args.length} tokens per row; tokens per second of all rows'
  )
  speeds, first = {}, None
  for name, python, path in sides:
    result = run(name, python, path)
    speeds[name] = args.batch * args.length / result['seconds']
    note = f'  {speeds[name] / bound:5.2f} of the bound'
    if name.startswith('ours'):
      first = first or (name, result['tokens'])
      same = [sum(map(int.__eq__, *rows)) for rows in zip(first[1], result['tokens'], strict=True)]
      note += f', {sum(same) / args.batch / args.length:6.1%} of the tokens equal those of {first[0]}'
    else:
      note += f', {first[0]} is {speeds[first[0]] / speeds[name]:5.1f} times as fast'
    print(f'{name:14} {speeds[name]:8.1f}{note}', flush=True)
  print(f'bound          {bound:8.1f}  ({rate / 1e9:.0f} GB/s)')


if __name__ == '__main__':
  main()
