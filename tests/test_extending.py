"""The steps of docs/extending.md, run as they stand there."""

import json
import sys
import types

import numpy as np
import pytest
from doc_blocks import code_blocks
from evaluate_command import piece
from evaluate_command import run as evaluate
from paths import ROOT

import mrmt3.evaluation
from mrmt3.evaluation import metric_registry
from mrmt3.notes.midi import write_midi

PAGE = ROOT / 'docs' / 'extending.md'


def test_a_section_that_is_not_there_is_an_error():
  with pytest.raises(ValueError, match='no section'):
    code_blocks(PAGE, 'Add a metr')


@pytest.fixture
def add_metric(monkeypatch):
  """Return a function that does what "Add a metric" says and return the test's code."""
  functions, scores = list(metric_registry._FUNCTIONS), dict(metric_registry.SCORES)

  def add():
    function, line, test = code_blocks(PAGE, 'Add a metric')
    module = types.ModuleType('mrmt3.evaluation.note_count')
    exec(function, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mrmt3.evaluation, 'note_count', module, raising=False)
    exec(line, dict(vars(metric_registry)))
    return test

  yield add
  metric_registry._FUNCTIONS[:] = functions
  metric_registry.SCORES.clear()
  metric_registry.SCORES.update(scores)


@pytest.fixture
def pieces(tmp_path):
  """Two pieces of 5 notes; one system finds 1 of 5 notes too many in the first, the other is right."""
  for name in ('a', 'b'):
    write_midi(piece(), tmp_path / 'ref' / f'{name}.mid')
    write_midi(piece(), tmp_path / 'right' / f'{name}.mid')
    pitches = (60, 62, 64, 65, 67) if name == 'a' else (60, 62, 64, 65)
    write_midi(piece(pitches=pitches), tmp_path / 'more' / f'{name}.mid')
  return tmp_path


def test_a_metric_that_was_added_passes_its_own_test(add_metric):
  space = {}
  exec(add_metric(), space)
  tests = [value for name, value in space.items() if name.startswith('test_')]
  assert tests
  for test in tests:
    test()


def test_a_metric_that_was_added_is_in_all_outputs(add_metric, pieces, capsys):
  command = (pieces / 'ref', pieces / 'more', '--workers', 1, '-o', pieces / 'out', '--json', pieces / 'one.json')
  evaluate(*command)  # results without the metric are kept in out/
  assert 'note_count' not in (pieces / 'one.json').read_text()
  add_metric()
  capsys.readouterr()
  evaluate(*command, '--report', pieces / 'one')
  header, *lines = capsys.readouterr().out.splitlines()
  (mean,) = [line for line in lines if line.startswith('mean of 2 pieces')]
  assert header.endswith('  Note count ratio') and mean.endswith(' 1.100')
  report = json.loads((pieces / 'one.json').read_text())
  assert report['mean']['note_count_ratio'] == pytest.approx(1.1)
  assert [scores['note_count_ratio'] for scores in report['pieces'].values()] == [1.2, 1.0]
  (level,) = report['by_instruments'].values()
  assert level['note_count_ratio'] == pytest.approx(1.1)
  kept = [json.loads(line)['result'] for line in (pieces / 'out' / 'scores-more.jsonl').read_text().splitlines()]
  assert {result['piece']: result['scores']['note_count_ratio'] for result in kept} == {'a': 1.2, 'b': 1.0}
  page = (pieces / 'one' / 'index.html').read_text()
  assert '<small>Note count ratio</small><b>1.100</b>' in page  # a card
  assert '<td>Note count ratio<small>estimated / reference notes; 1 is right</small></td>' in page
  assert '<th>Note count ratio</th>' in page and '<td>1.200</td>' in page  # of all pieces


def test_a_metric_that_was_added_is_compared(add_metric, pieces, capsys):
  add_metric()
  names = ('ref', 'right', 'more')
  evaluate(*(pieces / name for name in names), '--json', pieces / 'two.json', '--report', pieces / 'two')
  (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith('Note count ratio')]
  assert '1.000 (' in line and '1.100 (' in line
  differences = json.loads((pieces / 'two.json').read_text())['compared_with_right']['more']
  assert differences['note_count_ratio']['difference'] == pytest.approx(0.1)
  assert '<td>Note count ratio<small>' in (pieces / 'two' / 'index.html').read_text()


def test_a_metric_that_was_added_is_logged_by_seqio(add_metric, tmp_path, capsys):
  pytest.importorskip('seqio')
  import seqio

  from mrmt3.evaluation import piece_metrics, seqio_loggers

  add_metric()
  targets = [piece_metrics.PieceNotes('a', piece())]
  predictions = [piece_metrics.PieceNotes('a', piece(pitches=(60, 62, 64, 65, 67)))]
  numbers = piece_metrics.scores(targets, predictions)
  assert numbers['note_count_ratio'] == 1.2
  metrics = {name: seqio.metrics.Scalar(np.float64(value)) for name, value in numbers.items()}
  for logger in (seqio_loggers.ConsoleLogger, seqio_loggers.JsonLogger):
    logger(output_dir=str(tmp_path))('task', 3, metrics, None, {'prediction': predictions}, targets)
  assert '  note_count_ratio  ' in capsys.readouterr().err
  assert json.loads((tmp_path / 'task-metrics.jsonl').read_text())['note_count_ratio'] == 1.2
  assert json.loads((tmp_path / 'task-pieces-3.jsonl').read_text())['scores']['note_count_ratio'] == 1.2


def test_what_a_registry_refuses(add_metric):
  add_metric()
  score = metric_registry.Score('note_count_ratio', 'twice', '')
  with pytest.raises(ValueError, match='there is a score note_count_ratio already'):
    metric_registry.register(lambda piece: {}, score)
  with pytest.raises(ValueError, match='better must be one of'):
    metric_registry.Score('other', 'Other', '', better='max')
  with pytest.raises(ValueError, match='shown_in must be of'):
    metric_registry.Score('other', 'Other', '', shown_in=('page',))
  metric_registry.register(lambda piece: {'onset_f1': 1.0}, metric_registry.Score('other', 'Other', ''))
  with pytest.raises(ValueError, match='two metrics have numbers called onset_f1'):
    metric_registry.evaluate_piece(piece(), piece())
