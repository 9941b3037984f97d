"""Trains the key profiles of mrmt3.score on performances of the training pieces.

python benchmarks/score/train_key.py CACHE -o mrmt3/weights/score/key.safetensors
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from accompany import accompanied
from performance import draw_timing, perform
from pieces import read_pieces
from safetensors.numpy import save_file
from scipy import optimize
from split import split_pieces
from train import corrupted

from mrmt3.score import key

PENALTY = 1e-4


def main() -> None:
  """Draw performances, fit the profiles, and print how many training keys they find."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cache', type=Path, help='folder for parsed pieces')
  parser.add_argument('-o', '--output', type=Path, required=True)
  parser.add_argument('--examples', type=int, default=4000)
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  pieces = [piece for piece in split_pieces(read_pieces(args.cache))['training'] if piece.key is not None]
  by_kind = {}
  for piece in pieces:
    by_kind.setdefault((piece.key[1], piece.name.split('/')[1]), []).append(piece)
  kinds = list(by_kind)
  chances = np.sqrt([len(by_kind[kind]) for kind in kinds])
  profiles, answers = [], []
  while len(answers) < args.examples:
    own = by_kind[kinds[rng.choice(len(kinds), p=chances / chances.sum())]]
    piece = own[rng.integers(len(own))]
    if piece.is_monophonic and rng.random() < 0.5:
      piece = accompanied(piece, rng)
    performance = perform(piece, rng, dataclasses.replace(draw_timing(rng)), seconds=rng.uniform(15, 60))
    notes = performance.notes if rng.random() < 0.4 else corrupted(performance.notes, rng)
    if len(notes) < 4 or performance.key is None:
      continue
    shift = rng.integers(12)
    notes['pitch'] += shift
    profiles.append(key.key_profiles(notes[~notes['is_drum']]))
    answers.append((performance.key[0] + shift) % 12 + 12 * performance.key[1])
  profiles, answers = jnp.array(profiles), jnp.array(answers)
  shape = (2, len(key.PROFILES), 12)

  def params_of(flat):
    return {'profiles': flat[:-2].reshape(shape), 'bias': flat[-2:]}

  @jax.jit
  @jax.value_and_grad
  def loss(flat):
    logits = jax.nn.log_softmax(key.key_logits(params_of(flat), profiles, jnp))
    return -logits[jnp.arange(len(answers)), answers].mean() + PENALTY * jnp.square(flat).sum()

  result = optimize.minimize(lambda flat: [np.float64(x) for x in loss(flat)], np.zeros(np.prod(shape) + 2), jac=True)
  params = {name: np.asarray(value, np.float32) for name, value in params_of(result.x).items()}
  args.output.parent.mkdir(parents=True, exist_ok=True)
  save_file(params, args.output)
  found = np.argmax(key.key_logits(params, np.array(profiles), np), axis=1)
  print(f'{len(pieces)} pieces, loss {result.fun:.3f}, {np.mean(found == np.array(answers)):.3f} of the keys found')


if __name__ == '__main__':
  main()
