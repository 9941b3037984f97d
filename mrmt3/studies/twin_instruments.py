"""The twin-instrument test: music whose instruments can only be identified with memory.

Two programs share one timbre, so a segment of twin notes sounds the same for either program. The segment before it has
a cue, one of two drums, that determines the program. A network without memory can only guess; a network with the prior
segment's tokens in its memory can identify it. Both programs are equally frequent in each piece, so guessing is right
half of the time.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from mrmt3.dataset_builder import layout
from mrmt3.notes import note_array
from mrmt3.utils import files

TWINS = (40, 73)  # programs: Violin, Pipe (flute)
CUES = (36, 38)  # drum pitches: the bass drum announces the first twin, the snare the second
PITCHES = (60, 62, 65, 67, 70, 72)
NOTES_PER_SEGMENT = 8
PLACES = 16  # grid positions per segment; notes can begin at all but the first and the last two
SAMPLE_RATE = 16000


def compose(
  rng: np.random.Generator, segment_seconds: float, pairs: int, notes_per_segment: int = NOTES_PER_SEGMENT
) -> np.ndarray:
  """Return the note array of a piece of `pairs` cue segments, each followed by a twin segment.

  Notes begin on a grid and are shorter than its step, so none crosses a segment border. Each twin gets half of the
  pairs, in random order.

  Raises:
    ValueError: `pairs` is odd.
  """
  if pairs % 2:
    raise ValueError(f'pairs must be even, got {pairs}')
  answers = rng.permutation(np.repeat([0, 1], pairs // 2))
  place = segment_seconds / PLACES
  rows = []
  for pair, answer in enumerate(answers):
    cue_start, twin_start = (2 * pair) * segment_seconds, (2 * pair + 1) * segment_seconds
    onset = cue_start + place * rng.integers(1, PLACES - 2)
    rows.append((onset, onset + 0.01, CUES[answer], 100, 0, 1))
    for index in np.sort(rng.choice(np.arange(1, PLACES - 2), notes_per_segment, replace=False)):
      onset = twin_start + place * index
      rows.append((onset, onset + 0.9 * place, rng.choice(PITCHES), 100, TWINS[answer], 0))
  return note_array.as_notes(rows)


def _tone(pitch: int, seconds: float) -> np.ndarray:
  """Return a plucked harmonic tone `[n]`, the common timbre of the twins."""
  time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
  frequency = 440.0 * 2.0 ** ((pitch - 69) / 12)
  tone = sum(np.sin(2 * np.pi * k * frequency * time) / k for k in range(1, 6))
  release = np.minimum(1.0, (seconds - time) / 0.01)
  return tone * np.exp(-4.0 * time) * np.minimum(1.0, time / 0.003) * release


def _drum(pitch: int, rng: np.random.Generator) -> np.ndarray:
  """Return a hit `[n]`: a falling sine for the bass drum, a noise burst for the snare."""
  time = np.arange(int(0.15 * SAMPLE_RATE)) / SAMPLE_RATE
  if pitch == CUES[0]:
    return np.sin(2 * np.pi * (50 * time - 2.0 * np.exp(-40 * time))) * np.exp(-20 * time)
  return rng.normal(size=len(time)) * np.exp(-30 * time)


def render(table: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
  """Return the notes as audio `[samples]` float32 at 16 kHz. It depends on drums and pitches, but not on programs."""
  audio = np.zeros(samples)
  for note in table:
    sound = _drum(note['pitch'], rng) if note['is_drum'] else _tone(note['pitch'], note['offset'] - note['onset'])
    start = round(note['onset'] * SAMPLE_RATE)
    audio[start : start + len(sound)] += sound[: samples - start]
  return (0.15 * audio).astype(np.float32)


def write_piece(
  folder: Path, rng: np.random.Generator, segment_seconds: float, pairs: int, uuid: str, notes_per_segment: int
) -> None:
  """Compose, render and write one piece as a track folder in the Slakh layout, with one stem per instrument."""
  table = compose(rng, segment_seconds, pairs, notes_per_segment)
  samples = round(2 * pairs * segment_seconds * SAMPLE_RATE)
  stems = []
  for program, is_drum in ((TWINS[0], False), (TWINS[1], False), (0, True)):
    part = table[(table['is_drum'] == is_drum) & (table['program'] == program)]
    stems.append(layout.Stem(program, is_drum, part, render(part, samples, rng), plugin_name='twin_instruments'))
  layout.write_track(folder, stems, sample_rate=SAMPLE_RATE, uuid=uuid)


def write_dataset(
  folder: str,
  seed: int,
  train_pieces: int,
  test_pieces: int,
  segment_seconds: float,
  pairs: int = 4,
  notes_per_segment: int = NOTES_PER_SEGMENT,
) -> None:
  """Write a data set in the Slakh layout with the splits train and test. The same seed gives the same bytes.

  Existing pieces are kept, so an interrupted call can be repeated.
  """
  for split, count, salt in (('train', train_pieces, 0), ('test', test_pieces, 1)):
    parent = files.make_folder(Path(folder) / split)
    for number in tqdm(range(count), desc=f'render {split}', unit='piece', disable=None):
      track = parent / f'Track{number:05d}'
      if not track.exists():
        rng = np.random.default_rng([seed, salt, number])
        write_piece(track, rng, segment_seconds, pairs, f'twin-{seed}-{split}-{number}', notes_per_segment)
