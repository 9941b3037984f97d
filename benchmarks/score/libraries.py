"""What libraries find on the same pieces: librosa's beats, music21's and partitura's keys.

  python benchmarks/score/libraries.py CACHE --audio FONT.sf2

librosa analyses the rendered audio, music21 and partitura the true notes.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from run import performances
from scoring import beat_f1, known_key

from mrmt3.evaluation.musical_time import key_score
from mrmt3.score.key import Key, find_key

SAMPLE_RATE = 16000


def music21_key(notes: np.ndarray) -> Key:
  """Return the key that music21's default analysis (Aarden-Essen profiles) finds."""
  import music21

  stream = music21.stream.Stream()
  for row in notes[~notes['is_drum']]:
    note = music21.note.Note(int(row['pitch']), quarterLength=max(0.05, float(row['offset'] - row['onset'])))
    stream.insert(float(row['onset']), note)
  found = stream.analyze('key')
  return Key(found.tonic.pitchClass, found.mode == 'minor')


def partitura_key(notes: np.ndarray) -> Key:
  """Return the key that partitura's estimate_key finds."""
  import partitura

  pitched = notes[~notes['is_drum']]
  table = np.zeros(len(pitched), [('onset_sec', 'f4'), ('duration_sec', 'f4'), ('pitch', 'i4'), ('velocity', 'i4')])
  table['onset_sec'], table['pitch'], table['velocity'] = pitched['onset'], pitched['pitch'], 80
  table['duration_sec'] = pitched['offset'] - pitched['onset']
  name = partitura.musicanalysis.estimate_key(table)
  tonic = (dict(zip('CDEFGAB', (0, 2, 4, 5, 7, 9, 11), strict=True))[name[0]] + name.count('#') - name.count('b')) % 12
  return Key(tonic, name.endswith('m'))


def main() -> None:
  """Print the means."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cache', type=Path, help='folder for parsed pieces')
  parser.add_argument('--audio', type=Path, metavar='FONT', help='soundfont for librosa; left out without one')
  parser.add_argument('--grooves', type=int, default=300)
  args = parser.parse_args()
  warnings.simplefilter('ignore')
  played = performances(args.cache, 'reported', args.grooves)
  keyed = [performance for performance in played if performance.key is not None]
  for name, find in {'mrmt3': find_key, 'music21': music21_key, 'partitura': partitura_key}.items():
    scores = [key_score(known_key(one), find(one.notes)) for one in keyed]
    print(f'key, {name}: {np.mean(scores):.3f} ({len(scores)} pieces)', flush=True)
  if args.audio:
    import librosa
    from transcriptions import render

    scores = []
    for performance in played:
      _, times = librosa.beat.beat_track(y=render(performance, args.audio), sr=SAMPLE_RATE, units='time')
      scores.append(beat_f1(performance.beats, times))
    print(f'beat F1, librosa on audio: {np.mean(scores):.3f} ({len(scores)} pieces)')


if __name__ == '__main__':
  main()
