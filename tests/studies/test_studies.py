"""Tests of the studies that train: their declarations, resuming, tables, and the data sets made for them."""

import ast
import dataclasses
import functools
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import command_line
import jax
import numpy as np
import pytest
import yaml
from paths import ROOT

from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.cli import study as study_command
from mrmt3.data import slakh_layout
from mrmt3.errors import UserError
from mrmt3.evaluation import references as evaluation_references
from mrmt3.evaluation import score_pieces
from mrmt3.inspection import task_reader
from mrmt3.nn import parameters
from mrmt3.studies import catalogue, domains, report, results, rows, starting_weights, training
from mrmt3.studies.catalogue import Study, TrainingRun
from mrmt3.studies.options import Options
from mrmt3.studies.references import references_of
from mrmt3.studies.scores import SCORES
from mrmt3.studies.training_study import TrainingStudy

PARSE = """
import json, sys
from mrmt3.engine import gin_utils, names
from mrmt3.utils.tensorflow_setup import start_tensorflow
start_tensorflow()
names.use_own_engine()
import gin
from mrmt3.train import train
gin.configurable(train, module='__main__')

def bound(name):
  try:
    return gin.query_parameter(name)
  except ValueError:
    return None

for line in sys.stdin:
  gin.clear_config()
  gin_utils.parse_config(gin_utils.parse_flags(json.loads(line), 'train', ''))
  names = ('L_MAX_HOP/macro.value', 'SHUFFLE_SCOPE/macro.value', 'utils.SaveCheckpointConfig.keep')
  names = (*names, 'TRAIN_STEPS/macro.value')
  network = gin.get_configurable('config.ModelSpec')().network
  assert network.kind != 'framewise'  # whose memory does not depend on L_agg
  fields = ('prior_drop', 'prior_replace', 'memory_dropout')
  exposure = [bound(f'train/example_config.ExampleConfig.{name}') for name in fields]
  exposure.append(bound('models.MemoryEncoderDecoderModel.predicted_prior'))
  found = [network.memory_attention, exposure, network.memory_length, *map(gin.query_parameter, names)]
  restores = 'RESTORE/macro.value' in gin.config_str() or str(gin.query_parameter('RESTORE/macro.value'))
  print(json.dumps([*found, restores]))
"""


def weights(spec, seed):
  rng = np.random.default_rng(seed)
  shapes = spec.parameter_shapes()
  return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


def read_half(reference, seed):
  """Return half of a reference's notes."""
  notes = reference.read()
  return notes[np.random.default_rng(seed).random(len(notes)) < 0.5]


@pytest.fixture
def trained(monkeypatch, small_spec):
  """Replace training by saving random weights, and transcription by half of the reference's notes.

  Returns the flags of each training that was started.
  """
  begun = []

  def train(flags, model_dir, steps, keep_open=()):
    if orbax_checkpoints.latest_step(model_dir) == steps:
      return
    begun.append(flags)
    period = int(next(flag for flag in flags if 'SAVE_PERIOD' in flag).split('=')[1])
    for step in range(period, steps + 1, period):
      orbax_checkpoints.save_checkpoint(model_dir, step, {'target': weights(small_spec, len(begun) + step)}, small_spec)
    lines = [
      {'step': step, 'loss': 1.5, 'examples_per_second': 8.0 * step, 'tokens_per_step': 100.0} for step in (1, 2, 3)
    ]
    (model_dir / 'train.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n')

  def transcribe(references, checkpoint, *_):
    params, _, step = orbax_checkpoints.restore_params(checkpoint)
    seed = int(1000 * abs(params['encoder']['encoder_norm']['scale'][0])) + step
    return {
      name: evaluation_references.Estimate(functools.partial(read_half, one, seed), Path(checkpoint))
      for name, one in references.items()
    }

  monkeypatch.setattr(training, 'train', train)
  monkeypatch.setattr(score_pieces, 'transcribe', transcribe)
  return begun


@pytest.fixture
def small_study(monkeypatch):
  """Replace a study by one of two networks."""
  runs = (TrainingRun('plain', l_agg=0), TrainingRun('memory', l_agg=64, max_hop=3, shuffle=True, baseline='plain'))
  monkeypatch.setitem(catalogue.STUDIES, 'l-agg', Study('Which?', runs=runs, eval_points=2, axis='L_agg', steps=4))


def run(*words):
  return command_line.run(study_command, 'study', *words)


@pytest.mark.parametrize('run_file', ['study', 'frozen_encoder'])
def test_the_flags_of_every_run_have_the_declared_effect(run_file, tmp_path):
  # Folders of these names in the working directory must not be mistaken for those of the gin files.
  for name in ('ablations', 'models', 'optimizers', 'runs'):
    (tmp_path / name).mkdir()
  every = [run for study in catalogue.STUDIES.values() for run in study.runs]
  runs = list({tuple(run.flags()): run for run in every}.values())
  base = [f'--gin_file=runs/{run_file}.gin', '--gin.MODEL_DIR=m', '--gin.DATA_DIR=d', '--gin.TRAIN_STEPS=7']
  end = ['--gin.utils.SaveCheckpointConfig.keep=3', '--gin_file=runs/continued.gin', '--gin.INIT_FROM=x']
  lines = [json.dumps([*base, *run.flags(), *end]) for run in runs]
  done = subprocess.run(
    [sys.executable, '-c', PARSE], input='\n'.join(lines), capture_output=True, text=True, check=False, cwd=tmp_path
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(found) == len(runs) >= 8
  for run, (attention, exposure, l_agg, hop, scope, keep, steps, _) in zip(runs, found, strict=True):
    assert attention == ('decoupled' if 'decoupled_attention' in run.ablations else 'joint'), run
    expected = {
      'corrupted_prior': [0.05, 0.05, None, None],
      'memory_dropout': [None, None, 0.2, None],
      'predicted_prior': [None] * 3 + [0.25],
    }
    assert exposure == expected.get((*run.ablations, None)[0], [None] * 4), run
    assert (l_agg, hop) == (64 if run.l_agg is None else run.l_agg, run.max_hop or 1), run
    assert scope == ('paper' if run.shuffle else None), run
    assert (keep, steps) == (3, 7)


def test_the_paper_s_comparisons_are_declared():
  ablations = {run.name: (run.l_agg, run.max_hop, run.shuffle) for run in catalogue.STUDIES['ablations'].runs}
  assert ablations == {
    'baseline': (0, 1, False),
    'memory': (64, 1, False),
    '+ prior sampling': (64, 3, False),
    '+ shuffling': (64, 3, True),
  }
  assert [run.ablations for run in catalogue.STUDIES['memory-softmax'].runs] == [(), (), ('decoupled_attention',)]
  exposure = [(run.ablations, run.baseline) for run in catalogue.STUDIES['exposure-bias'].runs]
  assert exposure == [((), None)] + [
    ((name,), 'true prior') for name in ('corrupted_prior', 'memory_dropout', 'predicted_prior')
  ]
  assert [run.l_agg for run in catalogue.STUDIES['l-agg'].runs] == [0, 32, 64, 128]
  assert [run.max_hop for run in catalogue.STUDIES['l-max-hop'].runs] == [1, 3, 8]
  crossed = catalogue.STUDIES['domains']
  assert {(run.data, run.l_agg, run.max_hop, run.shuffle) for run in crossed.runs} == {
    (data, *method) for data in ('mixtures', 'stems', 'both') for method in ablations.values()
  }
  assert len(crossed.tests) == 3
  assert all(run.starts_from == 'from scratch' for run in catalogue.STUDIES['continual'].runs[1:])
  with pytest.raises(ValueError, match='come after'):
    Study('?', runs=(TrainingRun('a', baseline='b'), TrainingRun('b')))


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['l-agg', '--checkpoint', 'x'], 'trains its networks; leave --checkpoint out'),
    (['memory-probe', '--checkpoint', 'x', '--steps', 5], 'examines a checkpoint; leave --steps out'),
    (['memory-probe', '--checkpoint', 'x', '--eval-points', 5], 'examines a checkpoint; leave --eval-points out'),
    (['frontier', '--checkpoint', 'x', '--gin', 'SEED=1'], 'leave --gin out'),
    (['order-probe', '--checkpoint', 'x', '--init-from', 'y'], 'leave --init-from out'),
  ],
)
def test_options_of_another_kind_of_study_are_named(words, message, tmp_path):
  with pytest.raises(UserError, match=message):
    run(*words, '-o', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_a_study_ends_in_tables_and_figures(small_data, trained, small_study, tmp_path, capsys):
  assert (
    run(
      'l-agg', '-o', tmp_path / 'out', '--data', small_data, '--seeds', 2, '--batch-size', 4, '--base', 'runs/twin.gin'
    )
    == 0
  )
  assert len(trained) == 4
  assert (
    '--gin_file=ablations/l_agg_0.gin' in trained[0]
    and '--gin.SEED=1' in trained[1]
    and '--gin_file=runs/twin.gin' in trained[0]
  )
  lines = [json.loads(line) for line in (tmp_path / 'out' / 'results.jsonl').read_text().splitlines()]
  assert [line['name'] for line in lines] == ['plain 0', 'plain 1', 'memory 0', 'memory 1']
  assert list(lines[0]['result']['scores']) == ['2', '4']
  # The second and third of three reports: a step of 4 examples at 16 a second and one at 24, 100 tokens each.
  expected = {'step_seconds': (4 / 16 + 4 / 24) / 2, 'tokens_per_second': (400 + 600) / 2, 'train_loss': 1.5}
  assert lines[0]['result']['cost'] == pytest.approx(expected)
  text = (tmp_path / 'out' / 'study.md').read_text()
  assert text in capsys.readouterr().out
  lines = [line for line in text.splitlines() if line.startswith('|')]
  seeds = [f'{name}, seed {seed}' for name in ('plain', 'memory') for seed in (0, 1)]
  names = ['plain', 'memory', '', '---', 'memory', '', '---', *seeds, '', '---', *seeds[1::2]]
  assert [line.split('|')[1].strip() for line in lines] == ['', '---', *names]
  assert (
    'tokens/s' in lines[0] and lines[4].startswith('|  | baseline | onset F1 |') and '| plain, seed 0 |' in lines[-2]
  )
  # One piece has differences, and neither intervals nor tests.
  assert lines[6].count(' +') + lines[6].count(' -') == len(SCORES) and 'p = ' not in text and '95 %' not in text
  page = (tmp_path / 'out' / 'index.html').read_text()
  assert (
    page.count('<svg ') == 3
    and 'http' not in page
    and page.count('<table>') == 4
    and 'Differences on a single piece' in page
  )
  for figure in (tmp_path / 'out' / 'figures').glob('*.svg'):
    import xml.etree.ElementTree as ElementTree

    assert ElementTree.parse(figure).getroot().tag == '{http://www.w3.org/2000/svg}svg'


def test_the_requested_number_of_evaluation_points_is_scored(small_data, trained, small_study, tmp_path):
  words = ('l-agg', '-o', tmp_path / 'out', '--data', small_data, '--base', 'runs/twin.gin')
  assert run(*words, '--eval-points', 1) == 0
  assert '--gin.SAVE_PERIOD=4' in trained[0] and '--gin.utils.SaveCheckpointConfig.keep=1' in trained[0]
  lines = [json.loads(line) for line in (tmp_path / 'out' / 'results.jsonl').read_text().splitlines()]
  assert (
    all(list(line['result']['scores']) == ['4'] for line in lines)
    and 'each seed' not in (tmp_path / 'out' / 'study.md').read_text()
  )
  with pytest.raises(UserError, match='made with other settings \\(moments\\)'):
    run(*words, '--moments', 4)
  path = tmp_path / 'out' / 'made_by.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'what is no setting any more': 1}))
  with pytest.raises(UserError, match='other settings \\(what is no setting any more\\)'):
    run(*words, '--eval-points', 1)


def test_scores_of_another_version_are_computed_again(small_data, trained, small_study, tmp_path):
  words = ('l-agg', '-o', tmp_path / 'out', '--data', small_data, '--base', 'runs/twin.gin')
  assert run(*words) == 0
  path = tmp_path / 'out' / 'results' / 'plain_0.json'
  known = json.loads(path.read_text())
  del known['made_by']['scores']
  path.write_text(json.dumps(known))
  with pytest.raises(UserError, match='plain_0\\.json was made with other settings \\(scores\\); remove it'):
    run(*words)
  path.unlink()
  assert run(*words) == 0 and len(trained) == 2  # what is trained is kept


def test_the_bundled_models_parameters_are_frozen_and_all_else_is_fresh():
  gin_file = (ROOT / 'gin' / 'runs' / 'frozen_encoder.gin').read_text()
  frozen, fresh = (
    ast.literal_eval(gin_file.split(f'  {name} = ')[1].split(')')[0] + ')') for name in ('frozen', 'fresh')
  )
  bundled, _, _ = orbax_checkpoints.restore_params(orbax_checkpoints.find_checkpoint('framewise'))
  spec = task_reader._from_gin('', ['models/hybrid.gin'], [], '').spec
  paths = set(parameters.paths(spec.parameter_shapes()))

  def under(names):
    return {path for path in paths if any(parameters.is_part(path, name) for name in names)}

  known = set(parameters.paths(bundled))
  assert under(frozen) == known and under(fresh) == paths - known


def test_resumes_where_it_was_stopped(small_data, trained, small_study, tmp_path, monkeypatch):
  words = ('l-agg', '-o', tmp_path / 'out', '--data', small_data, '--base', 'runs/twin.gin')
  score = score_pieces.score

  def stopped(*arguments):
    if len(trained) == 2:
      raise KeyboardInterrupt
    return score(*arguments)

  monkeypatch.setattr(score_pieces, 'score', stopped)
  with pytest.raises(KeyboardInterrupt):
    run(*words)
  assert 'still to be trained' in (tmp_path / 'out' / 'study.md').read_text()
  monkeypatch.setattr(score_pieces, 'score', score)
  run(*words)
  assert len(trained) == 2  # the first is scored, the second trained
  whole = (tmp_path / 'out' / 'study.md').read_text()
  run(*words)
  assert len(trained) == 2 and (tmp_path / 'out' / 'study.md').read_text() == whole and 'still' not in whole
  fresh = tmp_path / 'fresh'
  trained.clear()
  run('l-agg', '-o', fresh, *words[3:])
  assert (fresh / 'study.md').read_text() == whole
  with pytest.raises(UserError, match='made with other settings \\(batch_size\\)'):
    run(*words, '--batch-size', 3)


def test_a_network_starts_from_another(small_data, trained, monkeypatch, tmp_path):
  runs = (
    TrainingRun('first', l_agg=0),
    TrainingRun('second', l_agg=32, starts_from='first', baseline='first', label='2nd'),
  )
  monkeypatch.setitem(catalogue.STUDIES, 'continual', Study('?', runs=runs, steps=2))
  run('continual', '-o', tmp_path / 'out', '--data', small_data)
  # Reports have the label, stored results the name.
  text, stored = (tmp_path / 'out' / name for name in ('study.md', 'results.jsonl'))
  assert '| 2nd |' in text.read_text() and 'second' not in text.read_text()
  assert [json.loads(line)['name'] for line in stored.read_text().splitlines()] == ['first 0', 'second 0']
  first, second = trained
  assert not any('INIT_FROM' in flag for flag in first)
  start = tmp_path / 'out' / 'cells' / 'second-0' / 'start'
  assert f'--gin.INIT_FROM={start}' in second and '--gin_file=runs/continued.gin' in second
  found, spec, _ = orbax_checkpoints.restore_params(start)
  of_first, _, _ = orbax_checkpoints.restore_params(tmp_path / 'out' / 'cells' / 'first-0' / 'model')
  assert spec.network.memory_length == 32
  np.testing.assert_array_equal(
    found['decoder']['logits_dense']['kernel'], of_first['decoder']['logits_dense']['kernel']
  )


@pytest.mark.slow
def test_killed_and_started_again_it_is_the_same_study(small_data, tmp_path):
  """The study's process gets SIGKILL during a real training."""
  words = [
    sys.executable,
    '-m',
    'mrmt3',
    'study',
    'l-max-hop',
    '--data',
    str(small_data),
    '--base',
    'runs/twin.gin',
    '--steps',
    '60',
  ]
  words += ['--batch-size', '4', '--gin', 'SEGMENT_FRAMES=32', '-o']
  subprocess.run([*words, str(tmp_path / 'whole')], check=True)
  killed = subprocess.Popen([*words, str(tmp_path / 'killed')])
  lines = tmp_path / 'killed' / 'cells' / '3-0' / 'model' / 'train.jsonl'
  deadline = time.monotonic() + 600
  while not lines.exists():
    assert time.monotonic() < deadline and killed.poll() is None
    time.sleep(0.1)
  killed.kill()
  killed.wait()
  while subprocess.run(
    [*words, str(tmp_path / 'killed')], check=False
  ).returncode:  # until the training has saved and ended
    assert time.monotonic() < deadline
    time.sleep(1)
  found = []
  for name in ('whole', 'killed'):
    study = [json.loads(line) for line in (tmp_path / name / 'results.jsonl').read_text().splitlines()]
    found.append([(line['name'], line['result']['scores'], line['result']['cost']['train_loss']) for line in study])
  assert found[0] == found[1] and len(found[0]) == 3


def test_only_one_run_at_a_time(tmp_path):
  with results.alone(tmp_path / 'out') as lock:
    # A training keeps the folder locked after the study that started it is gone.
    orphan = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, pass_fds=[lock])
  try:
    with pytest.raises(UserError, match='is at work in'), results.alone(tmp_path / 'out'):
      pass
  finally:
    orphan.communicate(b'\n')
  with results.alone(tmp_path / 'out'):
    pass


def test_broken_results_are_named(tmp_path):
  found = results.Results(tmp_path, {'steps': 3})
  assert found.get('a b', lambda: {'x': 1}, seed=1) == {'x': 1}
  assert found.get('a b', lambda: pytest.fail('is there'), seed=1) == {'x': 1}
  with pytest.raises(UserError, match='other settings \\(seed\\)'):
    found.get('a b', lambda: {}, seed=2)
  (tmp_path / 'results' / 'a_b.json').write_text('{')
  with pytest.raises(UserError, match='is not a result of a study'):
    found.get('a b', lambda: {}, seed=1)


def test_other_settings_are_refused_before_there_are_results(small_data, tmp_path, monkeypatch):
  def stopped(flags, model, *_):
    if '--gin.BATCH_SIZE=4' in flags:
      (model / 'checkpoint_1').mkdir(exist_ok=True)
    raise KeyboardInterrupt

  monkeypatch.setattr(training, 'train', stopped)
  words = ('l-agg', '-o', tmp_path / 'out', '--data', small_data)
  for size in (2, 4, 4):  # nothing was made with the first
    with pytest.raises(KeyboardInterrupt):
      run(*words, '--batch-size', size)
  with pytest.raises(UserError, match='made with other settings \\(batch_size\\)'):
    run(*words, '--batch-size', 3)


def test_training_that_fails_is_one_line(tmp_path, capfd):
  with pytest.raises(UserError, match='exit code 2'):
    training.run(['--gin_file=no_such.gin'])
  assert 'no_such.gin' in capfd.readouterr().err


def test_a_trainings_cost_comes_from_its_logs(tmp_path):
  line = json.dumps({'step': 50, 'loss': 1.5, 'examples_per_second': 2.0, 'tokens_per_step': 100.0}) + '\n'
  found = []
  for count in (0, 1, 2):
    (tmp_path / 'train.jsonl').write_text(line * count)
    found.append(training.cost(tmp_path, 4))
  assert found == [{}, {'train_loss': 1.5}, {'train_loss': 1.5, 'step_seconds': 2.0, 'tokens_per_second': 50.0}]


def test_mistakes_are_one_line(small_data, tmp_path):
  for words, message in (
    (('ablations', '--data', small_data, '--steps', 7), '7 steps cannot be divided into 5 equal parts'),
    (('ablations', '--data', small_data, '--eval-points', 3), '4000 steps cannot be divided into 3 equal parts'),
    (('l-agg', '--eval-points', 0), '--eval-points is 0'),
    (('memory-probe', '--data', small_data), 'give --checkpoint DIR and --data DIR'),
    (('memory-probe', '--checkpoint', tmp_path), 'give --checkpoint DIR and --data DIR'),
    (('l-agg', '--seeds', 0), '--seeds is 0'),
    (('l-agg', '--gin', 'X'), 'write NAME=VALUE'),
    (('l-agg', '--data', tmp_path / 'none'), 'no such file or folder'),
    (('l-agg', '--data', small_data, '--init-from', tmp_path / 'none'), 'no such checkpoint'),
    (('frontier', '--dry-run'), 'trains no network'),
  ):
    with pytest.raises(UserError, match=message) as error:
      run(*words, '-o', tmp_path / 'out')
    assert '\n' not in str(error.value) and not (tmp_path / 'out').exists()


def test_weights_with_another_memory(small_spec, tmp_path):
  spec = dataclasses.replace(small_spec, network=small_spec.network.replace(memory_length=0))
  params = weights(spec, 0)
  orbax_checkpoints.save_checkpoint(tmp_path / 'plain', 9, {'target': params}, spec)
  with_memory = starting_weights.write(tmp_path / 'plain', tmp_path / 'memory', 8, seed=0)
  found, spec, step = orbax_checkpoints.restore_params(with_memory)
  assert spec.network.memory_length == 8 and step == 9 and 'memory_encoder' in found
  np.testing.assert_array_equal(found['encoder']['encoder_norm']['scale'], params['encoder']['encoder_norm']['scale'])
  without, spec, _ = orbax_checkpoints.restore_params(
    starting_weights.write(with_memory, tmp_path / 'without', 0, seed=0)
  )
  assert spec.network.memory_length == 0 and 'memory_encoder' not in without
  more, spec, _ = orbax_checkpoints.restore_params(starting_weights.write(with_memory, tmp_path / 'more', 16, seed=1))
  jax.tree.map(np.testing.assert_array_equal, more, found)
  assert spec.network.memory_length == 16


def test_stems_are_pieces_with_their_own_notes(small_data, tmp_path):
  folder = domains.write_stems(small_data, tmp_path / 'stems')
  for split in ('train', 'test'):
    mixtures, stems = slakh_layout.find_tracks(small_data, split), slakh_layout.find_tracks(folder, split)
    assert len(stems) == sum(len(slakh_layout.read_stems(track)) for track in mixtures) > len(mixtures)
    notes = np.sort(np.concatenate([slakh_layout.read_notes(track) for track in stems]))
    np.testing.assert_array_equal(
      notes, np.sort(np.concatenate([slakh_layout.read_notes(track) for track in mixtures]))
    )
  from mrmt3.audio import files as audio_files

  track, stem = slakh_layout.find_tracks(small_data, 'test')[0], slakh_layout.find_tracks(folder, 'test')[1]
  samples = audio_files.read_audio(stem.audio_path, 16000)
  np.testing.assert_array_equal(samples, audio_files.read_audio(slakh_layout.read_stems(track)[1].audio_path, 16000))
  both = domains.write_stems(small_data, tmp_path / 'both', which=domains.ONE_STEM, mixtures=True)
  counts = [len(slakh_layout.read_stems(track)) for track in slakh_layout.find_tracks(both, 'train')]
  assert counts.count(1) == 3 and len(counts) == 6
  assert domains.write_stems(small_data / 'nowhere', both) == both  # what is there is kept


def test_a_data_set_without_stems_is_named(tmp_path):
  track = tmp_path / 'data' / 'train' / 'Track00001'
  track.mkdir(parents=True)
  entry = {'audio_rendered': True, 'integrated_loudness': -20.0, 'is_drum': False, 'program_num': 0, 'midi_saved': True}
  (track / 'metadata.yaml').write_text(yaml.safe_dump({'stems': {'S00': entry}}))
  with pytest.raises(UserError, match='no audio of its stems'):
    domains.write_stems(tmp_path / 'data', tmp_path / 'stems')
  assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_single_notes_are_as_nsynth_s(tmp_path):
  pytest.importorskip('symusic')
  references = evaluation_references.find_references(domains.write_notes(tmp_path / 'notes'))
  assert len(references) == 54
  programs = set()
  for reference in references.values():
    (note,) = reference.read()
    assert note['onset'] == pytest.approx(0.05, abs=2e-3) and note['offset'] - note['onset'] == pytest.approx(
      4.0, abs=4e-3
    )
    programs.add(int(note['program']))
    samples = np.asarray(reference.audio(16000))
    assert len(samples) == pytest.approx(4.05 * 16000, abs=1)
    assert np.abs(samples[:700]).max() < 0.01 and np.abs(samples[800:8000]).max() > 0.1
  assert programs == set(domains.NSYNTH_PROGRAMS.values())


def test_all_rendered_notes_but_a_limited_number_of_pieces_are_tested(small_data, tmp_path):
  pytest.importorskip('symusic')

  def count(test, **fields):
    options = Options(data=small_data, split='train', pieces=2, **fields)
    return len(
      TrainingStudy('domains', catalogue.STUDIES['domains'], tmp_path, options, -1).references(test, small_data)
    )

  assert [count(test) for test in catalogue.STUDIES['domains'].tests] == [2, 2, 54]
  assert count(catalogue.NOTES, notes=tmp_path / 'notes') == 2


def test_a_split_that_is_not_there_is_not_replaced(small_data, tmp_path):
  with pytest.raises(UserError, match="has no split 'tset', only train, test"):
    references_of(small_data, 'tset', None)
  (tmp_path / 'plain').symlink_to(small_data / 'test')
  assert len(references_of(tmp_path / 'plain', 'test', None)) == 1  # without splits, all references are used
  for name in ('val', 'rest'):
    (tmp_path / 'own' / name).mkdir(parents=True)
    (tmp_path / 'own' / name / 'Track00000').symlink_to(next((small_data / 'test').iterdir()))
  assert list(references_of(tmp_path / 'own', 'val', None)) == ['val/Track00000']  # any split name works

  options = Options(data=small_data, split='test', single=tmp_path / 'single')
  (tmp_path / 'single').mkdir()
  (tmp_path / 'single' / 'train').symlink_to(small_data / 'train')
  study = TrainingStudy('domains', catalogue.STUDIES['domains'], tmp_path, options, -1)
  assert (
    len(study.references(catalogue.SINGLE, small_data)) == 3
  )  # single-instrument music has splits of its own, or none


def test_more_systems_than_colours_have_distinct_markers(tmp_path):
  points = {f'network {number}': [('end', 0.1 * number, 0.5)] for number in range(8)}
  figure = report.frontier(points, '')
  drawn = re.findall(r'<circle [^>]*class="dot ([^"]*)"', figure.svg)
  page = report.write(tmp_path, 'colours', '?', [], [figure], []).read_text()
  assert len(set(drawn)) == 8 and drawn[7] == 's1 again' and f'i class="{drawn[7]}"' in page


def test_a_table_shows_differences():
  first = rows.Row('first', {f'p{index}': {'x': 0.25 * index} for index in range(4)})
  second = rows.Row('second', {f'p{index}': {'x': 0.25 * index + 0.125} for index in range(4)}, 'first', {'cost': '7'})
  table = rows.Table('t', {'x': 'X'}, [first, second], ('x',))
  assert table.difference(first, 'x') is None and table.difference(second, 'x').difference == 0.125
  assert table.grid()[0] == ['', 'X', 'cost'] and table.grid()[2][2:] == ['7']
  # 2 of the 16 sign assignments are as far from 0.
  assert table.differences() == [['', 'baseline', 'X'], ['second', 'first', '+0.125 (+0.125 to +0.125), p = 0.125']]
  assert (
    rows.Table('t', {'x': 'X'}, [first, second]).differences()
    == []
    == rows.Table('t', {'x': 'X'}, [first], ('x',)).differences()
  )
  assert rows.mean_over_seeds([first.pieces, second.pieces])['p2'] == {'x': 0.5625}
  assert report.markdown([table]).count('\n| ') == 5
