"""Measures speed and scores when several segments of a piece are decoded at once, for several hops.

  python benchmarks/hop.py --checkpoint model --data slakh --split test --hops 1 2 4 8

With hop h the memory of a segment holds the segment h back, as in training with prior-token sampling. For each hop it
prints the multiple of real time (the fastest of --runs over all pieces) and the pieces' mean scores.
"""

import argparse
import time

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.data import slakh_layout
from mrmt3.evaluation import metric_registry
from mrmt3.inference.transcriber import Transcriber

SCORES = ('onset_f1', 'onset_program_f1', 'leakage_ratio', 'instrument_detection_f1')


def main() -> None:
  """Transcribe the pieces with each hop and print a table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--checkpoint', required=True, help='checkpoint to transcribe with')
  parser.add_argument('--data', required=True, help='data set in the Slakh2100 layout')
  parser.add_argument('--split', default='test', help='split to transcribe (default: test)')
  parser.add_argument('--pieces', type=int, default=20, help='first N pieces of the split (default: 20)')
  parser.add_argument('--hops', type=int, nargs='+', default=[1, 2, 4, 8], help='hops to measure (default: 1 2 4 8)')
  parser.add_argument('--runs', type=int, default=2, help='number of runs per hop (default: 2)')
  args = parser.parse_args()
  transcriber = Transcriber.load(args.checkpoint)
  pieces = [
    (slakh_layout.read_notes(track), audio_files.read_audio(track.audio_path, transcriber.sample_rate))
    for track in slakh_layout.find_tracks(args.data, args.split)[: args.pieces]
  ]
  seconds = sum(len(samples) for _, samples in pieces) / transcriber.sample_rate
  print(f'{len(pieces)} pieces, {seconds:.0f} s')
  print(f'{"hop":>4} {"x real time":>12}  ' + '  '.join(SCORES))
  for hop in args.hops:
    transcriber.transcribe(pieces[0][1], transcriber.sample_rate, hop=hop)  # compiles
    best = float('inf')
    for _ in range(args.runs):
      start = time.perf_counter()
      results = [transcriber.transcribe(samples, transcriber.sample_rate, hop=hop).notes for _, samples in pieces]
      best = min(best, time.perf_counter() - start)
    scores = [metric_registry.evaluate_piece(notes, found) for (notes, _), found in zip(pieces, results, strict=True)]
    means = [np.nanmean([score[name] for score in scores]) for name in SCORES]
    print(
      f'{hop:>4} {seconds / best:>12.1f}  ' + '  '.join(f'{x:{len(n)}.3f}' for x, n in zip(means, SCORES, strict=True)),
      flush=True,
    )


if __name__ == '__main__':
  main()
