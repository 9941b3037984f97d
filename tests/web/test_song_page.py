"""The single file: its script, its size, and names in it."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from serving import notes_of_second, wav

from mrmt3.notes.note_array import empty_notes
from mrmt3.web import song_page

MAX_BYTES = 2**20  # besides the sound


def without_sound(text):
  return re.sub(r'(<script type="text/plain" id="sound-[^>]*>)[^<]*', r'\1', text)


def test_script_has_no_modules_left():
  script = song_page.bundle()
  assert not re.search(r'^(import|export) ', script, re.MULTILINE) and '</script' not in script
  node = shutil.which('node')
  if node is None:
    pytest.skip('node is not installed')
  subprocess.run([node, '--check', '-'], input=script, text=True, check=True)


def test_every_module_of_the_page_is_served_or_bundled():
  names = {path.stem for path in song_page.STATIC.glob('*.js')}
  assert set(song_page.MODULES) <= names
  for name in song_page.MODULES:
    text = (song_page.STATIC / f'{name}.js').read_text()
    for imported in re.findall(r"from '\./(\w+)\.js'", text):
      assert song_page.MODULES.index(imported) < song_page.MODULES.index(name)


@pytest.mark.parametrize('count', [0, 10_000])
def test_size_besides_the_sound(tmp_path, monkeypatch, count):
  rng = np.random.default_rng(0)
  notes = empty_notes(count)
  notes['onset'] = np.sort(rng.random(count) * 600)
  notes['offset'] = notes['onset'] + rng.random(count) + 0.01
  notes['pitch'], notes['velocity'] = rng.integers(20, 100, count), 100
  notes['program'] = rng.integers(0, 128, count)
  monkeypatch.setattr(song_page, '_sounds', lambda notes, seconds: {})
  song_page.write(tmp_path / 'song.html', notes, 600.0, 'song', None)
  assert (tmp_path / 'song.html').stat().st_size < MAX_BYTES


def test_without_a_synthesizer(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'symusic', None)
  (tmp_path / 'song.wav').write_bytes(wav(1.0))
  text = song_page.page(notes_of_second(0), 1.0, 'song.wav', tmp_path / 'song.wav')
  assert re.findall(r'<script type="text/plain" id="(sound-\w+)"', text) == ['sound-original']


def test_names_cannot_leave_their_place():
  text = song_page.page(notes_of_second(0), 1.0, '</title></script><img src=x onerror=alert(1)>', None)
  assert '<img' not in text and '</title></script>' not in text
