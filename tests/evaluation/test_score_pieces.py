"""Evaluation of checkpoints and saved predictions: resuming, comparison of systems, and the report."""

import html.parser
import json
import unicodedata

import jax
import numpy as np
import pytest
from evaluate_command import piece, run

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.errors import UserError
from mrmt3.evaluation import predictions
from mrmt3.evaluation import references as evaluation_references
from mrmt3.inference.transcriber import Transcriber
from mrmt3.network import Transformer
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, small_spec):
  """Random weights whose output depends on the audio and the memory."""
  tokens = np.zeros((1, 64), np.int32)
  init = Transformer(small_spec.network).init(
    jax.random.key(3), np.zeros((1, 32, 32)), tokens, tokens, enable_dropout=False, prior_tokens=tokens
  )
  params = jax.tree.map(np.array, init['params'])
  params['decoder']['logits_dense']['kernel'] *= 3
  folder = tmp_path_factory.mktemp('model')
  orbax_checkpoints.save_checkpoint(folder, 5, {'target': params}, small_spec)
  return folder


def scores_of(path):
  return {name: scores for name, scores in json.loads(path.read_text())['pieces'].items()}


def test_a_checkpoint_scores_as_its_transcriptions(small_data, checkpoint, tmp_path, capsys):
  assert (
    run(
      small_data,
      '--split',
      'train',
      '--checkpoint',
      checkpoint,
      '--batch-size',
      2,
      '--json',
      tmp_path / 'a.json',
      '-o',
      tmp_path / 'out',
    )
    == 0
  )
  capsys.readouterr()
  transcriber = Transcriber.load(checkpoint)
  references = evaluation_references.find_references(small_data, split='train')
  saved = predictions.read(tmp_path / 'out' / f'predictions-{checkpoint.name}.jsonl')
  assert list(saved) == list(references) and len(saved) == 3
  notes = 0
  for name, reference in references.items():
    expected = transcriber.transcribe(reference.audio(16000), 16000).notes
    np.testing.assert_array_equal(saved[name](), expected)
    notes += len(expected)
  assert notes  # else nothing was compared
  # Saved predictions are a system like any other.
  assert (
    run(
      small_data,
      tmp_path / 'out' / f'predictions-{checkpoint.name}.jsonl',
      '--split',
      'train',
      '--json',
      tmp_path / 'b.json',
    )
    == 0
  )
  assert scores_of(tmp_path / 'a.json') == scores_of(tmp_path / 'b.json')


def test_memory_modes_differ(small_data, checkpoint, tmp_path):
  by_memory = {}
  for memory in ('predicted', 'truth', 'none'):
    run(small_data, '--split', 'test', '--checkpoint', checkpoint, '--memory', memory, '-o', tmp_path)
    name = checkpoint.name + ('' if memory == 'predicted' else f'_memory_{memory}')
    (read,) = predictions.read(tmp_path / f'predictions-{name}.jsonl').values()
    by_memory[memory] = read()
  assert not np.array_equal(by_memory['truth'], by_memory['none']) and not np.array_equal(
    by_memory['predicted'], by_memory['none']
  )


def test_goes_on_after_an_interruption_and_tries_failed_pieces_again(
  small_data, checkpoint, tmp_path, monkeypatch, capsys
):
  from mrmt3.evaluation.piece_transcriber import PieceTranscriber

  asked = []
  transcribe = PieceTranscriber.transcribe

  def counting(self, pieces):
    def seen():
      for item in pieces:
        asked.append(item[0])
        if stop_at == len(asked):
          raise KeyboardInterrupt
        yield item

    return transcribe(self, seen())

  monkeypatch.setattr(PieceTranscriber, 'transcribe', counting)
  arguments = (small_data, '--split', 'train', '--checkpoint', checkpoint, '--batch-size', 1, '-o', tmp_path)
  stop_at = 3
  with pytest.raises(KeyboardInterrupt):
    run(*arguments)
  assert len(asked) == 3
  with (tmp_path / f'predictions-{checkpoint.name}.jsonl').open('a') as file:
    file.write('{"piece": "cut o')  # as a killed process leaves it
  stop_at = None
  run(*arguments)
  assert asked[3:] == asked[2:3]  # only the third
  first = capsys.readouterr().out
  run(*arguments)
  assert len(asked) == 4 and capsys.readouterr().out == first
  with pytest.raises(UserError, match='another checkpoint or other settings'):
    predictions.Writer(tmp_path / f'predictions-{checkpoint.name}.jsonl', {'checkpoint': 'other'})


def test_a_piece_whose_audio_is_broken_counts_as_empty(checkpoint, tmp_path, capsys):
  from mrmt3.audio.files import write_audio

  for name in ('good', 'bad', 'mute'):
    write_midi(piece(), tmp_path / 'set' / f'{name}.mid')
  write_audio(tmp_path / 'set' / 'good.wav', np.zeros(16000, np.float32), 16000)
  (tmp_path / 'set' / 'bad.wav').write_text('no sound')
  assert run(tmp_path / 'set', '--checkpoint', checkpoint, '--report', tmp_path / 'report') == 2
  err = capsys.readouterr().err
  assert (
    'bad counts as empty: ' in err and 'mute counts as empty: there is no audio' in err and 'good counts' not in err
  )
  page = (tmp_path / 'report' / 'index.html').read_text()
  assert '2 pieces count as empty' in page and 'no audio next to the reference' in page


def test_audio_that_has_changed_is_heard_again(checkpoint, tmp_path, monkeypatch):
  from mrmt3.audio.files import write_audio
  from mrmt3.evaluation.piece_transcriber import PieceTranscriber

  transcribed, transcribe = [], PieceTranscriber.transcribe
  monkeypatch.setattr(
    PieceTranscriber,
    'transcribe',
    lambda self, pieces: transcribe(self, (transcribed.append(one[0]) or one for one in pieces)),
  )
  for data in ('one', 'other'):
    for name in 'ab':
      write_midi(piece(), tmp_path / data / f'{name}.mid')
      write_audio(tmp_path / data / f'{name}.wav', np.full(16000, 0.1, np.float32), 16000)

  def run_on(data, *more):
    transcribed.clear()
    run(tmp_path / data, '--checkpoint', checkpoint, '-o', tmp_path / 'out', *more)
    return ''.join(transcribed)

  assert [run_on('one'), run_on('one'), run_on('other'), run_on('other')] == ['ab', '', 'ab', '']
  write_audio(tmp_path / 'other' / 'b.wav', np.full(8000, 0.1, np.float32), 16000)
  write_midi(piece(shift=0.25), tmp_path / 'other' / 'a.mid')
  assert run_on('other') == 'b'
  assert run_on('other', '--memory', 'truth') == 'ab'
  write_midi(piece(shift=0.5), tmp_path / 'other' / 'a.mid')
  assert run_on('other', '--memory', 'truth') == 'a'  # its memory holds other notes


def test_a_task_s_pieces_are_scored_again_when_their_notes_change(small_data, tmp_path):
  import shutil

  shutil.copytree(small_data / 'test', tmp_path / 'set' / 'test')
  (track,) = (tmp_path / 'set' / 'test').iterdir()
  ((_, reference),) = evaluation_references.find_references(tmp_path / 'set', task='slakh').items()
  write_midi(reference.read(), tmp_path / 'est' / f'{track.name}.mid')
  found = []
  for _ in range(2):
    run(
      tmp_path / 'set', tmp_path / 'est', '--task', 'slakh', '-o', tmp_path / 'out', '--json', tmp_path / 'scores.json'
    )
    found += [scores['onset_f1'] for scores in scores_of(tmp_path / 'scores.json').values()]
    for path in (track / 'MIDI').iterdir():
      write_midi(piece(shift=9.0, pitches=(20,)), path)
  assert found == [1.0, 0.0]


def test_a_task_s_broken_audio_counts_as_empty_and_a_broken_reference_is_not_transcribed(
  small_data, checkpoint, tmp_path, capsys
):
  import shutil

  shutil.copytree(small_data, tmp_path / 'set')
  first, second, _ = sorted((tmp_path / 'set' / 'train').iterdir())
  next(second.glob('mix*')).write_text('no sound')
  words = (tmp_path / 'set', '--task', 'slakh', '--split', 'train', '--checkpoint', checkpoint, '-o', tmp_path / 'out')
  assert run(*words) == 2
  assert f'{second.name} counts as empty: ' in capsys.readouterr().err
  next((first / 'MIDI').iterdir()).unlink()
  path = tmp_path / 'out' / f'predictions-{checkpoint.name}.jsonl'
  path.unlink()
  assert run(*words, '--json', tmp_path / 'scores.json') == 2
  assert f'{first.name} is left out: ' in capsys.readouterr().err
  pieces = [json.loads(line)['piece'] for line in path.read_text().splitlines()[1:]]
  assert first.name not in pieces and sorted(pieces) == sorted(scores_of(tmp_path / 'scores.json'))


def test_a_piece_that_fails_once_its_audio_has_changed_has_no_old_notes(tmp_path):
  path, notes = tmp_path / 'saved.jsonl', piece()
  for made_of, found in (('old', notes), ('new', None)):
    writer = predictions.Writer(path, {})
    writer.add('a', found, [made_of, ''], '' if found is not None else 'broken')
    writer.close()
  predictions.Writer(path, {}).close()
  with pytest.raises(UserError, match='no predictions'):
    predictions.read(path)


def test_published_counts_are_of_raw_programs(tmp_path):
  import yaml

  track = tmp_path / 'set' / 'Track00001'
  stems = {}
  for number, program in enumerate((48, 49, 30)):  # strings, strings and distorted guitar are two Slakh classes
    write_midi(piece(program=program, pitches=(50 + number,))[:1], track / 'MIDI' / f'S{number:02d}.mid')
    stems[f'S{number:02d}'] = {
      'audio_rendered': True,
      'integrated_loudness': -20.0,
      'is_drum': False,
      'program_num': program,
      'midi_saved': True,
    }
  write_midi(piece(program=73)[:1], track / 'MIDI' / 'S03.mid')  # of a stem that is not in the mix
  stems['S03'] = {**stems['S00'], 'audio_rendered': False, 'program_num': 73}
  (track / 'metadata.yaml').write_text(yaml.safe_dump({'midi_dir': 'MIDI', 'stems': stems}))
  (reference,) = evaluation_references.find_references(tmp_path / 'set').values()
  write_midi(reference.read(), tmp_path / 'est' / 'Track00001.mid')
  for task in ((), ('--task', 'slakh')):
    data = tmp_path / 'set'
    if task:
      (tmp_path / 'split').mkdir()
      data = (tmp_path / 'set').rename(tmp_path / 'split' / 'test').parent
    run(data, tmp_path / 'est', *task, '--json', tmp_path / 'scores.json')
    (scores,) = scores_of(tmp_path / 'scores.json').values()
    assert (scores['instruments_reference'], scores['leakage_ratio']) == (2, 1)
    assert (scores['published_instruments_reference'], scores['published_leakage_ratio']) == (4, pytest.approx(2 / 4))


def test_scores_are_read_again_until_a_file_changes(tmp_path, monkeypatch):
  from mrmt3.evaluation import summary

  for side in ('ref', 'est'):
    for name in 'abc':
      write_midi(piece(), tmp_path / side / f'{name}.mid')
  calls, score = [], summary.score_piece
  monkeypatch.setattr(
    summary, 'score_piece', lambda name, *rest, **more: calls.append(name) or score(name, *rest, **more)
  )
  arguments = (tmp_path / 'ref', tmp_path / 'est', '-o', tmp_path / 'out', '--json', tmp_path / 'scores.json')
  run(*arguments)
  before = scores_of(tmp_path / 'scores.json')
  run(*arguments)
  assert calls == list('abc') and scores_of(tmp_path / 'scores.json') == before
  write_midi(piece(shift=1.0), tmp_path / 'est' / 'b.mid')
  (tmp_path / 'out' / 'scores-est.jsonl').open('a').write('half a li')
  run(*arguments)
  after = scores_of(tmp_path / 'scores.json')
  assert calls == [*'abc', 'b'] and after['a'] == before['a'] and after['b']['onset_f1'] == 0.2  # the drum stroke
  run(*arguments, '--mt3-suite')
  assert calls[4:] == list('abc')


def test_scores_of_several_processes_are_those_of_one(small_data, tmp_path, monkeypatch):
  from mrmt3.utils import parallel

  references = evaluation_references.find_references(small_data)
  writer = predictions.Writer(tmp_path / 'saved.jsonl', {})
  for name, reference in references.items():
    writer.add(name, reference.read(), ['', ''])
    write_midi(reference.read()[1:], tmp_path / 'midi' / f'{name}.mid')
  writer.close()
  read = {}
  for workers, spawn_after in ((1, 99), (2, -1)):
    monkeypatch.setattr(parallel, 'SPAWN_AFTER', spawn_after)
    run(
      small_data, tmp_path / 'midi', tmp_path / 'saved.jsonl', '--workers', workers, '--json', tmp_path / 'scores.json'
    )
    read[workers] = json.loads((tmp_path / 'scores.json').read_text())
  assert read[1] == read[2] and read[1]['systems']['saved']['mean']['onset_f1'] == 1
  assert 0.9 < read[1]['systems']['midi']['mean']['onset_f1'] < 1


def test_references_as_tasks_read_them(small_data, checkpoint, tmp_path):
  from mrmt3.audio.files import write_audio

  references = evaluation_references.find_references(small_data, split='train')
  as_task = evaluation_references.find_references(small_data, task='slakh', split='train')
  assert list(as_task) == [name.rpartition('/')[2] for name in references]
  for one, other in zip(references.values(), as_task.values(), strict=True):
    np.testing.assert_array_equal(one.read(), other.read())
    np.testing.assert_array_equal(one.audio(16000), other.audio(16000))
  assert 'test/Track00000' in evaluation_references.find_references(small_data, task='slakh')
  write_midi(piece(program=31), tmp_path / 'own' / 'test' / 'song.mid')
  write_audio(tmp_path / 'own' / 'test' / 'song.wav', np.full(16000, 0.1, np.float32), 16000)
  (own,) = evaluation_references.find_references(tmp_path / 'own', task='own_folder', split='test').values()
  assert set(own.read()['program']) == {0, 29}  # in Slakh classes, as it is trained on
  for task, message in (('mt3_records', 'no task'), ('mt3_records:nothing', 'nothing'), ('slakh', 'no splits')):
    with pytest.raises(UserError, match=message):
      evaluation_references.find_references(tmp_path / 'own' / 'test', task=task)
  assert run(tmp_path / 'own', '--task', 'own_folder', '--split', 'test', '--checkpoint', checkpoint) == 0


def test_a_reference_without_its_files_is_one_clear_line(small_data, tmp_path):
  import shutil

  shutil.copytree(small_data / 'test', tmp_path / 'set')
  (track,) = (tmp_path / 'set').iterdir()
  write_midi(piece(), tmp_path / 'est' / f'{track.name}.mid')
  next((track / 'MIDI').iterdir()).unlink()
  with pytest.raises(UserError, match=track.name):
    run(tmp_path / 'set', tmp_path / 'est', '-o', tmp_path / 'out')


def test_predictions_of_infer(small_spec, checkpoint, tmp_path):
  from mrmt3.tokens.segment_targets import encode_piece, segment_targets
  from mrmt3.vocabularies import build_codec

  codec, notes = build_codec(small_spec.vocabulary), as_notes([(0.1, 0.4, 60, 100, 0, 0), (0.6, 1.2, 64, 100, 40, 0)])
  rate = small_spec.spectrogram.frame_rate
  rows = [
    segment_targets(
      encode_piece(notes, codec), first, 32, piece_frames=96, codec=codec, frames_per_second=rate
    ).tolist()
    for first in (0, 32, 64)
  ]
  ids = [[token - 3 for token in row if token > 2] + [-1] for row in rows]
  path = tmp_path / 'x-predict.jsonl-00000-of-00001'
  path.write_text(json.dumps({'inputs': {'targets_pretokenized': 'song'}, 'prediction': ids}) + '\n')
  write_midi(notes, tmp_path / 'ref' / 'song.mid')
  run(tmp_path / 'ref', path, '--model', checkpoint, '--json', tmp_path / 'scores.json')
  assert scores_of(tmp_path / 'scores.json')['song']['onset_offset_program_f1_full'] == 1
  with pytest.raises(UserError, match='add --model DIR'):
    run(tmp_path / 'ref', path)


def test_endings_of_other_transcribers(tmp_path):
  def found(references, estimates):
    made = {name: evaluation_references.Estimate(None, tmp_path / name) for name in estimates}
    matched = evaluation_references.match(dict.fromkeys(references), made, tmp_path)
    return {name: estimate and estimate.file.name for name, estimate in matched.items()}

  assert found(['a', 'b', 'c'], ['a_basic_pitch', 'b_basic_pitch']) == {
    'a': 'a_basic_pitch',
    'b': 'b_basic_pitch',
    'c': None,
  }
  assert found(['x/a', 'x/ab'], ['a.mix', 'ab.mix']) == {'x/a': 'a.mix', 'x/ab': 'ab.mix'}
  assert found(['a', 'a_2'], ['a_2']) == {'a': None, 'a_2': 'a_2'}
  with pytest.raises(UserError, match='named as a piece'):
    found(['song'], ['song1', 'song2'])


@pytest.mark.parametrize('suffix', ['.mid', '.kar', '.RMI'])
def test_names_in_another_form_and_other_suffixes(tmp_path, suffix):
  """macOS writes é as two characters; .kar and .rmi files are MIDI files too."""
  for folder, form in (('ref', 'NFD'), ('est', 'NFC')):
    path = tmp_path / folder / (unicodedata.normalize(form, 'é') + '.mid')
    write_midi(piece(pitches=(60, 64)), path)
    path.rename(path.with_suffix(suffix))
  run(tmp_path / 'ref', tmp_path / 'est', '--json', tmp_path / 'scores.json')
  assert scores_of(tmp_path / 'scores.json')['é']['onset_f1'] == 1


@pytest.fixture
def systems(tmp_path):
  """Four references, a correct system and one that leaks."""
  for number, name in enumerate(('a', 'b', 'c', 'd <&')):
    notes = piece(pitches=range(50, 50 + 4 * (number + 2)))
    leaked = notes.copy()
    leaked['program'][::2] = 40
    for folder, table in (('ref', notes), ('right', notes), ('leaks', leaked)):
      write_midi(table, tmp_path / folder / f'{name}.mid')
  return tmp_path


def test_systems_side_by_side(systems, capsys):
  assert run(systems / 'ref', f'ours={systems / "right"}', systems / 'leaks', '--json', systems / 'scores.json') == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ['ours', 'leaks', 'p']
  leaked = next(line for line in lines if line.startswith('leaked notes')).split()
  assert leaked[2:6] == ['0.000', '(0.000', '..', '0.000)'] and float(leaked[6]) > 0.4 and leaked[-1] == '0.125'
  report = json.loads((systems / 'scores.json').read_text())
  assert report['systems'].keys() == {'ours', 'leaks'}
  test = report['compared_with_ours']['leaks']['leakage_ratio']
  assert test['difference'] == pytest.approx(0.5) and test['p_value'] == 0.125  # 2 of 2^4 sign choices


class _Page(html.parser.HTMLParser):
  """Collects what a page links to, and checks that every element is closed."""

  VOID = {'meta', 'img', 'line', 'circle', 'rect', 'polyline', 'br'}

  def __init__(self):
    super().__init__()
    self.links, self.open, self.tags, self.text = [], [], [], ''

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.links += [value for name, value in attrs if name in ('src', 'href', 'srcset', 'data')]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)

  def handle_endtag(self, tag):
    if tag not in self.VOID:
      assert self.open and self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_the_report_is_one_page_that_needs_nothing_else(systems):
  run(systems / 'ref', systems / 'right', systems / 'leaks', '--report', systems / 'report')
  text = (systems / 'report' / 'index.html').read_text()
  page = _Page()
  page.feed(text)
  assert not page.open and {'table', 'svg', 'img', 'details'} <= set(page.tags) and 'script' not in page.tags
  assert page.links and all(link.startswith('data:image/png;base64,') for link in page.links)
  assert 'url(' not in text and '@import' not in text and 'http' not in text
  for words in (
    'Leakage ratio',
    'Instrument confusion: leaks',
    'The worst pieces',
    'd <&',
    'p = 0.125',
    'width=device-width',
  ):
    assert words in page.text or words in text
  assert 'd &lt;&amp;' in text and 'd <&' not in text  # names are escaped


def test_of_ratios_the_nearer_to_1_is_better():
  from mrmt3.evaluation import html_report, metric_registry, statistics, summary

  def verdict(base, other, key='leakage_ratio'):
    systems = [
      summary.Summary([summary.PieceResult(str(place), {key: ratio}, None, None) for place, ratio in enumerate(ratios)])
      for ratios in (base, other)
    ]
    test = statistics.paired_test(*(system.values(key) for system in systems))
    return html_report._verdict(metric_registry.SCORES[key], *systems, test)

  assert verdict([2 / 3] * 12, [4 / 3] * 12) == ('p = 1.000', '')
  assert verdict([0.5, 1.5] * 6, [1.0] * 12) == ('p < 0.001', 'better')
  assert verdict([1.0] * 12, [0.5, 1.5] * 6).kind == 'worse'
  assert verdict([0.1] * 12, [0.2] * 12, 'leaked_note_ratio').kind == 'worse'
  assert verdict([0.1] * 12, [0.2] * 12, 'onset_f1').kind == 'better'


def test_a_single_piece_has_a_report(systems):
  write_midi(piece()[:0], systems / 'one.mid')
  assert run(systems / 'ref' / 'a.mid', systems / 'one.mid', '--report', systems / 'report') == 0
  assert 'nan' not in _text(systems / 'report' / 'index.html').lower()


def _text(path):
  page = _Page()
  page.feed(path.read_text())
  return page.text


def test_mistakes_are_one_clear_line(systems, checkpoint, small_data):
  for arguments, message in (
    ((systems / 'ref',), 'nothing to score'),
    ((systems / 'ref', systems / 'right', '--memory', 'none'), 'add --checkpoint'),
    ((systems / 'ref', systems / 'right', '--pieces', 0), '--pieces is 0'),
    ((systems / 'ref', systems / 'right', systems / 'ref' / '..' / 'right'), 'have the same name right'),
    ((systems / 'ref', '--checkpoint', checkpoint), 'the references have no audio'),
    ((systems / 'ref', systems / 'right', '--task', 'nothing'), "no task 'nothing'"),
    ((systems / 'ref', systems / 'right', '--split', 'test'), "no split 'test'"),
    ((small_data, '--checkpoint', systems), 'not a checkpoint'),
  ):
    with pytest.raises(UserError, match=message) as caught:
      run(*arguments)
    assert '\n' not in str(caught.value)
  (systems / 'broken.jsonl').write_text('{"piece": 3}\nnothing\n')
  with pytest.raises(UserError, match=r'broken.jsonl, line 1: not a saved prediction'):
    run(systems / 'ref', systems / 'broken.jsonl')
