"""Songs from Debian's mma (Musical MIDI Accompaniment): one per groove, for a band with drums.

The chords are generated here, from a seed in the source's name; the patterns are the grooves' own.
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
_TIMEOUT_SECONDS = 60
_KEYS = ('C', 'G', 'D', 'A', 'E', 'F', 'Bb', 'Eb', 'Ab')
_SHARP = ('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')
# Four bars each: semitones above the tonic, and the chord type.
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
  """Return the path of the mma program; None if it is not installed."""
  return shutil.which('mma') if LIBRARY.is_dir() else None


@functools.cache
def grooves() -> tuple[str, ...]:
  """Return `<library file>/<groove>` for each groove of the standard library, sorted; empty without mma."""
  found = {}
  if program():
    for path in sorted(LIBRARY.glob('*.mma')):
      for name in re.findall(
        r'^\s*DefGroove\s+([\w-]+)', path.read_text(encoding='latin-1'), re.MULTILINE | re.IGNORECASE
      ):
        # Intros, fills and endings last a bar or two, too short for a song.
        if not re.search(r'intro|fill|end|break|metronome', name + path.stem, re.IGNORECASE):
          found.setdefault(name.lower(), f'{path.stem}/{name}')
  return tuple(sorted(found.values()))


def definition(name: str) -> bytes:
  """Return the library file that defines `<library file>/<groove>`, part of a song's identity; UserError if missing."""
  path = LIBRARY / f'{name.split("/")[0]}.mma'
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'mma has no {path}; install it with: apt-get install mma') from error


def song(groove: str, seed: int) -> str:
  """Return a song in mma's language: a groove, a tempo, and chords in AABA form."""
  rng = np.random.default_rng(seed)
  key = _SHARP.index(_KEYS[rng.integers(len(_KEYS))].replace('Bb', 'A#').replace('Eb', 'D#').replace('Ab', 'G#'))
  first, second = rng.choice(len(_PROGRESSIONS), 2, replace=False)
  lines = [f'RndSeed {seed}', f'Tempo {rng.integers(80, 150)}', f'Groove {groove}']
  for bar in range(_BARS):
    progression = _PROGRESSIONS[second if bar // 8 % 4 == 2 else first]
    degree, chord = progression[bar % 4]
    lines.append(f'{bar + 1} {_SHARP[(key + degree) % 12]}{chord}')
  return '\n'.join(lines) + '\n'


def generate(groove: str, seed: int) -> bytes:
  """Generate a groove's song as the bytes of a MIDI file; UserError if mma fails."""
  mma = program()
  if mma is None:
    raise UserError('mma is not installed; install it with: apt-get install mma')
  with tempfile.TemporaryDirectory(prefix='mrmt3-mma-') as folder:
    text, midi = Path(folder) / 'song.mma', Path(folder) / 'song.mid'
    text.write_text(song(groove, seed))
    try:
      result = subprocess.run(
        [mma, str(text), '-f', str(midi)],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=_TIMEOUT_SECONDS,
        check=False,
      )
    except (OSError, subprocess.TimeoutExpired) as error:
      raise UserError(f'mma failed on the groove {groove} ({type(error).__name__}); install mma again') from error
    if result.returncode or not midi.is_file():
      reason = ' '.join(result.stdout.decode(errors='replace').split())[-120:]
      raise UserError(f'mma failed on the groove {groove} ({reason}); install mma again')
    return midi.read_bytes()
