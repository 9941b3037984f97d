import json
import os

import numpy as np
import pytest
from evaluate_command import piece, run

from mrmt3.errors import UserError
from mrmt3.evaluation import metric_registry
from mrmt3.evaluation import references as evaluation_references
from mrmt3.notes.midi import read_midi, write_midi


@pytest.fixture
def folders(tmp_path):
  """Write three references; one transcription is right, one leaks, one is missing."""
  reference, estimate = tmp_path / 'ref', tmp_path / 'est'
  for name in ('a', 'b', 'c'):
    write_midi(piece(), reference / f'{name}.mid')
  write_midi(piece(), estimate / 'a.mid')
  leaked = piece()
  leaked['program'][:2] = 40
  write_midi(leaked, estimate / 'b.mid')
  return reference, estimate


def table_rows(text):
  """Return {name: [scores]} of a printed table."""
  rows = {}
  for line in text.splitlines()[1:]:
    if not line.startswith('---'):
      words = line.split()
      rows[' '.join(words[:-4])] = [float(word) for word in words[-4:]]
  return rows


def test_two_files(tmp_path, capsys):
  write_midi(piece(), tmp_path / 'ref.mid')
  write_midi(piece(pitches=(60, 62, 64, 70)), tmp_path / 'est.mid')
  assert run(tmp_path / 'ref.mid', tmp_path / 'est.mid') == 0
  captured = capsys.readouterr()
  assert table_rows(captured.out) == {'ref': [0.8, 0.8, 1.0, 1.0]}
  assert captured.err == ''


def test_folders_table_and_json(folders, tmp_path, capsys):
  reference, estimate = folders
  assert run(reference, estimate, '--json', tmp_path / 'scores.json') == 0
  captured = capsys.readouterr()
  rows = table_rows(captured.out)
  assert rows == {
    'a': [1, 1, 1, 1],
    'b': [1, 0.6, 1.5, 0.8],
    'c (empty)': [0, 0, 0, 0],
    'mean of 3 pieces': [0.667, 0.533, 0.833, 0.6],
    '95 % low': [0, 0, 0, 0],
    '95 % high': [1, 1, 1.5, 1],
  }
  assert len({len(line) for line in captured.out.splitlines()}) == 1, 'columns are not aligned'
  assert captured.err == 'mrmt3: warning: c counts as empty: there is no transcription of it\n'
  report = json.loads((tmp_path / 'scores.json').read_text())
  assert report['counted_as_empty'].keys() == {'c'}
  expected = metric_registry.evaluate_piece(read_midi(reference / 'b.mid'), read_midi(estimate / 'b.mid'))
  assert report['pieces']['b'] == expected
  assert report['mean']['leakage_ratio'] == pytest.approx((1 + 1.5 + 0) / 3)


def test_positional_arguments_may_follow_options(folders, tmp_path, capsys):
  reference, estimate = folders
  others = tmp_path / 'others'
  write_midi(piece(), others / 'a.mid')
  outputs = []
  for words in (
    (reference, estimate, others, '--pieces', 1, '--workers', 1),
    (reference, '--pieces', 1, estimate, '--workers', 1, others),
    (reference, '--pieces', 1, '--workers', 1, estimate, others),
  ):
    assert run(*words) == 0
    outputs.append(capsys.readouterr().out)
  assert 'est' in outputs[0] and 'others' in outputs[0] and outputs == outputs[:1] * 3
  with pytest.raises(SystemExit):
    run(reference, '--peices', 1, estimate)
  assert 'unrecognized arguments: --peices' in capsys.readouterr().err


def test_json_to_stdout_is_nothing_but_json(folders, capsys):
  assert run(*folders, '--json', '-', '--mt3-suite') == 0
  report = json.loads(capsys.readouterr().out)
  assert report['pieces']['a']['frame_f1'] == report['pieces']['a']['onset_f1_at_0.01s'] == 1


def test_an_unreadable_estimate_counts_as_empty(folders, capsys):
  reference, estimate = folders
  (estimate / 'b.mid').write_bytes((estimate / 'b.mid').read_bytes()[:30])
  (estimate / 'c.midi').write_text('not MIDI')
  assert run(reference, estimate) == 2
  captured = capsys.readouterr()
  assert [line.split(':')[1:3] for line in captured.err.splitlines()] == [
    [' warning', f' {name} counts as empty'] for name in 'bc'
  ]
  assert table_rows(captured.out)['mean of 3 pieces'][0] == 0.333


def test_an_unreadable_reference_is_left_out_and_named(folders, tmp_path, capsys):
  reference, estimate = folders
  write_midi(piece(), estimate / 'c.mid')
  (reference / 'b.mid').write_text('not MIDI')
  words = (reference, estimate, '-o', tmp_path / 'out', '--report', tmp_path / 'page', '--json', tmp_path / 's.json')
  for _ in range(2):  # from scratch, and from the saved scores
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert table_rows(captured.out)['mean of 2 pieces'] == [1, 1, 1, 1]
    named, counted, *_ = captured.err.splitlines()
    assert named.startswith(f'mrmt3: error: b is left out: cannot read {reference / "b.mid"}')
    assert counted == 'mrmt3: error: 1 of 3 references cannot be read'
    report = json.loads((tmp_path / 's.json').read_text())
    assert report['pieces'].keys() == {'a', 'c'} and report['unreadable_references'].keys() == {'b'}
    assert '1 reference cannot be read' in (tmp_path / 'page' / 'index.html').read_text()
  write_midi(piece(), reference / 'b.mid')
  assert run(*words) == 0
  assert 'mean of 3 pieces' in table_rows(capsys.readouterr().out)


def test_without_a_readable_reference_there_are_no_scores(folders, tmp_path):
  reference, estimate = folders
  for path in reference.iterdir():
    path.write_bytes(b'')
  with pytest.raises(UserError, match=r'none of the 3 references can be read; the first: .*a\.mid') as caught:
    run(reference, estimate, '--json', tmp_path / 'scores.json')
  assert '\n' not in str(caught.value) and not (tmp_path / 'scores.json').exists()


def test_hidden_files_and_folders_are_ignored(folders, capsys):
  _, estimate = folders
  write_midi(piece(), estimate / 'c.mid')
  write_midi(piece(), estimate / 'b.mid')
  for folder in folders:
    (folder / '._a.mid').write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ')
    (folder / '.cache').mkdir()
    write_midi(piece(), folder / '.cache' / 'd.mid')
  assert run(*folders) == 0
  captured = capsys.readouterr()
  assert table_rows(captured.out)['mean of 3 pieces'] == [1, 1, 1, 1] and captured.err == ''


def test_links_that_lead_nowhere_are_named_and_counted(folders, capsys):
  reference, estimate = folders
  for name in 'bc':
    write_midi(piece(), estimate / f'{name}.mid')
  (reference / 'b.mid').unlink()
  (reference / 'b.mid').symlink_to('gone.mid')
  (reference / 'c.mid').unlink()
  (reference / 'c.mid').symlink_to('c.mid')
  assert run(reference, estimate) == 2
  lines = capsys.readouterr().err.splitlines()
  assert [line.split(':')[1:3] for line in lines[:2]] == [[' error', f' {name} is left out'] for name in 'bc']
  assert lines[2] == 'mrmt3: error: 2 of 3 references cannot be read'


def test_saved_notes_that_cannot_be_scored_count_as_empty(folders, tmp_path, capsys):
  reference, _ = folders
  rows = {'a': [[0, 1, 60, 100, 0, 0]], 'b': [[float('nan'), 1, 60, 100, 0, 0]], 'c': [[1, 0.5, 60, 100, 0, 0]]}
  lines = [json.dumps({'piece': name, 'notes': notes, 'made_of': [], 'problem': ''}) for name, notes in rows.items()]
  (tmp_path / 'saved.jsonl').write_text('\n'.join(lines) + '\n')
  assert run(reference, tmp_path / 'saved.jsonl') == 2
  captured = capsys.readouterr()
  assert [line.split(':')[2] for line in captured.err.splitlines()] == [f' {name} counts as empty' for name in 'bc']
  assert table_rows(captured.out)['a'][0] == pytest.approx(1 / 3, abs=1e-3)


def test_audio_of_a_reference_may_have_an_upper_case_suffix(tmp_path):
  from mrmt3.audio.files import write_audio

  for name in ('one/song', 'two/song', 'two/songs'):
    write_midi(piece(), tmp_path / f'{name}.mid')
  for folder in ('one', 'two'):
    write_audio(tmp_path / 'sound.wav', np.full(160, 0.1, np.float32), 16000)
    (tmp_path / 'sound.wav').rename(tmp_path / folder / 'song.WAV')
  references = evaluation_references.find_references(tmp_path)
  assert [name for name, reference in references.items() if reference.audio] == ['one/song', 'two/song']
  assert len(references['two/song'].audio(16000)) == 160
  assert evaluation_references.find_references(tmp_path / 'one' / 'song.mid')['song'].audio


def test_odd_files_and_lost_notes_are_named_and_counted(folders, tmp_path, capsys):
  reference, estimate = folders
  data = bytearray((reference / 'a.mid').read_bytes())
  data[-4:] = b'\x00\x90\x30\x50'  # a note-on without a note-off in place of the track's end
  (reference / 'a.mid').write_bytes(data)
  (estimate / 'b.mid').write_bytes(b'junk' + (estimate / 'b.mid').read_bytes())
  assert run(reference, estimate, '--json', tmp_path / 'scores.json', '--report', tmp_path / 'report') == 0
  lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('mrmt3: warning: /')]
  assert lines == [
    f'mrmt3: warning: {reference / "a.mid"}: 1 note is lost (never released, or without length); '
    'track 3 has no end-of-track event',
    f'mrmt3: warning: {estimate / "b.mid"}: 4 bytes precede the header',
  ]
  assert len(json.loads((tmp_path / 'scores.json').read_text())['odd_files']) == 2
  assert '2 odd files' in (tmp_path / 'report' / 'index.html').read_text()
  # The lines are kept with the scores of a run that is resumed.
  assert run(reference, estimate, '--report', tmp_path / 'report') == 0
  assert [line for line in capsys.readouterr().err.splitlines() if line in lines] == lines


def test_matches_by_path_then_by_name(tmp_path, capsys):
  for name in ('x/one', 'x/mix', 'y/mix', 'two'):
    write_midi(piece(), tmp_path / 'ref' / f'{name}.mid')
  for name in ('one', 'y/mix', 'z/two', 'mix'):
    write_midi(piece(), tmp_path / 'est' / f'{name}.MID')
  references, estimates = (
    evaluation_references.find_references(tmp_path / 'ref'),
    evaluation_references.find_estimates(tmp_path / 'est'),
  )
  pairs = evaluation_references.match(references, estimates, tmp_path / 'est')
  names = {name: found and found.file.relative_to(tmp_path / 'est').as_posix() for name, found in pairs.items()}
  # A mix.mid in the root could belong to either piece, so it matches none.
  assert names == {'two': 'z/two.MID', 'x/mix': None, 'x/one': 'one.MID', 'y/mix': 'y/mix.MID'}
  left_out = tmp_path / 'est' / 'mix.MID'
  assert capsys.readouterr().err == f'mrmt3: warning: {left_out} is ignored: no reference of that name\n'


def test_slakh_tracks_are_references(tmp_path, capsys):
  track = tmp_path / 'set' / 'test' / 'Track00007'
  write_midi(piece(program=30), track / 'MIDI' / 'S00.mid')
  write_midi(piece(shift=9), track / 'all_src.mid')  # must not be read
  (track / 'metadata.yaml').write_text(
    'stems:\n  S00: {audio_rendered: true, integrated_loudness: -20.0, is_drum: false, midi_saved: true,'
    ' program_num: 30, inst_class: Guitar}\n'
  )
  estimate = piece(program=29)
  estimate['is_drum'] = False
  estimate['program'] = 29
  write_midi(estimate, tmp_path / 'est' / 'Track00007.mid')
  for root, name in ((tmp_path / 'set', 'test/Track00007'), (tmp_path / 'set' / 'test', 'Track00007')):
    assert run(root, tmp_path / 'est') == 0
    assert table_rows(capsys.readouterr().out) == {name: [1, 1, 1, 1]}


def test_an_empty_transcription_is_a_result(tmp_path, capsys):
  write_midi(piece(), tmp_path / 'ref.mid')
  write_midi(piece()[:0], tmp_path / 'est.mid')
  assert run(tmp_path / 'ref.mid', tmp_path / 'est.mid') == 0
  captured = capsys.readouterr()
  assert np.sum(table_rows(captured.out)['ref']) == 0 and captured.err == ''


def test_bad_arguments_raise_one_line(folders, tmp_path):
  reference, estimate = folders
  (tmp_path / 'empty').mkdir()
  os.mkfifo(tmp_path / 'pipe.mid')
  write_midi(piece(), tmp_path / 'others' / 'q.mid')
  write_midi(piece(), tmp_path / 'twins' / 'a.mid')
  write_midi(piece(), tmp_path / 'twins' / 'a.midi')
  for arguments, message in (
    ((tmp_path / 'nowhere', estimate), 'no such file or folder'),
    ((reference, tmp_path / 'nowhere'), 'no such file or folder'),
    ((reference, estimate / 'a.mid'), 'two files or two folders'),
    ((reference / 'a.mid', estimate), 'two files or two folders'),
    ((tmp_path / 'pipe.mid', estimate / 'a.mid'), 'neither a file nor a folder'),
    ((tmp_path / 'empty', estimate), 'no MIDI files and no Slakh tracks'),
    ((reference, tmp_path / 'empty'), 'named as a piece'),
    ((reference, tmp_path / 'others'), 'named as a piece'),
    ((reference, tmp_path / 'twins'), 'only in its suffix'),
    ((reference, estimate, '--json', reference / 'a.mid' / 'x.json'), 'cannot make the folder'),
  ):
    with pytest.raises(UserError, match=message) as caught:
      run(*arguments)
    assert '\n' not in str(caught.value)


def test_one_piece_has_no_intervals_and_no_test(tmp_path, capsys):
  for name, pitch in (('reference', 60), ('a', 60), ('b', 61)):
    write_midi(piece(pitches=(pitch,)), tmp_path / f'{name}.mid')
  words = [tmp_path / 'reference.mid', tmp_path / 'a.mid', tmp_path / 'b.mid', '--report', tmp_path / 'report']
  assert run(*words) == 0
  shown = capsys.readouterr().out
  assert (
    shown.splitlines()[0].split() == ['a.mid', 'b.mid']
    and shown.splitlines()[-1] == 'of 1 piece: no intervals, no test'
  )
  page = (tmp_path / 'report' / 'index.html').read_text(encoding='utf-8')
  assert 'A single piece' in page and '95 %' not in page and 'p = ' not in page
