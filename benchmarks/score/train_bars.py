"""Trains the bar network of mrmt3.score on the beats of performances of the training pieces.

python benchmarks/score/train_bars.py CACHE -o mrmt3/weights/score/bars.safetensors
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import fitting
import jax.numpy as jnp
import numpy as np
import optax
from performance import Performance
from scoring import beat_f1
from split import training_pieces
from train import by_metre_and_collection, draw_performance

from mrmt3.score import bar_features, bar_network, bars, convolutions
from mrmt3.score.beats import find_candidates
from mrmt3.score.metres import METRES

STEPS = 64  # beats
DROPOUT = 0.2
RIGHT = 0.6  # share of examples with the true beats
MISSING = 0.1  # share of examples whose beats have a few gaps, as tracked beats do


def wrong_beats(performance: Performance, rng: np.random.Generator) -> np.ndarray:
  """Return beats on a wrong level or at a wrong phase, s."""
  beats = performance.beats
  index = np.arange(len(beats))
  compound = performance.denominator == 8
  kinds = ['double', 'half', 'offbeat', 'triple' if compound else 'two thirds', 'third', 'three halves']
  kind = kinds[rng.choice(len(kinds), p=(0.3, 0.3, 0.12, 0.16, 0.06, 0.06))]
  start = {
    'double': lambda: np.arange(0, len(beats) - 1, 0.5),
    'half': lambda: np.arange(rng.integers(2), len(beats), 2),
    'offbeat': lambda: np.arange(0, len(beats) - 1) + (rng.choice([1 / 3, 2 / 3]) if compound else 0.5),
    'triple': lambda: np.arange(0, len(beats) - 1, 1 / 3),
    'two thirds': lambda: np.arange(rng.integers(3) / 2, len(beats) - 1, 1.5),
    'third': lambda: np.arange(rng.integers(3), len(beats), 3),
    'three halves': lambda: np.arange(rng.integers(3) / 3, len(beats) - 1, 2 / 3),
  }[kind]()
  return np.interp(start, index, beats)


def draw_example(by_metre: dict, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
  """Draw beats of a performance; returns (features, targets `[beats, 2]`: downbeat or -1, metre), or None."""
  performance = draw_performance(by_metre, rng)
  beats = performance.beats
  if len(beats) < 10:
    return None
  metre = METRES.index((performance.numerator, performance.denominator))
  downbeat = np.isin(beats, performance.downbeats).astype(np.float32)
  if rng.random() > RIGHT:
    beats = wrong_beats(performance, rng)
    if len(beats) < 6:
      return None
    metre, downbeat = bar_network.WRONG, np.full(len(beats), -1.0)
  elif rng.random() < MISSING:
    kept = rng.random(len(beats)) > 0.03
    beats, downbeat = beats[kept], downbeat[kept]
  beats = np.sort(beats + rng.normal(0, rng.uniform(0, 0.015), len(beats)))
  features = bar_features.beat_features(performance.notes, beats)
  # The first and last beats may lie outside the notes.
  return features.astype(np.float16), np.stack([downbeat, np.full(len(beats), metre)], axis=1).astype(np.float32)


def tracked_examples(by_metre: dict, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
  """Draw a performance; returns examples of beats tracked through the beat network's activations, right and wrong."""
  performance = draw_performance(by_metre, rng)
  notes = performance.notes
  if len(performance.beats) < 10 or len(notes) < 8:
    return []
  right, wrong = [], []
  for path in find_candidates(notes):
    for beats in bars.levels(path.beats):
      score = beat_f1(performance.beats, beats)
      if score > 0.9:
        right.append(beats)
      elif score < 0.8:
        wrong.append(beats)
  chosen = [own[rng.integers(len(own))] for own in (right, wrong) if own]
  if len(wrong) > 1:
    chosen.append(wrong[rng.integers(len(wrong))])
  examples = []
  metre = METRES.index((performance.numerator, performance.denominator))
  for number, beats in enumerate(chosen):
    if right and number == 0:
      distance = np.abs(beats[:, None] - performance.downbeats[None]).min(axis=1)
      answer = np.stack([distance < 0.1, np.full(len(beats), metre)], axis=1)
    else:
      answer = np.tile([-1.0, bar_network.WRONG], (len(beats), 1))
    examples.append((bar_features.beat_features(notes, beats).astype(np.float16), answer.astype(np.float32)))
  return examples


_SHARED: dict = {}  # what forked workers inherit


def _tracked_of_seed(seed):
  return tracked_examples(_SHARED['by_metre'], np.random.default_rng(seed))


def batch_of(pool: list, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draw rows of up to `STEPS` beats, transposed at random; targets have a third column, whether there is a beat."""
  features = np.zeros((size, STEPS, bar_features.CHANNELS), np.float32)
  answers = np.zeros((size, STEPS, 3), np.float32)
  for row, index in enumerate(rng.integers(len(pool), size=size)):
    x, y = pool[index]
    begin = rng.integers(max(1, len(x) - STEPS + 1))
    x, y = bar_features.rotate(x[begin : begin + STEPS], rng.integers(12)), y[begin : begin + STEPS]
    features[row, : len(x)], answers[row, : len(y), :2] = x, y
    answers[row, : len(y), 2] = 1
  return features, answers


def mixed_batch(pool: list, tracked: list, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draw a batch, half of it from each pool; all from the first if the second is empty."""
  if not tracked:
    return batch_of(pool, size, rng)
  halves = batch_of(pool, size // 2, rng), batch_of(tracked, size - size // 2, rng)
  return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])


def loss_fn(params: dict, key, features, answers):
  """Mean cross entropy of downbeats (where the beats are right) and of the metre, pooled over the row."""
  dropout = fitting.channel_dropout(key, len(bar_network.DILATIONS), DROPOUT)
  outputs = convolutions.forward(params, features, bar_network.DILATIONS, jnp, dropout)
  mask = answers[..., 2]
  known = mask * (answers[..., 0] >= 0)
  downbeats = optax.sigmoid_binary_cross_entropy(outputs[..., 0], jnp.maximum(answers[..., 0], 0))
  pooled = (outputs[..., 1:] * mask[..., None]).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None]
  metre = answers[:, 0, 1].astype(jnp.int32)
  entropy = optax.softmax_cross_entropy_with_integer_labels(pooled, metre)
  return (downbeats * known).sum() / jnp.maximum(known.sum(), 1) + 0.3 * entropy.mean()


def main() -> None:
  """Train; writes the weights every 1,000 steps."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cache', type=Path, help='folder for parsed pieces')
  parser.add_argument('-o', '--output', type=Path, required=True)
  parser.add_argument('--steps', type=int, default=8000)
  parser.add_argument('--pool', type=int, default=6000, help='performances')
  parser.add_argument('--tracked', type=int, default=2500, help='performances whose beats are tracked')
  parser.add_argument('--workers', type=int, default=2, help='processes that track beats')
  parser.add_argument('--width', type=int, default=48)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--grooves', type=int, default=300)
  parser.add_argument('--every-tune', type=int, default=2, help='one in so many tunes is used')
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  by_metre = by_metre_and_collection(training_pieces(args.cache, args.grooves, args.every_tune))
  begin = time.time()
  pool = []
  while len(pool) < args.pool:
    if (example := draw_example(by_metre, rng)) is not None:
      pool.append(example)
  _SHARED['by_metre'] = by_metre
  context = multiprocessing.get_context('fork')  # before JAX starts its threads
  with context.Pool(args.workers) as workers:
    seeds = rng.integers(2**32, size=args.tracked).tolist()
    tracked = [example for own in workers.imap(_tracked_of_seed, seeds, chunksize=20) for example in own]
  print(f'{len(tracked)} tracked and {len(pool)} performances in {time.time() - begin:.0f} s', flush=True)
  params = convolutions.initial(rng, bar_features.CHANNELS, args.width, len(bar_network.DILATIONS), bar_network.OUTPUTS)

  def next_batch(number):
    if number % 10 == 0:  # the pool is renewed little by little
      for _ in range(6):
        if (example := draw_example(by_metre, rng)) is not None:
          pool[rng.integers(len(pool))] = example
    return mixed_batch(pool, tracked, args.batch, rng)

  fitting.fit(
    params,
    loss_fn,
    next_batch,
    args.output,
    steps=args.steps,
    rate=3e-3,
    last_rate=3e-5,
    weight_decay=1e-2,
    report_every=200,
    save_every=1000,
  )


if __name__ == '__main__':
  main()
