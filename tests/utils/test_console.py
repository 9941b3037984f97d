"""Names on terminals and pages. Every character that acts on a terminal is shown as Python would write it."""

import os
import subprocess
import sys

import pytest

from mrmt3.notes import midi, note_array
from mrmt3.utils import console

CLEAR, REVERSED = '\x1b[2J\x1b]0;title\x07', '\u202egpj.exe'


@pytest.mark.parametrize(
  ('text', 'shown'),
  [
    ('song é 日本 \u3000 $x$ \\', 'song é 日本 \u3000 $x$ \\'),
    (CLEAR, r'\x1b[2J\x1b]0;title\x07'),
    (REVERSED, r'\u202egpj.exe'),
    ('a\r\nmrmt3: done\t\x7f\x9b\u2028\u2066\u200f\ufeff', r'a\r\nmrmt3: done\t\x7f\x9b\u2028\u2066\u200f\ufeff'),
    (os.fsdecode(b'caf\xe9'), r'caf\udce9'),
    ('\N{WOMAN}\u200d\N{ROCKET}', '\N{WOMAN}\u200d\N{ROCKET}'),  # an emoji of its own
  ],
)
def test_printable(text, shown):
  assert console.printable(text) == shown


def test_protected_streams():
  script = (
    'import sys\nfrom mrmt3.utils import console\nconsole.protect_streams()\nconsole.protect_streams()\n'
    "print('a\\tb\\x1b[2J\\u202e\\udce9é')\nprint('c', file=sys.stderr, end='\\r')\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, check=True, env={**os.environ, 'PYTHONIOENCODING': 'ascii'}
  )
  assert (done.stdout, done.stderr) == (b'a\tb\\x1b[2J\\u202e\\udce9\\xe9\n', b'c\r')


@pytest.fixture
def odd_folder(tmp_path):
  """A folder of MIDI files with odd names, and its names."""
  names = [CLEAR.replace('/', '') + '.mid', REVERSED + '.mid', 'line\nmrmt3: error: no.mid', b'caf\xe9.mid', '$x^$.mid']
  for name in names:
    path = tmp_path / 'songs' / os.fsdecode(name)
    midi.write_midi(note_array.as_notes([(0, 1, 60, 100, 0, 0)]), path)
  return tmp_path / 'songs'


def test_odd_names_on_the_terminal_and_in_the_report(odd_folder, tmp_path):
  (odd_folder / os.fsdecode(b'broken\x1b[1m\xff.mid')).write_bytes(b'MThd')
  (tmp_path / 'few').mkdir()
  (tmp_path / 'few' / '$x^$.mid').write_bytes((odd_folder / '$x^$.mid').read_bytes())
  (tmp_path / 'few' / 'unknown\x1b[1m.mid').write_bytes((odd_folder / '$x^$.mid').read_bytes())
  broken = os.fsdecode(b'songs/broken\x1b[1m\xff.mid')
  for reference, estimate, code in (('few', 'songs', 0), ('songs/$x^$.mid', broken, 2)):
    done = subprocess.run(
      [sys.executable, '-m', 'mrmt3', 'evaluate', reference, estimate, '--report', 'report', '--json', 'x.json'],
      capture_output=True,
      check=False,
      cwd=tmp_path,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert b'\x1b' not in output and '\u202e'.encode() not in output and b'\\x1b[' in output
    assert not any(line.startswith(b'mrmt3: error: no') for line in output.splitlines())
    page = (tmp_path / 'report' / 'index.html').read_text(encoding='utf-8')
    assert '\x1b' not in page and '\u202e' not in page and 'x^' in page


def test_odd_names_in_errors(tmp_path):
  name = os.fsdecode(b'no \x1b[2J\nsuch caf\xe9.wav')
  done = subprocess.run(
    [sys.executable, '-m', 'mrmt3', 'transcribe', name, '-o', 'x.mid', '--quiet'],
    capture_output=True,
    check=False,
    cwd=tmp_path,
  )
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
  assert rb'no \x1b[2J\nsuch caf\udce9.wav' in done.stderr
