"""Times greedy decoding on this machine: ours, real t5x, the published PyTorch code, transformers' T5, and the memory bound.

  python benchmarks/decode.py
  python benchmarks/decode.py --t5x t5x --mt3 mt3 --t5x_python peer/bin/python --mr_mt3 MR-MT3 --torch_python torch/bin/python

--t5x, --mt3 and --mr_mt3 are checkouts of google-research/t5x, magenta/mt3 and gudgud96/MR-MT3; the interpreters are those
that have what they need (torch and transformers 4.30 for the last one and for transformers' T5, which needs no checkout).
Each side runs in a process of its own, one after the other, on random weights of the same sizes, with the end of sequence
ruled out, so that every row decodes all its tokens. A run decodes one segment a row, encoder included; the fastest of
--runs counts. The bound is the bytes that a token needs (weights of the decoder, keys and values) at the rate at which this
machine sums up a large array.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import types

SIZES = {
  'base': dict(emb_dim=512, num_heads=6, num_encoder_layers=8, num_decoder_layers=8, head_dim=64, mlp_dim=1024),
  'tiny': dict(emb_dim=128, num_heads=4, num_encoder_layers=2, num_decoder_layers=2, head_dim=32, mlp_dim=256),
}
VOCABULARY, FRAMES, MEL, EOS = 1536, 256, 512, 1


def best_time(function, runs: int) -> float:
  """Returns the shortest of `runs` times of a function, s, after one call that does not count."""
  function()
  times = []
  for _ in range(runs):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return min(times)


def _inputs(batch):
  import numpy as np

  return np.random.default_rng(0).normal(size=(batch, FRAMES, MEL)).astype(np.float32)


def _without_eos(params):
  """Returns parameters whose logit of EOS is 0, which is never the largest of 1536 random ones."""
  kernel = params['decoder']['logits_dense']['kernel']
  params['decoder']['logits_dense']['kernel'] = kernel.at[:, EOS].set(0)
  return params


def ours(size: dict, batch: int, length: int, runs: int, weights: str) -> dict:
  """Times our decoder with weights of a dtype; returns seconds and the tokens."""
  import jax
  import numpy as np

  from mrmt3 import decoding, network

  config = network.T5Config(vocab_size=VOCABULARY, **size)
  shapes = network.parameter_shapes(config, MEL)
  tokens = np.zeros((1, 1), np.int32)
  init = lambda key: network.Transformer(config).init(key, _inputs(1), tokens, tokens, tokens, enable_dropout=False)['params']
  params = _without_eos(jax.tree.map(lambda x, _: x, jax.jit(init)(jax.random.key(0)), shapes))
  inputs = jax.device_put(_inputs(batch))

  def run():
    return np.asarray(decoding.transcribe_segments(params, inputs, None, config=config, max_length=length))

  seconds = best_time(run, runs)
  said = run()
  assert (said > EOS).all(), 'a row has ended'
  return {'seconds': seconds, 'tokens': said.tolist()}


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--size', choices=SIZES, default='base')
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--length', type=int, default=512)
  parser.add_argument('--runs', type=int, default=3)
  a = parser.parse_args()
  r = ours(SIZES[a.size], a.batch, a.length, a.runs, 'float32')
  print(a.batch, a.batch * a.length / r['seconds'])

if __name__ == '__main__':
  main()
