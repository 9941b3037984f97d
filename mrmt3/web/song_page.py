"""A transcription as one HTML file that needs no server: piano roll, both sounds, and the MIDI file."""

import base64
import hashlib
import html
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mrmt3.audio import files as audio_files
from mrmt3.errors import DataWarning
from mrmt3.notes import midi
from mrmt3.notes.instruments import instrument_name
from mrmt3.utils import console
from mrmt3.utils.files import atomic_path
from mrmt3.web import rendering, wire

STATIC = Path(__file__).parent / 'static'
# The modules of the page, each after those that it imports.
MODULES = ('instruments', 'oscillator', 'player', 'roll', 'song', 'view', 'file')
_IMPORT = re.compile(r"^import \{([^}]*)\} from '\./(\w+)\.js';\n", re.MULTILINE)
_EXPORT = re.compile(r'^export ((?:async )?(?:function|class|const) (\w+))', re.MULTILINE)
_COLUMNS = ('onset', 'offset', 'pitch', 'velocity', 'program', 'is_drum', 'confidence')
_MAX_PEAK = 0.99


def write(
  path: str | os.PathLike,
  notes: np.ndarray,
  seconds: float,
  name: str,
  audio: Path | None,
  confidence: Mapping[tuple[int, bool], float] | None = None,
) -> None:
  """Write the file; UserError if that fails.

  Args:
    path: the file.
    notes: note table.
    seconds: length of the piece.
    name: title.
    audio: the recording, whose sound goes into the file as mono Vorbis at 44.1 kHz; None leaves it out.
    confidence: of instruments, for the MIDI file inside.
  """
  text = page(notes, seconds, name, audio, confidence)
  with atomic_path(path) as temporary:
    temporary.write_text(text, encoding='utf-8')


def page(
  notes: np.ndarray,
  seconds: float,
  name: str,
  audio: Path | None,
  confidence: Mapping[tuple[int, bool], float] | None = None,
) -> str:
  """Return the text of the file that `write` writes."""
  index = (STATIC / 'index.html').read_text(encoding='utf-8')
  script, style = bundle(), (STATIC / 'style.css').read_text(encoding='utf-8')
  name = console.printable(name)
  records = wire.note_records(notes)
  data = {
    'name': name,
    'seconds': seconds,
    'names': {
      'drums' if record['is_drum'] else record['program']: instrument_name(record['program'], record['is_drum'])
      for record in records
    },
    'notes': [[_plain(record[field]) for field in _COLUMNS if field in record] for record in records],
    'warnings': [],
  }
  parts = {'midi': midi.midi_bytes(notes, confidence=confidence)}
  if audio is not None:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', DataWarning)  # they have been shown
      samples = audio_files.read_audio(audio, rendering.SOUND_RATE)
    parts['sound-original'] = rendering.encode(np.clip(samples, -_MAX_PEAK, _MAX_PEAK), 'OGG')
  parts |= _sounds(notes, seconds)
  policy = (
    f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
  )
  holders = [f'<script type="application/json" id="song-data">{_json(data)}</script>']
  holders += [
    f'<script type="text/plain" id="{key}">{base64.b64encode(value).decode()}</script>' for key, value in parts.items()
  ]
  return '\n'.join(
    [
      '<!doctype html>',
      '<html lang="en">',
      '<head>',
      '<meta charset="utf-8">',
      f'<meta http-equiv="content-security-policy" content="{policy}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      '<meta name="color-scheme" content="light dark">',
      f'<title>{html.escape(name)}</title>',
      '<link rel="icon" href="data:,">',
      f'<style>{style}</style>',
      '</head>',
      '<body>',
      '<header><h1>mrmt3</h1><p>Transcription in one file</p>'
      '<button type="button" id="show-keys" aria-haspopup="dialog">Keyboard shortcuts</button></header>',
      f'<main class="alone">{_between(index, "song")}</main>',
      '<p id="status" role="status"></p>',
      _between(index, 'keys'),
      *holders,
      f'<script type="module">{script}</script>',
      '</body>',
      '</html>\n',
    ]
  )


def bundle() -> str:
  """Return the modules of the file as one script: each is a function that returns what it exports."""
  parts = []
  for module in MODULES:
    text = (STATIC / f'{module}.js').read_text(encoding='utf-8')
    text = _IMPORT.sub(r'const {\1} = in_\2;\n', text)
    names = [match[2] for match in _EXPORT.finditer(text)]
    text = _EXPORT.sub(r'\1', text)
    parts.append(f'const in_{module} = (() => {{\n{text}return {{ {", ".join(names)} }};\n}})();\n')
  return ''.join(parts)


def _sounds(notes, seconds):
  """Return the sound of each instrument; none without a synthesizer: the file then plays simple tones."""
  try:
    import symusic  # noqa: F401
  except ModuleNotFoundError:
    return {}
  return {
    f'sound-{"drums" if is_drum else program}': rendering.encode(rendering.synthesize(own, seconds), 'OGG')
    for program, is_drum, own in rendering.stems(notes)
  }


def _plain(value):
  return int(value) if isinstance(value, bool) else round(value, 4) if isinstance(value, float) else value


def _json(data) -> str:
  # Nothing in it can end the script element.
  return json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')


def _digest(text: str) -> str:
  return f'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'


def _between(text: str, name: str) -> str:
  return text.partition(f'<!-- {name} -->')[2].partition(f'<!-- /{name} -->')[0]
