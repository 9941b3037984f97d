"""Scores of beats, metre and key, worked out by hand."""

import json

import command_line
import mido
import numpy as np
import pytest

from mrmt3.cli import evaluate
from mrmt3.errors import UserError
from mrmt3.evaluation import musical_time


def write(path, *, quarter=500_000, metre=(4, 4), key='C', notes=32, shift=0):
  """Write a MIDI file with a note a quarter."""
  file = mido.MidiFile(ticks_per_beat=480)
  track = mido.MidiTrack([mido.MetaMessage('set_tempo', tempo=quarter)])
  if metre:
    track.append(mido.MetaMessage('time_signature', numerator=metre[0], denominator=metre[1]))
  if key:
    track.append(mido.MetaMessage('key_signature', key=key))
  for index in range(notes):
    track.append(mido.Message('note_on', note=60, velocity=80, time=shift if index == 0 else 0))
    track.append(mido.Message('note_on', note=60, velocity=0, time=480))
  file.tracks.append(track)
  file.save(path)
  return path


def scores(reference, estimate):
  return musical_time.score(
    musical_time.read_musical_time(reference), musical_time.read_musical_time(estimate, find_bars=True)
  )


def test_the_same_file_is_right(tmp_path):
  path = write(tmp_path / 'a.mid', metre=(3, 4), key='Am')
  assert scores(path, path) == {'beat': 1.0, 'downbeat': 1.0, 'metre': 1.0, 'key': 1.0}


def test_half_the_tempo_finds_half_the_beats(tmp_path):
  reference = write(tmp_path / 'a.mid')
  estimate = write(tmp_path / 'b.mid', quarter=1_000_000, metre=(2, 4), key='G', notes=16)
  found = scores(reference, estimate)
  # 32 beats, of which every second one is found; bars of 2 s are the same.
  assert found['beat'] == pytest.approx(2 / 3, abs=0.01)
  assert found['downbeat'] == 1.0
  assert found['metre'] == 0.0
  assert found['key'] == 0.5


def test_beats_outside_the_music_do_not_count(tmp_path):
  late = write(tmp_path / 'a.mid', shift=480 * 8)
  truth = musical_time.read_musical_time(late)
  assert truth.span[0] == pytest.approx(4.0)
  found = musical_time.score(truth, musical_time.MusicalTime(truth.beats[8:], truth.downbeats[2:], (4, 4), None))
  assert (found['beat'], found['downbeat'], found['key']) == (1.0, 1.0, 0.0)


def test_a_reference_needs_bars_and_an_estimate_does_not(tmp_path):
  plain = write(tmp_path / 'a.mid', metre=None, key=None)
  with pytest.raises(UserError, match='no time signature'):
    musical_time.read_musical_time(plain)
  assert musical_time.read_musical_time(plain, find_bars=True).key is not None
  reference = write(tmp_path / 'b.mid', key=None)
  assert np.isnan(scores(reference, reference)['key'])


def test_the_command(tmp_path, capsys):
  for folder in ('ref', 'est'):
    (tmp_path / folder).mkdir()
  for name in 'ab':
    write(tmp_path / 'ref' / f'{name}.mid', key=None if name == 'b' else 'C')
  write(tmp_path / 'est' / 'a.mid')
  arguments = ('evaluate', tmp_path / 'ref', tmp_path / 'est', '--score', '--json', tmp_path / 'scores.json')
  assert command_line.run(evaluate, *arguments) == 0
  found = json.loads((tmp_path / 'scores.json').read_text())
  assert found['pieces']['a'] == {'beat': 1.0, 'downbeat': 1.0, 'metre': 1.0, 'key': 1.0}
  assert found['pieces']['b'] == {'beat': 0.0, 'downbeat': 0.0, 'metre': 0.0, 'key': 0.0}
  assert found['mean'] == {'beat': 0.5, 'downbeat': 0.5, 'metre': 0.5, 'key': 0.5}
  assert 'mean of 2 pieces' in capsys.readouterr().out
  with pytest.raises(UserError, match='cannot be combined'):
    command_line.run(evaluate, *arguments, '--report', tmp_path / 'report')
