"""Scores beats, downbeats, metre and key on performances of scores whose bars are known.

  python benchmarks/score/run.py CACHE                    from the true notes
  python benchmarks/score/run.py CACHE --audio FONT.sf2   from transcriptions of renderings with a soundfont

The tempo drifts and has rubato of 5 to 10 %. `120 bpm, 4/4` is what a MIDI file without analysis amounts to. The
pieces are those of `reported.choose`; `--tuning` takes as many others, for choosing settings.
"""

import argparse
import collections
from pathlib import Path

import numpy as np
import transcriptions
from performance import Performance, draw_timing, perform
from pieces import read_pieces
from reported import choose, seeds
from scoring import score
from split import split_pieces

from mrmt3.score.beats import Beats, find_beats
from mrmt3.score.key import Key, find_key

COLUMNS = ('beat', 'downbeat', 'metre', 'key')


def constant(performance: Performance) -> tuple[Beats, Key]:
  """Return beats at 120 bpm in 4/4 from 0 s on, and C major."""
  times = np.arange(0, performance.notes['offset'].max(), 0.5)
  return Beats(times, np.arange(len(times)) % 4, 4, 4), Key(0, False)


def performances(cache: Path, part: str, grooves: int) -> list[Performance]:
  """Return the performances of the chosen pieces of a part of the split."""
  chosen = choose(split_pieces(read_pieces(cache, grooves=grooves))[part], 0)
  found = []
  for piece in chosen:
    rng = seeds(piece)
    found.append(perform(piece, rng, draw_timing(rng)))
  return found


def row(name: str, results: list[dict[str, float]]) -> str:
  """Return a line of the table."""
  cells = [f'{np.nanmean([result[column] for result in results]):8.3f}' for column in COLUMNS]
  return f'{name:28s}{len(results):4d}{"".join(cells)}'


def main() -> None:
  """Print a line for each piece and the means."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cache', type=Path, help='folder for parsed pieces and transcriptions')
  parser.add_argument('--tuning', action='store_true', help='use the tuning pieces')
  parser.add_argument('--audio', type=Path, metavar='FONT', help='render with a soundfont and transcribe')
  parser.add_argument('--checkpoint', help='of the transcriber; default: the bundled model')
  parser.add_argument('--grooves', type=int, default=300)
  args = parser.parse_args()
  played = performances(args.cache, 'tuning' if args.tuning else 'reported', args.grooves)
  results, baseline = [], []
  for performance in played:
    notes = performance.notes
    if args.audio:
      notes = transcriptions.transcribed(performance, args.audio, args.cache, args.checkpoint)
    result = score(performance, find_beats(notes), find_key(notes))
    results.append(result)
    baseline.append(score(performance, *constant(performance)))
    cells = ''.join(f'{result[column]:8.3f}' for column in COLUMNS)
    metre = f'{performance.numerator}/{performance.denominator}'
    print(f'{performance.name[:60]:60s} {metre:5s} {performance.tempo:4.0f}{cells}', flush=True)
  print(f'\n{"":28s}   n{"".join(f"{column:>8s}" for column in COLUMNS)}')
  print(row('120 bpm, 4/4', baseline))
  print(row('mrmt3.score', results))
  groups = collections.defaultdict(list)
  for performance, result in zip(played, results, strict=True):
    groups[f'{performance.numerator}/{performance.denominator}'].append(result)
    if performance.key:
      groups['minor' if performance.key[1] else 'major'].append(result)
    groups['pick-up' if performance.pickup else 'no pick-up'].append(result)
    programs = len(np.unique(performance.notes['program']))
    groups['melodies' if programs == 1 else 'several parts'].append(result)
  for name in sorted(groups):
    print(row(name, groups[name]))


if __name__ == '__main__':
  main()
