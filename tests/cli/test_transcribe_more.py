"""`mrmt3 transcribe`: folders and patterns, pipes, resuming, batches, and every output format."""

import csv
import io
import json
import os
import subprocess
import sys

import command_line
import jax
import mido
import network_fixture as fixture
import numpy as np
import pretty_midi
import pytest
import soundfile
from paths import ROOT

from mrmt3.audio import files as audio_files
from mrmt3.audio import stdin_stream
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import transcribe
from mrmt3.config import ModelSpec
from mrmt3.errors import UserError
from mrmt3.inference import instrument_merging, resume, run_jobs
from mrmt3.inference.jobs import plan_jobs
from mrmt3.notes import instruments
from mrmt3.notes import midi as midi_io
from mrmt3.notes.note_array import as_notes
from mrmt3.score.options import ScoreOptions
from mrmt3.spectrograms import SpectrogramConfig

SEGMENT = 40 * 128


def run(*arguments):
  return command_line.run(transcribe, 'transcribe', *arguments)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('model')
  params = jax.tree.map(np.array, fixture.params())
  kernel = params['decoder']['logits_dense']['kernel']
  kernel[:, 23:1004] *= 0.3  # fewer time shifts, more notes
  kernel[:, 1391:] = 0
  spec = ModelSpec(fixture.CONFIG, SpectrogramConfig(num_mel_bins=64), segment_frames=40, targets_length=48)
  orbax_checkpoints.save_checkpoint(folder, 3, {'target': params}, spec)
  return folder


def noise(samples, seed=0):
  return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.fixture
def album(tmp_path):
  """Write a folder of songs, one of them broken."""
  folder = tmp_path / 'album'
  for seed, name in enumerate(
    ('one.wav', 'live/two.flac', 'live/late/three.ogg', 'same.wav', 'same.flac', '.hidden/x.wav')
  ):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    audio_files.write_audio(folder / name, noise((seed + 1) * 3000, seed))
  (folder / 'live' / 'broken.mp3').write_bytes(b'\xff\xfb\x90' + bytes(300))
  (folder / 'cover.jpg').write_bytes(b'no music')
  return folder


def tree(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def test_a_folder_is_mirrored_and_one_bad_file_does_not_stop_it(model, album, tmp_path, capsys):
  out = tmp_path / 'out'
  assert run(album, '-o', out, '--checkpoint', model, '--batch', 3, '--quiet') == 2
  wanted = ['live/late/three.mid', 'live/two.mid', 'one.mid', 'same.flac.mid', 'same.wav.mid']
  assert tree(out) == wanted
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 1 and 'broken.mp3' in errors[0]
  # A batch gives the same result as one file at a time.
  assert run(album, '-o', tmp_path / 'single', '--checkpoint', model, '--quiet') == 2
  for name in wanted:
    assert (out / name).read_bytes() == (tmp_path / 'single' / name).read_bytes()


def test_patterns_and_output_inside_the_input(album):
  def names(*audio, out):
    jobs = plan_jobs(list(map(str, audio)), str(out), {})
    return [job.midi.relative_to(out).as_posix() for job in jobs]

  assert names(album / '**/*.flac', out='o') == ['live/two.mid', 'same.mid']
  assert names(album / 'live/*/*.ogg', out='o') == ['late/three.mid']
  audio_files.write_audio(album / 'mid' / 'one.wav', noise(99))
  audio_files.write_audio(album / 'one.played.wav', noise(99))
  found = names(album, out=album / 'mid')
  assert 'one.mid' in found and not [name for name in found if 'mid/' in name or 'played' in name or 'hidden' in name]
  for bad, message in ((album / '.hidden' / 'none*', 'no file matches'), (album / 'live' / 'late' / 'x', None)):
    if message:
      with pytest.raises(UserError, match=message):
        names(bad, out='o')
  (album / 'empty').mkdir()
  with pytest.raises(UserError, match='has no audio'):
    names(album / 'empty', out='o')
  with pytest.raises(UserError, match='is an input'):
    plan_jobs([str(album / 'one.wav')], str(album), {'audio': str(album / 'one.wav')})


def pipe(model, data, *arguments):
  command = [sys.executable, '-m', 'mrmt3', 'transcribe', '-', '--checkpoint', str(model), *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, input=data, capture_output=True, check=False)


def test_a_pipe_gives_the_same_notes_as_a_file(model, tmp_path):
  sound = noise((40000, 2))
  soundfile.write(tmp_path / 'a.wav', sound, 22050, subtype='PCM_16')
  assert run(tmp_path / 'a.wav', '-o', tmp_path / 'a.mid', '--checkpoint', model, '--json', '--quiet') == 0
  wanted = json.loads((tmp_path / 'a.json').read_text())['notes']
  assert len(wanted) > 5
  done = pipe(model, (tmp_path / 'a.wav').read_bytes(), '-o', tmp_path / 'piped.mid')
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in done.stdout.splitlines()]

  def key(note):
    return note['onset'], note['is_drum'], note['program'], note['pitch'], note['offset']

  assert sorted(lines, key=key) == sorted(wanted, key=key)
  assert (tmp_path / 'piped.mid').read_bytes() == (tmp_path / 'a.mid').read_bytes()

  raw = soundfile.read(tmp_path / 'a.wav', dtype='int16')[0].tobytes()
  done = pipe(model, raw, '--rate', 22050, '--channels', 2)
  assert sorted(map(json.loads, done.stdout.splitlines()), key=key) == sorted(wanted, key=key)
  assert done.stderr == b''
  done = pipe(model, raw)
  assert (done.returncode, done.stdout) == (2, b'')
  assert b'give --rate' in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  ('subtype', 'accuracy'),
  [('PCM_U8', 1e-2), ('PCM_16', 1e-4), ('PCM_24', 1e-6), ('PCM_32', 1e-7), ('FLOAT', 0), ('DOUBLE', 0)],
)
@pytest.mark.parametrize('container', ['WAV', 'WAVEX'])
def test_wav_from_a_pipe(subtype, accuracy, container):
  sound = noise((1000, 3))
  file = io.BytesIO()
  soundfile.write(file, sound, 32000, subtype=subtype, format=container)
  rng = np.random.default_rng(0)
  file.seek(0)
  rate, blocks = stdin_stream.open_sound(lambda count: file.read(rng.integers(1, 700)))
  decoded_audio = np.concatenate(list(blocks))
  assert rate == 32000 and decoded_audio.dtype == np.float32 and decoded_audio.shape == sound.shape
  np.testing.assert_allclose(decoded_audio, sound, atol=accuracy)


def test_notes_are_written_before_the_input_ends(model):
  command = [
    sys.executable,
    '-m',
    'mrmt3',
    'transcribe',
    '-',
    '--checkpoint',
    str(model),
    '--rate',
    '16000',
    '--format',
    'f32le',
  ]
  process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  try:
    process.stdin.write(noise(20 * SEGMENT).tobytes())
    process.stdin.flush()
    note = json.loads(process.stdout.readline())
    assert note['offset'] <= 20 * SEGMENT / 16000 and note['instrument']
    assert process.poll() is None
  finally:
    process.stdin.close()
    process.stdout.close()
    process.wait(60)


def test_an_interrupted_run_resumes(model, tmp_path, monkeypatch, capsys):
  song, out = tmp_path / 'song.wav', tmp_path / 'out' / 'song.mid'
  audio_files.write_audio(song, noise(9 * SEGMENT + 7))
  arguments = (song, '-o', out, '--checkpoint', model, '--json', '--quiet')
  assert run(*arguments) == 0
  wanted = out.read_bytes(), json.loads(out.with_suffix('.json').read_text())
  for file in out.parent.iterdir():
    file.unlink()

  decoded = []
  real = run_jobs.batched_pieces._decode_groups

  def counting(*args):
    if len(decoded) == 4:
      raise KeyboardInterrupt
    decoded.append(0)
    return real(*args)

  monkeypatch.setattr(run_jobs.batched_pieces, '_decode_groups', counting)
  with pytest.raises(KeyboardInterrupt):
    run(*arguments, '--resume')
  journal = resume.journal_path(out)
  assert tree(out.parent) == [journal.name]
  with open(journal, 'a') as file:
    file.write('[5, 6')  # killed while it wrote
  decoded[:] = [0] * 5
  assert run(*arguments, '--resume') == 0
  assert len(decoded) == 5 + 6  # 4 of 10 segments were known
  assert (out.read_bytes(), json.loads(out.with_suffix('.json').read_text())) == wanted
  assert not journal.exists()
  # Finished files are skipped unless their audio has changed.
  assert run(*arguments, '--resume') == 0
  assert len(decoded) == 11
  audio_files.write_audio(song, noise(3 * SEGMENT, 5))
  assert run(*arguments, '--resume') == 0
  assert len(decoded) == 15 and len(json.loads(out.with_suffix('.json').read_text())['segments']) == 4


def test_a_journal_of_another_song_or_model_is_ignored(model, tmp_path):
  song = tmp_path / 'song.wav'
  song.write_bytes(b'abc')
  first = resume.SegmentJournal(tmp_path / 'a.mid', song, 'model')
  first.add([run_jobs.batched_pieces.Segment(0.0, np.array([5, 1]))])
  first.close(done=False)

  def known(model):
    journal = resume.SegmentJournal(tmp_path / 'a.mid', song, model)
    journal.close(done=False)
    return [row.tolist() for row in journal.known]

  assert known('model') == [[5, 1]]
  assert not known('other')
  song.write_bytes(b'abcd')
  assert not known('model')


def test_two_runs_do_not_share_a_journal(model, album, tmp_path, capsys):
  song = album / 'one.wav'
  out = tmp_path / 'out'
  other = resume.SegmentJournal(out / 'one.mid', song, 'model')
  with pytest.raises(UserError, match=r'one\.mid: another run is at work on it'):
    run(song, '-o', out / 'one.mid', '--checkpoint', model, '--resume')
  # Of several files the others are transcribed.
  assert run(song, album / 'live' / 'two.flac', '-o', out, '--checkpoint', model, '--resume', '--quiet') == 2
  assert 'another run is at work' in capsys.readouterr().err
  assert tree(out) == ['.one.mid.resume', 'two.mid']
  other.close(done=False)
  assert run(song, '-o', out / 'one.mid', '--checkpoint', model, '--resume', '--quiet') == 0
  assert tree(out) == ['one.mid', 'two.mid']


def test_progress_as_json_and_errors_in_it(model, album, tmp_path, capsys):
  assert (
    run(album / 'one.wav', album / 'live' / 'broken.mp3', '-o', tmp_path, '--checkpoint', model, '--progress', 'json')
    == 2
  )
  lines = capsys.readouterr().err.splitlines()
  events = [json.loads(line) for line in lines]
  assert events[-1] == {'event': 'finished', 'files': 2, 'failed': 1}
  assert {event['event'] for event in events} == {'progress', 'done', 'error', 'finished'}
  progress = [event for event in events if event['event'] == 'progress']
  assert progress[0]['of'] == 0.188 and progress[-1]['left'] >= 0
  done = next(event for event in events if event['event'] == 'done')
  # Random tokens repeat notes within a millisecond, which MIDI cannot represent.
  assert done['notes'] >= len(midi_io.read_midi(done['midi'])) > 0


NOTES = as_notes(
  [
    (0.5, 1.0, 60, 100, 0, 0),
    (1.0, 1.5, 64, 90, 0, 0),
    (0.5, 2.0, 40, 80, 34, 0),
    (1.5, 1.9, 41, 80, 33, 0),
    (0.25, 0.26, 36, 127, 0, 1),
    (2.0, 2.5, 70, 64, 74, 0),
  ]
)


def test_every_output_opens_in_common_libraries(tmp_path):
  pytest.importorskip('symusic')
  from mrmt3.inference.transcription import Transcription
  from mrmt3.note_sequences import DecodingStats

  kinds = ('json', 'csv', 'plot', 'audio', 'musicxml', 'performance')
  job = plan_jobs(['song.wav'], str(tmp_path), dict.fromkeys(kinds, ''))[0]
  svg = plan_jobs(['song.wav'], str(tmp_path), {'plot': str(tmp_path / 'song.svg')})[0]
  result = Transcription(NOTES, DecodingStats(segments=2), [], 3.0)
  for each in (job, svg):
    run_jobs.write_outputs(each, result, ScoreOptions(tempo='120'))
  suffixes = ('.csv', '.json', '.mid', '.musicxml', '.played.mid', '.played.wav', '.png', '.svg')
  assert tree(tmp_path) == [f'song{suffix}' for suffix in suffixes]

  midi = pretty_midi.PrettyMIDI(str(tmp_path / 'song.mid'))
  names = {track.name: len(track.notes) for track in midi.instruments}
  assert names == {'Acoustic Piano': 2, 'Electric Bass': 1, 'Electric Bass (pick)': 1, 'Recorder': 1, 'Drums': 1}
  assert [track.is_drum for track in midi.instruments] == [False] * 4 + [True]
  assert len(mido.MidiFile(tmp_path / 'song.mid').tracks) == 6
  rows = list(csv.DictReader((tmp_path / 'song.csv').open()))
  assert [float(row['onset']) for row in rows] == NOTES['onset'].tolist()
  assert rows[4]['instrument'] == 'Drums' and rows[4]['is_drum'] == '1'
  assert [note['pitch'] for note in json.loads((tmp_path / 'song.json').read_text())['notes']] == NOTES[
    'pitch'
  ].tolist()
  import matplotlib.image

  picture = matplotlib.image.imread(tmp_path / 'song.png')
  assert min(picture.shape[:2]) > 100 and picture.std() > 0.01
  from xml.etree import ElementTree

  assert ElementTree.parse(tmp_path / 'song.svg').getroot().tag.endswith('svg')
  sound, rate = soundfile.read(tmp_path / 'song.played.wav')
  assert (rate, len(sound)) == (16000, 48000)
  assert np.abs(sound[:3000]).max() < 0.1 * np.abs(sound).max()  # nothing before the drum at 0.25 s


def test_tracks_by_class_and_merging():
  by_class = run_jobs.finish(run_jobs.Transcription(NOTES, None, []), run_jobs.Settings(tracks='class')).notes
  assert instruments.instruments_of(by_class) == [(0, False), (33, False), (73, False), (0, True)]
  merged = instrument_merging.merge_small_instruments(NOTES, 0.3)
  assert instruments.instruments_of(merged) == [(0, False), (0, True)]
  assert len(merged) == len(NOTES) and (np.diff(merged['onset']) >= 0).all()
  many = np.concatenate([NOTES, as_notes([(t, t + 0.1, 45, 80, 34, 0) for t in range(10, 20)])])
  merged = instrument_merging.merge_small_instruments(many, 0.1)
  programs = dict(zip(*np.unique(merged['program'][~merged['is_drum']], return_counts=True), strict=True))
  assert programs == {0: 3, 34: 12}  # the other bass to the bass, the recorder to the nearest, the piano
  np.testing.assert_array_equal(instrument_merging.merge_small_instruments(many, 0.0), many)
  for bad in (-0.1, 1.0, float('nan')):
    with pytest.raises(UserError, match='share'):
      instrument_merging.merge_small_instruments(many, bad)


def test_m4a_files_and_invalid_ones(tmp_path):
  av = pytest.importorskip('av')
  from mrmt3.audio import ffmpeg

  rate, seconds = 44100, 2
  tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate * seconds) / rate)).astype(np.float32)
  with av.open(str(tmp_path / 'a.m4a'), 'w') as container:
    stream = container.add_stream('aac', rate=rate, layout='stereo')
    for start in range(0, len(tone), 1024):
      part = np.stack([tone[start : start + 1024]] * 2)
      frame = av.AudioFrame.from_ndarray(part, format='fltp', layout='stereo')
      frame.sample_rate, frame.pts = rate, start
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  decoded_audio = audio_files.read_audio(tmp_path / 'a.m4a')
  assert abs(len(decoded_audio) - seconds * 16000) < 2000
  spectrum = np.abs(np.fft.rfft(decoded_audio[4000:20000]))
  assert spectrum.argmax() == 440 and 0.4 < np.abs(decoded_audio[4000:20000]).max() < 0.6
  assert abs(audio_files.promised_seconds(tmp_path / 'a.m4a') - seconds) < 0.1
  whole = (tmp_path / 'a.m4a').read_bytes()
  for name, data in (('cut.m4a', whole[:300]), ('text.m4a', b'no sound at all'), ('none.mp4', b'')):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
      audio_files.read_audio(tmp_path / name)
  assert ffmpeg.FfmpegFile(tmp_path / 'a.m4a').samplerate == rate


def test_m4a_without_pyav_names_the_package(tmp_path, monkeypatch):
  (tmp_path / 'a.m4a').write_bytes(b'\0\0\0\x20ftypM4A ')
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(UserError, match=r'mrmt3\[m4a\]'):
    audio_files.read_audio(tmp_path / 'a.m4a')


def test_bench_transcribe(model, capsys):
  from mrmt3.cli.main import main

  assert main(['bench', 'transcribe', '--checkpoint', str(model), '--seconds', '1', '--runs', '1', '--json']) == 0
  figures = json.loads(capsys.readouterr().out)
  assert figures['seconds_of_audio'] == 1.0 and figures['tokens'] > 4
  assert set(figures['shares']) == {'log_mel', 'encoder', 'decoder', 'rest'}
  assert figures['real_time_factor'] == pytest.approx(1.0 / figures['seconds'])
  assert main(['bench', 'transcribe', '--checkpoint', str(model), '--seconds', '0']) == 2


def test_the_second_run_uses_the_compilation_cache(model, tmp_path):
  audio_files.write_audio(tmp_path / 'a.wav', noise(SEGMENT))
  environment = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}
  environment['MRMT3_CACHE'] = str(tmp_path / 'cache')
  command = [sys.executable, '-m', 'mrmt3', 'transcribe', 'a.wav', '-o', 'a.mid', '--checkpoint', str(model), '--quiet']
  environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), environment.get('PYTHONPATH', '')])
  found = []
  for _ in range(2):
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    found.append({path.name for path in (tmp_path / 'cache' / 'programs').glob('*-cache')})
  assert len(found[0]) >= 2 and found[0] == found[1]
  assert any('transcribe_segments' in name for name in found[0])
