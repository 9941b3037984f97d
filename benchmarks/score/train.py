"""Trains the beat network of mrmt3.score on performances of the training pieces.

  python benchmarks/score/train.py CACHE -o mrmt3/weights/score/beats.safetensors

Takes about 40 minutes on one core. Notes are dropped, added, shifted and shortened at random as in transcriptions.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import fitting
import jax.numpy as jnp
import numpy as np
import optax
from accompany import accompanied
from performance import Performance, draw_timing, perform, without_pulse
from pieces import Piece
from safetensors.numpy import load_file
from split import training_pieces

from mrmt3.dataset_builder import drums
from mrmt3.notes.note_array import sort_notes
from mrmt3.score import beat_network, convolutions
from mrmt3.score.features import CHANNELS, FRAME_RATE, SCALARS, frame_features
from mrmt3.score.metres import METRES

FRAMES = 750  # 30 s
SHARES = {(4, 4): 0.36, (3, 4): 0.22, (2, 4): 0.17, (6, 8): 0.17, (9, 8): 0.04, (12, 8): 0.04}
NO_PULSE, ACCOMPANIED, DRUMMED = 0.04, 0.5, 0.2
DROPOUT = 0.12


def with_drums(piece: Piece, rng: np.random.Generator) -> Piece:
  """Return a piece with a drum part."""
  from mrmt3.dataset_builder.score import SCORE_NOTE_DTYPE

  strokes = drums.play_drums(piece.score, 60.0, rng)  # 60 quarters per minute: seconds are quarters
  part = np.zeros(len(strokes), SCORE_NOTE_DTYPE)
  part['start'], part['length'] = strokes['onset'], 0.1
  part['pitch'], part['velocity'] = strokes['pitch'], strokes['velocity']
  return dataclasses.replace(piece, score=dataclasses.replace(piece.score, drums=part))


def corrupted(notes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Return notes with mistakes as transcriptions have them."""
  notes = notes[rng.random(len(notes)) > rng.uniform(0, 0.45)].copy()
  if len(notes) < 4:
    return notes
  notes['onset'] = np.maximum(notes['onset'] + rng.normal(0, rng.uniform(0, 0.025), len(notes)), 0)
  length = np.maximum(notes['offset'] - notes['onset'], 0.04)
  notes['offset'] = notes['onset'] + length * rng.uniform(rng.uniform(0.3, 1.0), 1.1, len(notes))
  extra = notes[rng.integers(len(notes), size=int(len(notes) * rng.uniform(0, 0.5)))].copy()
  is_harmonic = rng.random(len(extra)) < 0.5
  shift = np.where(is_harmonic, 0.0, rng.uniform(0, notes['offset'].max(), len(extra)) - extra['onset'])
  extra['onset'] += shift
  extra['offset'] += shift
  extra['pitch'] += np.where(extra['is_drum'], 0, rng.choice([12, 19, -12, 7, 2, -2], len(extra)))
  extra = extra[(extra['pitch'] > 20) & (extra['pitch'] < 109)]
  return sort_notes(np.concatenate([notes, extra]))


def targets(performance: Performance, frames: int) -> np.ndarray:
  """Return float32 `[frames, 4]`: beat, downbeat, index of the metre (-1 without pulse), whether notes sound."""
  out = np.zeros((frames, 4), np.float32)
  for column, times in ((0, performance.beats), (1, performance.downbeats)):
    for offset, weight in ((0, 1.0), (-1, 0.4), (1, 0.4)):
      place = np.rint(times * FRAME_RATE).astype(int) + offset
      place = place[(place >= 0) & (place < frames)]
      out[place, column] = np.maximum(out[place, column], weight)
  metre = (performance.numerator, performance.denominator)
  out[:, 2] = METRES.index(metre) if len(performance.beats) else -1
  first, last = performance.notes['onset'].min(), performance.notes['offset'].max()
  inside = slice(max(0, int(first * FRAME_RATE) - 5), int(last * FRAME_RATE) + 5)
  out[inside, 3] = 1
  return out


def by_metre_and_collection(pieces: list[Piece]) -> dict:
  """Return {metre: {collection: pieces}}."""
  found = {}
  for piece in pieces:
    collection = piece.name.split('/')[0 if piece.name.startswith('mma') else 1]
    found.setdefault((piece.numerator, piece.denominator), {}).setdefault(collection, []).append(piece)
  return found


def draw_performance(by_metre: dict, rng: np.random.Generator) -> Performance:
  """Draw a piece and perform it, with an accompaniment, drums and mistakes at random."""
  metres = list(by_metre)
  shares = np.array([SHARES[metre] for metre in metres])
  collections = by_metre[metres[rng.choice(len(metres), p=shares / shares.sum())]]
  names = list(collections)
  weights = np.sqrt([len(collections[name]) for name in names])
  own = collections[names[rng.choice(len(names), p=weights / weights.sum())]]
  piece = own[rng.integers(len(own))]
  if piece.is_monophonic and rng.random() < ACCOMPANIED:
    piece = accompanied(piece, rng)
  if piece.score.drums is None and rng.random() < DRUMMED:
    piece = with_drums(piece, rng)
  timing = dataclasses.replace(draw_timing(rng, 0.0, 0.13), jitter=rng.uniform(0, 0.015), wander=rng.uniform(0, 0.02))
  performance = perform(piece, rng, timing, seconds=rng.uniform(20, 40), from_start=rng.random() < 0.6)
  if rng.random() < 0.65:
    performance = dataclasses.replace(performance, notes=corrupted(performance.notes, rng))
  return performance


def draw_example(by_metre: dict, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draw a performance; returns (features `[frames, CHANNELS]`, targets `[frames, 4]`), float16."""
  performance = draw_performance(by_metre, rng)
  if rng.random() < NO_PULSE:
    performance = without_pulse(rng, performance)
  features = frame_features(performance.notes)
  return features.astype(np.float16), targets(performance, len(features)).astype(np.float16)


def batch_of(pool: list, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Draw windows of `FRAMES` from a pool, transposed at random."""
  features = np.zeros((size, FRAMES, CHANNELS), np.float32)
  answers = np.zeros((size, FRAMES, 4), np.float32)
  for row, index in enumerate(rng.integers(len(pool), size=size)):
    x, y = pool[index]
    begin = rng.integers(max(1, len(x) - FRAMES + 1))
    x, y = x[begin : begin + FRAMES], y[begin : begin + FRAMES]
    features[row, : len(x)], answers[row, : len(y)] = x, y
    chroma = features[row, :, SCALARS:].reshape(FRAMES, 3, 12)
    features[row, :, SCALARS:] = np.roll(chroma, rng.integers(12), axis=2).reshape(FRAMES, 36)
  return features, answers


def loss_fn(params: dict, key, features, answers):
  """Mean cross entropy of beats, downbeats and metre where notes sound."""
  dropout = fitting.channel_dropout(key, len(beat_network.DILATIONS), DROPOUT)
  outputs = convolutions.forward(params, features, beat_network.DILATIONS, jnp, dropout)
  mask = answers[..., 3]
  total = jnp.maximum(mask.sum(), 1)
  beats = optax.sigmoid_binary_cross_entropy(outputs[..., :2], answers[..., :2]) * jnp.array([1.0, 1.5])
  metre = answers[..., 2].astype(jnp.int32)
  entropy = optax.softmax_cross_entropy_with_integer_labels(outputs[..., 2:], jnp.maximum(metre, 0))
  metre_mask = mask * (metre >= 0)
  return (beats.sum(axis=-1) * mask).sum() / total + 0.15 * (entropy * metre_mask).sum() / total


def main() -> None:
  """Train; writes the weights every 500 steps."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cache', type=Path, help='folder for parsed pieces')
  parser.add_argument('-o', '--output', type=Path, required=True)
  parser.add_argument('--steps', type=int, default=6000)
  parser.add_argument('--pool', type=int, default=2500, help='performances')
  parser.add_argument('--width', type=int, default=32)
  parser.add_argument('--batch', type=int, default=12)
  parser.add_argument('--grooves', type=int, default=300)
  parser.add_argument('--every-tune', type=int, default=2, help='one in so many tunes is used')
  parser.add_argument('--start', type=Path, help='weights to start from')
  parser.add_argument('--rate', type=float, default=4e-3, help='highest learning rate')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  rng = np.random.default_rng(args.seed)
  pieces = training_pieces(args.cache, args.grooves, args.every_tune)
  by_metre = by_metre_and_collection(pieces)
  print({metre: {name: len(own) for name, own in c.items()} for metre, c in by_metre.items()}, flush=True)
  begin = time.time()
  pool = []
  while len(pool) < args.pool:
    pool.append(draw_example(by_metre, rng))
  print(f'{len(pool)} performances in {time.time() - begin:.0f} s', flush=True)

  params = convolutions.initial(rng, CHANNELS, args.width, len(beat_network.DILATIONS), beat_network.OUTPUTS)
  if args.start:
    params = {name: value.astype(np.float32) for name, value in load_file(args.start).items()}

  def next_batch(number):
    if number % 20 == 0:  # the pool is renewed little by little
      for _ in range(6):
        pool[rng.integers(len(pool))] = draw_example(by_metre, rng)
    return batch_of(pool, args.batch, rng)

  fitting.fit(
    params,
    loss_fn,
    next_batch,
    args.output,
    steps=args.steps,
    rate=args.rate,
    last_rate=4e-5,
    weight_decay=1e-3,
    report_every=100,
    save_every=500,
  )


if __name__ == '__main__':
  main()
