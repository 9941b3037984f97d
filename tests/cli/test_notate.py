"""`mrmt3 notate`, and the score options of `mrmt3 transcribe`."""

import json

import command_line
import mido
import network_fixture as fixture
import numpy as np
import pytest

from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import notate, transcribe
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes
from mrmt3.spectrograms import SpectrogramConfig


def run(*arguments):
  return command_line.run(notate, 'notate', *arguments)


@pytest.fixture
def song(tmp_path):
  """Return a MIDI file with a march: bass on the beats, chords off them."""
  rows = []
  for beat in range(64):
    time = 0.7 + 0.5 * beat
    rows.append((time, time + 0.4, 36 + 7 * (beat % 2) + 5 * (beat // 8 % 2), 80, 32, False))
    rows += [(time + 0.25, time + 0.45, pitch + 5 * (beat // 8 % 2), 80, 0, False) for pitch in (60, 64, 67)]
    rows.append((time, time + 0.1, 36 if beat % 2 == 0 else 38, 80, 0, True))
  midi.write_midi(as_notes(rows), tmp_path / 'march.mid')
  return tmp_path / 'march.mid'


def test_all_outputs(song, tmp_path, capsys):
  outputs = [tmp_path / name for name in ('a.musicxml', 'b.mid', 'c.json')]
  assert run(song, *(part for output in outputs for part in ('-o', output))) == 0
  assert '120 bpm' in capsys.readouterr().err
  assert outputs[0].read_text().startswith('<?xml')
  assert '<work-title>march</work-title>' in outputs[0].read_text()
  read, before = midi.read_midi(outputs[1]), midi.read_midi(song)
  np.testing.assert_allclose(np.sort(read['onset']), np.sort(before['onset']), atol=1e-3)
  assert any(message.type == 'time_signature' for message in mido.MidiFile(outputs[1]).tracks[0])
  found = json.loads(outputs[2].read_text())
  assert found['beats_per_minute'] == pytest.approx(120, rel=0.02)


def test_a_quantized_file(song, tmp_path):
  notes = midi.read_midi(song)
  notes['onset'] += np.random.default_rng(0).normal(0, 0.01, len(notes))
  midi.write_midi(notes, tmp_path / 'loose.mid')
  run(tmp_path / 'loose.mid', '-o', tmp_path / 'out.mid', '--quantize', '1/8', '--tempo', '120', '--quiet')
  file = mido.MidiFile(tmp_path / 'out.mid')
  starts = []
  for track in file.tracks[1:]:
    tick = 0
    for message in track:
      tick += message.time
      if message.type == 'note_on' and message.velocity:
        starts.append(tick)
  # All on one grid of eighths; its origin is the first downbeat.
  assert len({start % (file.ticks_per_beat // 2) for start in starts}) == 1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['-o', 'x.wav'], 'must end in'),
    (['-o', 'x.musicxml', '--tempo', 'none'], 'needs bars'),
    (['-o', 'x.musicxml', '--tempo', 'quick'], 'not a tempo'),
    (['-o', 'x.musicxml', '--quantize', '1/5'], 'not a grid'),
  ],
)
def test_bad_arguments(song, tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    run(song, *arguments)
  assert [path.name for path in tmp_path.iterdir()] == ['march.mid']


def test_bad_files(song, tmp_path):
  with pytest.raises(UserError, match='cannot be an output'):
    run(song, '-o', song)
  with pytest.raises(UserError, match='no such file'):
    run(tmp_path / 'none.mid', '-o', tmp_path / 'x.musicxml')
  (tmp_path / 'text.mid').write_text('text')
  with pytest.raises(UserError, match='not a valid MIDI file'):
    run(tmp_path / 'text.mid', '-o', tmp_path / 'x.musicxml')
  midi.write_midi(as_notes([]), tmp_path / 'empty.mid')
  with pytest.raises(UserError, match='no notes'):
    run(tmp_path / 'empty.mid', '-o', tmp_path / 'x.musicxml')
  midi.write_midi(as_notes([(0.5, 1, 60, 80, 0, False)]), tmp_path / 'one.mid')
  with pytest.raises(UserError, match='no steady pulse'):
    run(tmp_path / 'one.mid', '-o', tmp_path / 'x.musicxml')
  assert not (tmp_path / 'x.musicxml').exists()


def test_svg_pages(song, tmp_path):
  pytest.importorskip('verovio')
  assert run(song, '-o', tmp_path / 'pages.svg', '--quiet') == 0
  assert (tmp_path / 'pages.svg').read_text().count('<svg') > 1


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  spec = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
  orbax_checkpoints.save_checkpoint(folder, 3, {'target': fixture.params()}, spec)
  return folder


def test_transcribe_with_bars(model, tmp_path, capsys):
  noise = np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32)
  audio_files.write_audio(tmp_path / 'a.wav', noise)
  options = ('--checkpoint', model, '--tempo', '120', '--quantize', '1/16', '--performance', '--json', '--clean')
  command_line.run(transcribe, 'transcribe', tmp_path / 'a.wav', '-o', tmp_path / 'out' / 'a.musicxml', *options)
  files = {path.name for path in (tmp_path / 'out').iterdir()}
  assert files == {'a.mid', 'a.musicxml', 'a.played.mid', 'a.json'}
  assert '120 bpm' in capsys.readouterr().err
  assert json.loads((tmp_path / 'out' / 'a.json').read_text())['score']['beats_per_minute'] == 120
  with pytest.raises(UserError, match='--performance needs --quantize'):
    command_line.run(
      transcribe, 'transcribe', tmp_path / 'a.wav', '-o', tmp_path / 'b.mid', '--performance', '--tempo', 'auto'
    )
  with pytest.raises(UserError, match='--quantize needs a tempo'):
    command_line.run(
      transcribe, 'transcribe', tmp_path / 'a.wav', '-o', tmp_path / 'b.mid', '--quantize', '1/8', '--tempo', 'none'
    )
