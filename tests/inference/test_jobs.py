"""Inputs of `mrmt3 transcribe`: odd names, links, patterns and suffixes."""

import os
import unicodedata
import warnings

import odd_audio
import pytest

from mrmt3.errors import DataWarning, UserError
from mrmt3.inference.jobs import plan_jobs
from mrmt3.utils import fingerprints

NFC, NFD = (unicodedata.normalize(form, 'Café') for form in ('NFC', 'NFD'))


def names(*audio):
  return [job.midi.relative_to('o').as_posix() for job in plan_jobs(list(map(str, audio)), 'o', {})]


@pytest.fixture
def songs(tmp_path):
  """A folder with links up, sideways and to nothing."""
  folder = tmp_path / 'songs'
  for name in ('one.wav', 'live/two.WAV', 'live/b/three.3gp'):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b'x')
  other = tmp_path / 'other'
  other.mkdir()
  (other / 'four.mp3').write_bytes(b'x')
  (folder / 'link').symlink_to(other)
  for place in ('up', 'live/up', 'live/b/up'):
    (folder / place).symlink_to(folder)
    (folder / f'{place}2').symlink_to(folder)
  return folder


def test_links_to_folders_are_followed_once(songs):
  wanted = ['link/four.mid', 'live/b/three.mid', 'live/two.mid', 'one.mid']
  assert names(songs) == wanted
  assert names(songs / '**') == wanted
  assert names(songs / '**/*.wav') == ['one.mid']
  assert names(songs / '**/two.*') == ['live/two.mid']
  assert names(songs / '*/four.mp3') == ['link/four.mid']
  assert names(songs / 'l*/**/*.3gp') == ['live/b/three.mid']


def test_a_link_to_nothing_is_an_input_with_an_error(songs):
  (songs / 'five.wav').symlink_to(songs / 'gone.wav')
  assert 'five.mid' in names(songs)


@pytest.mark.parametrize('suffix', ['.3gp', '.avi', '.flv', '.ts', '.webm', '.opus', '.mka', '.WAVE', '.M4a', '.wma'])
def test_suffixes_in_folders(tmp_path, suffix):
  (tmp_path / f'a{suffix}').write_bytes(b'x')
  assert names(tmp_path) == ['a.mid']


def test_audio_with_another_suffix_is_left_out_with_a_warning(tmp_path):
  for name in ('a.wav', 'b', 'c.bak'):
    odd_audio.write(tmp_path / name, odd_audio.tone(), format='WAV')
  (tmp_path / 'cover.jpg').write_bytes(b'\xff\xd8\xff')
  with pytest.warns(DataWarning, match=r'b and 1 more in .* left out'):
    assert names(tmp_path) == ['a.mid']


@pytest.mark.parametrize('given, there', [(NFC, NFD), (NFD, NFC)])
def test_names_in_another_normal_form(tmp_path, given, there):
  (tmp_path / there).mkdir()
  (tmp_path / there / f'{there}.wav').write_bytes(b'x')
  assert names(tmp_path / given / f'{given}.wav') == [f'{there}.mid']
  assert names(tmp_path / given) == [f'{there}.mid']
  assert names(tmp_path / there / f'{given}*') == [f'{there}.mid']
  assert names(tmp_path / there / f'**/{given}*') == [f'{there}.mid']


def test_both_normal_forms_in_one_folder(tmp_path):
  for name in (NFC, NFD):
    (tmp_path / f'{name}.wav').write_bytes(b'x')
  assert sorted(names(tmp_path)) == sorted([f'{NFC}.mid', f'{NFD}.mid'])
  assert names(tmp_path / f'{NFD}.wav') == [f'{NFD}.mid']


def test_the_names_of_outputs_may_be_too_long(tmp_path):
  fits, long = ('x' * 251 + '.wav'), ('é' * 125 + '.w64')
  for name in (fits, long):
    (tmp_path / name).write_bytes(b'x')
  for job in plan_jobs([str(tmp_path)], 'o', {}):
    job.check_names()
  for job in plan_jobs([str(tmp_path)], 'o', {'json': ''}):
    if job.audio.name == fits:
      with pytest.raises(UserError, match='longer than 255 bytes; rename'):
        job.check_names()
    else:
      job.check_names()


@pytest.mark.parametrize('name', ['x' * 300 + '.wav', 'y/' * 3000 + 'a.wav', 'a\0.wav', '[', '**', '[!', '~', ''])
def test_impossible_names_are_user_errors(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  try:
    jobs = plan_jobs([name], 'o', {})
  except UserError as error:
    assert '\n' not in str(error)
  else:
    from mrmt3.audio import files

    with pytest.raises(UserError):
      files.read_audio(jobs[0].audio)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  (tmp_path / 'closed').mkdir()
  (tmp_path / 'a.wav').write_bytes(b'x')
  scan = os.scandir

  def closed(path):
    if str(path).endswith('closed'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(os, 'scandir', closed)
  with pytest.warns(DataWarning, match=r'closed is left out: Permission denied'):
    assert names(tmp_path) == ['a.mid']
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert fingerprints.files_below(tmp_path / 'none') == []
