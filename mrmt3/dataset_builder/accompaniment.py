"""Music of Debian's mma (Musical MIDI Accompaniment): one song for each of its grooves, bands with drums.

The chords are made up here, from a seed in the source's name; the patterns are the grooves' own.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError

LIBRARY = Path('/usr/share/mma/lib/stdlib')
_BARS = 64
_SECONDS = 60  # after which mma hangs
_KEYS = ('C', 'G', 'D', 'A', 'E', 'F', 'Bb', 'Eb', 'Ab')
_SHARP = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
# Four bars each: semitones above the key and the kind of chord.
_PROGRESSIONS = (
  ((0, ''), (9, 'm'), (2, 'm7'), (7, '7')),
  ((0, 'M7'), (5, 'M7'), (4, 'm7'), (9, 'm7')),
  ((9, 'm'), (5, ''), (0, ''), (7, '')),
  ((0, ''), (5, ''), (0, ''), (7, '7')),
  ((2, 'm7'), (7, '7'), (0, 'M7'), (9, '7')),
  ((0, '7'), (5, '7'), (0, '7'), (7, '7')),
  ((9, 'm'), (2, 'm'), (4, '7'), (9, 'm')),
  ((0, ''), (4, 'm'), (5, ''), (5, 'm')),
  ((5, 'M7'), (7, '7'), (4, 'm7'), (9, 'm7')),
  ((0, ''), (10, ''), (5, ''), (0, '')),
)


def program() -> str | None:
  """Returns the path of the mma program, None where it is not installed."""
  return shutil.which('mma') if LIBRARY.is_dir() else None


@functools.cache
def grooves() -> tuple[str, ...]:
  """Returns `<library file>/<groove>` for each groove of the standard library, sorted; empty without mma."""
  found = {}
  if program():
    for path in sorted(LIBRARY.glob('*.mma')):
      for name in re.findall(
        r'^\s*DefGroove\s+([\w-]+)', path.read_text(encoding='latin-1'), re.MULTILINE | re.IGNORECASE
      ):
        # Intros, fills and endings are a bar or two of a song, not a song.
        if not re.search(r'intro|fill|end|break|metronome', name + path.stem, re.IGNORECASE):
          found.setdefault(name.lower(), f'{path.stem}/{name}')
  return tuple(sorted(found.values()))


def definition(name: str) -> bytes:
  """Returns the library file that defines a `<library file>/<groove>`; what a song is made from. UserError if missing."""
  path = LIBRARY / f'{name.split("/")[0]}.mma'
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'mma has no {path}; get it with: apt-get install mma') from error


def song(groove: str, seed: int) -> str:
  """Returns the text of a song for mma: a groove, a tempo, and chords in an AABA form."""
  rng = np.random.default_rng(seed)
  key = _SHARP.index(_KEYS[rng.integers(len(_KEYS))].replace('Bb', 'A#').replace('Eb', 'D#').replace('Ab', 'G#'))
  first, second = rng.choice(len(_PROGRESSIONS), 2, replace=False)
  lines = [f'RndSeed {seed}', f'Tempo {rng.integers(80, 150)}', f'Groove {groove}']
  for bar in range(_BARS):
    progression = _PROGRESSIONS[second if bar // 8 % 4 == 2 else first]
    degree, kind = progression[bar % 4]
    lines.append(f'{bar + 1} {_SHARP[(key + degree) % 12]}{kind}')
  return '\n'.join(lines) + '\n'


def generate(groove: str, seed: int) -> bytes:
  """Returns a groove's song as the bytes of a MIDI file; UserError where mma cannot play it."""
  mma = program()
  if mma is None:
    raise UserError('mma is not installed; get it with: apt-get install mma')
  with tempfile.TemporaryDirectory(prefix='mrmt3-mma-') as folder:
    text, midi = Path(folder) / 'song.mma', Path(folder) / 'song.mid'
    text.write_text(song(groove, seed))
    try:
      done = subprocess.run(
        [mma, str(text), '-f', str(midi)],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_SECONDS,
        check=False,
      )
    except (OSError, subprocess.TimeoutExpired) as error:
      raise UserError(f'mma could not play the groove {groove}: {type(error).__name__}') from error
    if done.returncode or not midi.is_file():
      reason = ' '.join(done.stdout.decode(errors='replace').split())[-120:]
      raise UserError(f'mma could not play the groove {groove}: {reason}')
    return midi.read_bytes()
