"""Tests of `mrmt3 inspect`: statistics of known pieces, every task, plots and audio files."""

import itertools
import json
import sys
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import small_datasets
import soundfile
from matplotlib.image import imread

import gin
from mrmt3 import note_sequences, spectrograms, vocabularies
from mrmt3.audio import files as audio_files
from mrmt3.audio import sonify
from mrmt3.cli.main import main
from mrmt3.errors import UserError
from mrmt3.inspection import statistics as inspection_statistics
from mrmt3.inspection import task_reader
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes
from mrmt3.plots.log_mel import Panel, mel_place, plot_segments
from mrmt3.tokens import segment_targets

SMALL = [
  '--gin_file=models/tiny.gin',
  '--gin.SEGMENT_FRAMES=32',
  '--gin.TARGETS_LENGTH=64',
  '--gin.SpectrogramConfig.hop_width=256',
  '--gin.SpectrogramConfig.num_mel_bins',
  '32',
]
CODEC = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
# 4 segments of 51.2 steps. A piano's C4 is tied to the second segment, where a bass and a drum begin.
NOTES = as_notes([(0.1, 0.7, 60, 100, 0, 0), (0.6, 0.8, 40, 100, 33, 0), (0.6, 0.61, 36, 100, 0, 1)])
SHIFT, PITCH, OFF, ON, TIE, PROGRAM, DRUM, EOS = 3, 1004, 1132, 1133, 1134, 1135, 1263, 1
SEGMENTS = [
  [TIE, SHIFT + 10, PROGRAM, ON, PITCH + 60, EOS],
  [
    PROGRAM,
    PITCH + 60,
    TIE,
    SHIFT + 9,
    PROGRAM + 33,
    ON,
    PITCH + 40,
    DRUM + 36,
    SHIFT + 19,
    PROGRAM,
    OFF,
    PITCH + 60,
    SHIFT + 29,
    PROGRAM + 33,
    PITCH + 40,
    EOS,
  ],
  [TIE, EOS],
  [TIE, EOS],
]
COUNTS = {'shift': 4, 'pitch': 5, 'velocity': 3, 'tie': 4, 'program': 5, 'drum': 1, 'EOS': 4, 'other': 0}


@pytest.fixture(autouse=True)
def _leave_no_engine_behind():
  """Remove our engine from the name `t5x` and clear gin's configuration, both of which inspecting changes."""
  before = set(sys.modules)
  yield
  gin.clear_config()
  for name in [name for name in sys.modules if name.split('.')[0] == 't5x' and name not in before]:
    del sys.modules[name]


@pytest.fixture(scope='module')
def known(tmp_path_factory):
  """A folder with one piece, whose tokens are SEGMENTS."""
  folder = tmp_path_factory.mktemp('own')
  midi.write_midi(NOTES, folder / 'song.mid')
  audio_files.write_audio(folder / 'song.wav', sonify.play_notes(NOTES, 2.0))
  return folder


@pytest.fixture(scope='module')
def records(small_data, tmp_path_factory):
  """The small data set as records of TensorFlow Datasets."""
  from mrmt3.data.tfds_slakh import slakh_records

  return slakh_records.build(small_data, tmp_path_factory.mktemp('records'), num_shards=1)


@pytest.fixture(scope='module')
def musicnet(tmp_path_factory):
  """A file of two records in MT3's layout of MusicNet."""
  import tensorflow as tf

  def feature(value):
    if isinstance(value, bytes):
      return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=np.atleast_1d(value)))

  folder = tmp_path_factory.mktemp('musicnet')
  sequence = note_sequences.notes_to_note_sequence(NOTES).SerializeToString()
  fields = {'id': b'1', 'sample_rate': 16000.0, 'audio': sonify.play_notes(NOTES, 2.0), 'sequence': sequence}
  record = tf.train.Example(
    features=tf.train.Features(feature={name: feature(value) for name, value in fields.items()})
  )
  with tf.io.TFRecordWriter(str(folder / 'train.tfrecord-00000-of-00103')) as writer:
    writer.write(record.SerializeToString())
    writer.write(record.SerializeToString())
  return folder


@pytest.fixture(scope='module')
def commu(tmp_path_factory):
  return small_datasets.write_commu(tmp_path_factory.mktemp('commu') / 'dataset', clips=24)


@pytest.fixture(scope='module')
def nsynth(tmp_path_factory):
  return small_datasets.write_nsynth(tmp_path_factory.mktemp('nsynth'), 'train')


@pytest.fixture(scope='module')
def nsynth_tfds(tmp_path_factory):
  return small_datasets.write_tfds_nsynth(tmp_path_factory.mktemp('tfds'), 'train')


@pytest.fixture(scope='module')
def mt3_data(tmp_path_factory, small_data):
  """MT3's data sets, one folder each."""
  slakh = tmp_path_factory.mktemp('slakh')
  for split in ('train', 'validation', 'test'):
    (slakh / split).symlink_to(small_data / ('train' if split == 'train' else 'test'))
  return small_datasets.write_records(tmp_path_factory.mktemp('mt3') / 'records', slakh)


def inspect(capsys, *arguments):
  """Return the output of `mrmt3 inspect`, which must succeed."""
  capsys.readouterr()  # discards what making the data has printed
  assert main(['inspect', *map(str, arguments)]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def as_json(capsys, *arguments):
  return json.loads(inspect(capsys, *arguments, '--json', '-'))


# Data to inspect each module of tasks/ with: (fixture, number of pieces, prefix of task names, extra arguments).
DATA = {
  'slakh': ('small_data', 3, 'slakh', []),
  'own_folder': ('known', 1, 'own_folder', []),
  'slakh_records': ('records', 3, 'slakh_records', []),
  'mt3_records': ('musicnet', 2, 'mt3_musicnet_em', ['--gin.mt3_records.task.name=musicnet_em']),
  'commu': ('commu', 21, 'commu', []),
  'dataset': ('commu', 21, 'commu', ['--gin.dataset.task.name=commu']),
  'nsynth': ('nsynth', 2, 'nsynth', []),
  'nsynth_records': ('nsynth_tfds', 2, 'nsynth_records', []),
  'mt3_mixture': ('mt3_data', 2 + 4 + 2 + 2 + 2 + 3, 'mt3_mixture', []),
}
SAMPLINGS = ('random', 'grid', 'pieces', 'mr_mt3', 'mt3')


@pytest.mark.parametrize('task, sampling', itertools.product(task_reader.task_modules(), SAMPLINGS))
def test_every_task_is_inspected(task, sampling, request, capsys):
  assert task in DATA, f'tasks/{task}.py is new: add data to inspect it with to DATA'
  fixture, pieces, name, arguments = DATA[task]
  data = request.getfixturevalue(fixture)
  found = as_json(
    capsys, task, '--data', data, *SMALL, f'--gin.ExampleConfig.sampling={sampling}', '--examples', 40, *arguments
  )
  assert found['task'].startswith(f'{name}_{sampling}_')
  assert found['instruments']['of'] == 'piece' and found['instruments']['count'] == pieces
  assert sum(found['shares']['targets'].values()) == pytest.approx(1) and found['shares']['targets']['other'] == 0
  assert found['lengths']['targets']['count'] == found['segments'] >= found['examples'] > 0
  assert found['without_eos'] == 0
  assert {'inputs', 'targets'} <= {name for name, feature in found['features'].items() if feature['is_feature']}
  assert len(found['shown']) == 2 and all(shown['prior_targets'] for shown in found['shown'])
  assert found['hops']['none'] + sum(found['hops']['realised'].values()) == pytest.approx(1)


MT3_SETS = ('maestrov1', 'maestrov3', 'guitarset', 'urmp', 'musicnet', 'musicnet_em', 'cerberus4', 'slakh')


def mt3_tasks():
  """Return (name, split) of the training and evaluation tasks and mixtures that MT3 registers."""
  import seqio

  names = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  own = [name for name in names if name.split('_notes')[0] in (*MT3_SETS, 'mega') and '_notes' in name]
  return [(name, 'train' if name.endswith('_train') and 'eval_' not in name else 'eval') for name in sorted(own)]


def test_every_task_of_mt3_is_inspected(mt3_data, monkeypatch, capsys):
  monkeypatch.setenv('MRMT3_RECORDS', 'elsewhere')  # put back after --data has set it
  found = mt3_tasks()
  assert len(found) == 55
  inspected = {}
  for name, split in found:
    if (not name.endswith(('_train', '_validation')) and name != 'mega_notes_ties_vb1_eval') or '_eval_train' in name:
      continue  # these differ from inspected tasks only in their files, see below
    velocities = (
      [] if '_vb1' in name else ['--gin.VocabularyConfig.num_velocity_bins=127', '--gin.T5Config.vocab_size=1664']
    )
    inspected[name] = as_json(
      capsys, name, '--data', mt3_data, '--split', split, '--examples', 3, '--n', 1, *velocities
    )
    assert inspected[name]['examples'] > 0 and inspected[name]['split'] == split
    if split == 'train':
      assert (
        inspected[name]['shares']['targets']['other'] == 0
        and inspected[name]['features']['inputs']['largest'][1] == 512
      )
  assert {name.split('_notes')[0] for name in inspected} == {*MT3_SETS, 'mega'}
  for name, programs in {'guitarset': {'Acoustic Guitar'}, 'urmp': {'Violin', 'Pipe'}, 'musicnet': {'Viola'}}.items():
    assert set(inspected[f'{name}_notes_ties_vb1_train']['instruments']['share']) <= programs


def test_every_task_of_mt3_finds_its_files(mt3_data, monkeypatch):
  import seqio

  from mrmt3.tasks import mt3 as registered

  monkeypatch.setenv('MRMT3_RECORDS', str(mt3_data))
  counts = {}
  for name, _ in mt3_tasks():
    if name in seqio.TaskRegistry.names():
      task = seqio.TaskRegistry.get(name)
      for split in task.splits:
        files = task.source.list_shards(split)
        assert all(file.startswith(str(mt3_data / name.split('_notes')[0])) for file in files)
        counts[name, split] = task.source.count_records(split)
  assert (
    counts['maestrov3_notes_ties_vb1_train', 'train'] == 2 and counts['guitarset_notes_ties_vb1_train', 'train'] == 4
  )
  mixture = seqio.MixtureRegistry.get('mega_notes_ties_vb1_train')
  rates = {task.name.split('_notes')[0]: mixture.get_rate(task) for task in mixture.tasks}
  assert rates == pytest.approx(
    {
      name: count**0.3
      for name, count in {
        'maestrov3': 2,
        'guitarset': 4,
        'urmp': 2,
        'musicnet_em': 2,
        'cerberus4': 2,
        'slakh': 3,
      }.items()
    }
  )
  assert pytest.approx(10 / 3) == registered.MIXING_TEMPERATURE
  monkeypatch.setenv('MRMT3_RECORDS', str(mt3_data / 'nowhere'))
  with pytest.raises(UserError, match=r'slakh: no files .*MRMT3_RECORDS'):
    seqio.TaskRegistry.get('slakh_notes_ties_vb1_train').source.list_shards('train')


def test_the_mixture_weighs_its_data_sets(mt3_data, small_spec):
  import seqio

  from mrmt3.tasks import mt3_mixture

  mixture = seqio.MixtureRegistry.get(mt3_mixture.task(str(mt3_data), small_spec, names=('guitarset', 'slakh')))
  rates = {task.name.split('_random')[0]: mixture.get_rate(task) for task in mixture.tasks}
  segments = {'mt3_guitarset': 4 * 6, 'mt3_slakh': 3 * 5}  # 3 s and 2.07 s in segments of 0.512 s
  assert rates == pytest.approx({name: count**0.3 for name, count in segments.items()})
  alike = seqio.MixtureRegistry.get(
    mt3_mixture.task(str(mt3_data), small_spec, names=('guitarset', 'slakh'), temperature=1e9)
  )
  assert [alike.get_rate(task) for task in alike.tasks] == pytest.approx([1.0, 1.0])
  with pytest.raises(UserError, match=r'no folder .*/groove'):
    mt3_mixture.task(str(mt3_data), small_spec, names=('groove',))
  with pytest.raises(UserError, match='temperature'):
    mt3_mixture.task(str(mt3_data), small_spec, temperature=0)


def test_a_mixture_resumes_at_its_position(mt3_data, small_spec, tmp_path):
  from mrmt3.data.feature_converters import MemoryFeatureConverter
  from mrmt3.engine import utils
  from mrmt3.tasks import mt3_mixture
  from mrmt3.training.data_iterator import DataIterator

  name = mt3_mixture.task(str(mt3_data), small_spec)
  lengths = {'inputs': 32, 'targets': 64, 'prior_targets': 64}
  config = utils.DatasetConfig(
    name, lengths, split='train', batch_size=2, shuffle=True, seed=5, trim_output_features=False
  )
  first, second = (DataIterator(utils.get_dataset(config, MemoryFeatureConverter, seed=5)) for _ in range(2))
  batches = [next(first) for _ in range(7)]
  assert len({batch['encoder_input_tokens'].tobytes() for batch in batches}) == 7
  for file, content in first.save().items():
    (tmp_path / file).write_bytes(content)
  second.restore(tmp_path)
  for _ in range(9):
    one, two = next(first), next(second)
    for feature in one:
      np.testing.assert_array_equal(one[feature], two[feature])


@pytest.mark.parametrize('sampling', ['grid', 'pieces'])
def test_numbers_of_a_known_piece_are_exact(known, capsys, sampling):
  found = as_json(
    capsys, 'own_folder', '--data', known, *SMALL, f'--gin.ExampleConfig.sampling={sampling}', '--length', 8
  )
  assert found['segments'] == 4 and found['examples'] == (4 if sampling == 'grid' else 1)
  total = sum(COUNTS.values())
  assert found['shares']['targets'] == pytest.approx({name: count / total for name, count in COUNTS.items()})
  lengths = found['lengths']['targets']
  assert lengths['edges'] == list(range(1, 9)) and lengths['histogram'] == [0, 2, 0, 0, 0, 1, 0, 0, 1]
  assert (lengths['longest'], lengths['limit'], lengths['too_long'], lengths['mean']) == (16, 8, 1, 6.5)
  assert found['lengths']['prior_targets']['histogram'] == [0, 2, 0, 0, 0, 1, 0, 0, 1]  # of the empty, 0, 1 and 2
  hops = found['hops']
  assert hops['realised'] == {'1': 0.75} and hops['none'] == 0.25 and hops['silent'] == 0.5
  assert hops['drawn'] == ({'1': 1.0} if sampling == 'grid' else {})
  assert found['instruments']['histogram'] == {'3': 1}
  assert found['instruments']['share'] == {'Acoustic Piano': 1, 'Drums': 1, 'Electric Bass': 1}
  assert found['examples_an_epoch'] == found['examples']
  assert found['features']['targets']['largest'] == ([16] if sampling == 'grid' else [4, 16])
  for shown in found['shown']:
    place = shown['start_frame'] // 32
    assert shown['targets']['tokens'] == SEGMENTS[place]
    assert shown['prior_targets'][0]['tokens'] == (SEGMENTS[place - 1] if place else SEGMENTS[3])


@pytest.mark.parametrize('on_overflow', ['skip', 'error', 'cut'])
def test_long_segments_are_counted_and_not_left_out(known, capsys, on_overflow):
  found = as_json(
    capsys,
    'own_folder',
    '--data',
    known,
    *SMALL,
    '--gin.TARGETS_LENGTH=8',
    '--gin.T5Config.memory_length=4',
    '--n',
    4,
    '--gin.ExampleConfig.sampling=grid',
    f'--gin.ExampleConfig.on_overflow={on_overflow}',
  )
  lengths = found['lengths']['targets']
  assert (lengths['count'], lengths['limit'], lengths['too_long']) == (4, 8, 1) and found['without_eos'] == 0
  assert sorted(len(shown['targets']['tokens']) for shown in found['shown']) == [2, 2, 6, 16]


def test_whole_pieces_show_segments_spread_over_them(known, capsys):
  arguments = ['own_folder', '--data', known, *SMALL, '--gin.ExampleConfig.sampling=pieces', '--n']
  for number, places in {1: [2], 2: [1, 3], 4: [0, 1, 2, 3], 9: [0, 1, 2, 3]}.items():
    assert [shown['start_frame'] // 32 for shown in as_json(capsys, *arguments, number)['shown']] == places


def test_events_are_shown_next_to_those_of_the_prior_segment(known, capsys):
  text = inspect(capsys, 'own_folder', '--data', known, *SMALL, '--gin.ExampleConfig.sampling=grid', '--n', 4)
  lines = text.splitlines()
  first = next(k for k, line in enumerate(lines) if line.startswith('0.51-1.02 s, 16 tokens'))
  table = [[' '.join(cell.split()) for cell in line.split('|')] for line in lines[first : first + 7]]
  assert table[0] == ['0.51-1.02 s, 16 tokens', 'prior: 0.00-0.51 s, 6 tokens (hop 1)']
  assert table[1] == ['0.00 tie Acoustic Piano C4', '0.10 on Acoustic Piano C4']
  assert [row[0] for row in table[2:6]] == [
    '0.09 on Electric Bass E2',
    '0.09 on Drums Bass Drum 1',
    '0.19 off Acoustic Piano C4',
    '0.29 off Electric Bass E2',
  ]
  assert 'no prior segment' in text and 'own_folder_grid_hop1' in lines[0] and '4 examples, 4 per epoch' in lines[0]
  assert '0 of 4 exceed 64' in text  # the limit is the model's


def test_drawn_and_realised_hops_agree_where_there_is_room(small_data, capsys):
  arguments = ['slakh', '--data', small_data, *SMALL, '--gin.ExampleConfig.max_hop=3', '--examples', 400]
  found = as_json(capsys, *arguments)
  assert found['examples'] == 400 > found['examples_an_epoch']
  drawn, realised, none = (found['hops'][name] for name in ('drawn', 'realised', 'none_of_drawn'))
  assert set(drawn) == {'1', '2', '3'} and sum(drawn.values()) == pytest.approx(1)
  for hop, share in drawn.items():
    assert realised[hop] == pytest.approx(share * (1 - none[hop]))
  assert none['1'] < none['2'] < none['3']  # of 4 segments
  again = as_json(capsys, *arguments)
  assert {**again, 'examples_per_second': 0} == {**found, 'examples_per_second': 0}
  assert as_json(capsys, *arguments, '--seed', 1)['shown'] != found['shown']


def test_several_prior_segments_are_shown_separately(known, capsys):
  found = as_json(
    capsys,
    'own_folder',
    '--data',
    known,
    *SMALL,
    '--gin.ExampleConfig.sampling=grid',
    '--gin.ExampleConfig.prior_segments=2',
  )
  assert found['lengths']['prior_targets']['count'] == 8 and found['features']['prior_targets']['largest'] == [32]
  (two,) = [
    shown
    for shown in as_json(
      capsys,
      'own_folder',
      '--data',
      known,
      *SMALL,
      '--n',
      4,
      '--gin.ExampleConfig.sampling=grid',
      '--gin.ExampleConfig.prior_segments=2',
    )['shown']
    if shown['start_frame'] == 64
  ]
  assert [prior['tokens'] for prior in two['prior_targets']] == SEGMENTS[:2]


RUN = ['--gin_file=models/tiny.gin', '--gin_file=runs/train.gin']


def test_the_task_of_a_training_is_inspected(small_data, tmp_path, capsys):
  """Neither an optimizer nor a model_dir needs to be bound."""
  found = as_json(capsys, 'train', *RUN, f'--gin.DATA_DIR={small_data}', '--gin.L_MAX_HOP=2', '--examples', 10)
  assert found['task'].startswith('slakh_random_hop2_') and found['split'] == 'train'
  assert found['lengths']['targets']['limit'] == 256 and found['features']['inputs']['largest'] == [256, 512]
  found = as_json(capsys, 'train_eval', *RUN, f'--gin.DATA_DIR={small_data}', '--split', 'test', '--examples', 10)
  assert found['task'].startswith('slakh_grid_hop1_') and found['split'] == 'test'


MODULE = """
import numpy as np, seqio, tensorflow as tf
from mrmt3 import vocabularies
codec = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=1))
inputs = np.zeros([3, 32, 32], np.float32)
targets = np.array({segments}, np.int32)

def dataset(split, shuffle_files, seed=None):
  return tf.data.Dataset.from_tensor_slices({{'inputs': inputs, 'targets': targets}})

def add(name, codec=codec):
  seqio.TaskRegistry.add(
      name, source=seqio.FunctionDataSource(dataset, splits=['train']), preprocessors=[],
      output_features={{'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=2),
                       'targets': seqio.Feature(vocabularies.vocabulary_from_codec(codec), add_eos=False)}})

add('{name}')
add('{name}_velocities', vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=127)))
add('{name}_twin')
seqio.MixtureRegistry.add('{name}_mixture', [('{name}', 1), ('{name}_twin', 1)])
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch):
  """Make a user's module of tasks that have neither prior segments nor pieces, like MT3's. Returns the tasks' name."""
  name = f'foreign_{tmp_path.name}'
  rows = [row + [0] * (16 - len(row)) for row in SEGMENTS[:3]]
  (tmp_path / f'{name}.py').write_text(MODULE.format(segments=rows, name=name))
  monkeypatch.syspath_prepend(tmp_path)
  return name


def test_registered_tasks_without_prior_segments(foreign, tmp_path, capsys):
  arguments = ['--module', foreign, *SMALL]
  found = as_json(capsys, foreign, *arguments, '--plot', tmp_path / 'plot.png')
  assert found['segments'] == 3 and list(found['lengths']) == ['targets'] and found['hops'] is None
  assert found['instruments'] == {
    'of': 'segment',
    'count': 3,
    'histogram': {'0': 1, '1': 1, '3': 1},
    'share': {'Acoustic Piano': 2 / 3, 'Drums': 1 / 3, 'Electric Bass': 1 / 3},
  }
  assert 'prior' not in inspect(capsys, foreign, *arguments, '--split', 'train')
  assert imread(tmp_path / 'plot.png').std() > 0
  assert as_json(capsys, f'{foreign}_mixture', *arguments, '--examples', 4)['examples'] == 4
  assert main(['inspect', foreign, *arguments, '--audio', str(tmp_path / 'audio')]) == 2
  assert 'no samples' in capsys.readouterr().err and not (tmp_path / 'audio').exists()
  assert main(['inspect', f'{foreign}_velocities', *arguments]) == 2
  assert 'vocabulary has 1517 ids' in capsys.readouterr().err


def test_mixtures_of_tasks_here_keep_their_pieces(small_data, known, small_spec, capsys):
  import seqio

  from mrmt3.data.example_config import ExampleConfig
  from mrmt3.tasks import own_folder, slakh

  tasks = [slakh.task(str(small_data), small_spec, ExampleConfig(max_hop=2)), own_folder.task(str(known), small_spec)]
  name = f'mixture_of_{"_".join(tasks)}'
  if name not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add(name, [(task, 1) for task in tasks])
  found = as_json(capsys, name, '--examples', 60, '--n', 20)
  assert found['instruments']['count'] == 4 and found['hops'] is not None
  assert {'song', 'Track00000'} <= {shown['piece'] for shown in found['shown']}


def test_plot_has_a_panel_for_each_segment(known, tmp_path, capsys):
  arguments = ['own_folder', '--data', known, *SMALL, '--gin.ExampleConfig.sampling=grid', '--plot']
  assert f'wrote {tmp_path / "a.png"}' in inspect(capsys, *arguments, tmp_path / 'a.png')
  image = imread(tmp_path / 'a.png')
  assert image.shape[0] > 500 and len(np.unique(image[::4, ::4].reshape(-1, 4), axis=0)) > 50
  with warnings.catch_warnings():
    warnings.simplefilter('error', UserWarning)  # matplotlib's, of panels that do not fit
    inspect(capsys, *arguments, tmp_path / 'new' / 'a.svg', '--n', 4)
  drawn = ET.parse(tmp_path / 'new' / 'a.svg').getroot()
  assert len(list(drawn.iter('{http://www.w3.org/2000/svg}image'))) == 7  # 4 segments, 3 of them with a prior one
  assert sorted(path.name for path in tmp_path.rglob('*.*')) == ['a.png', 'a.svg']


def test_notes_are_plotted_over_their_energy():
  """A sine at A4 for half a second and its note: the loudest row and frames of the plot lie in the note's rectangle."""
  config = spectrograms.SpectrogramConfig()
  time = np.arange(round(2.048 * 16000)) / 16000
  sounds = (time >= 0.8) & (time < 1.3)
  log_mel = spectrograms.compute_spectrogram(0.3 * np.sin(2 * np.pi * 440 * time) * sounds, config)
  notes = as_notes([(0.8, 1.3, 69, 100, 40, 0), (0.9, 0.91, 38, 100, 0, 1)])
  panels = [Panel('prior', None, None), Panel('own', log_mel, notes)]
  figure = plot_segments(None, [panels], config, 2.048, 'A4')
  empty, axes = figure.axes
  assert not empty.images and not empty.collections
  (image,) = axes.images
  left, right, low, high = image.get_extent()
  pixels = np.asarray(image.get_array())
  row, column = np.unravel_index(pixels.argmax(), pixels.shape)
  assert low + (row + 0.5) * (high - low) / pixels.shape[0] == pytest.approx(69, abs=0.3)
  assert 0.8 < left + (column + 0.5) * (right - left) / pixels.shape[1] < 1.3
  loud = np.flatnonzero(pixels[row] > pixels[row].max() - np.log(2))
  frames = left + loud[[0, -1]] * (right - left) / pixels.shape[1]
  np.testing.assert_allclose(frames, [0.8, 1.3], atol=0.04)
  corners = axes.collections[0].get_paths()[0].vertices
  np.testing.assert_allclose([corners.min(0), corners.max(0)], [[0.8, 68.5], [1.3, 69.5]])
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ['Violin', 'Drums']
  (drum,) = axes.lines
  assert drum.get_xdata() == [0.9]


def test_mel_place_is_the_place_of_the_loudest_filter():
  config = spectrograms.SpectrogramConfig()
  bank = spectrograms.mel_filterbank(config)
  for fft_bin in (40, 100, 400):
    pitch = 69 + 12 * np.log2(fft_bin * 16000 / 2048 / 440)
    assert bank[fft_bin].argmax() == round(float(mel_place(pitch, config)))


def _spectrum(samples, low, high):
  """Return the magnitudes of a stretch of samples and their frequencies, Hz."""
  stretch = samples[round(low * 16000) : round(high * 16000)]
  return np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)), 1 << 14)), np.fft.rfftfreq(1 << 14, 1 / 16000)


def test_audio_and_tokens_sound_alike(known, tmp_path, capsys):
  inspect(
    capsys, 'own_folder', '--data', known, *SMALL, '--gin.ExampleConfig.sampling=grid', '--n', 4, '--audio', tmp_path
  )
  source, _ = soundfile.read(known / 'song.wav')
  assert len(list(tmp_path.iterdir())) == 12
  places = []
  for number in range(1, 5):
    audio, rate = soundfile.read(tmp_path / f'example{number}_song_audio.wav')
    tokens, _ = soundfile.read(tmp_path / f'example{number}_song_tokens.wav')
    both, _ = soundfile.read(tmp_path / f'example{number}_song_both.wav')
    assert rate == 16000 and len(audio) == len(tokens)
    np.testing.assert_allclose(both, np.stack([audio, tokens], axis=-1), atol=1e-4)
    place = next(k for k in range(4) if np.abs(source[k * 8192 :][: len(audio)][:7000] - audio[:7000]).max() < 1e-3)
    places.append(place)
    if place == 0:
      begins = [np.flatnonzero(np.abs(x) > 0.05 * np.abs(x).max())[0] / rate for x in (audio, tokens)]
      assert begins[0] == pytest.approx(0.1, abs=0.02) and begins[1] == pytest.approx(begins[0], abs=0.012)
      for sound in (audio, tokens):
        magnitude, hz = _spectrum(sound, 0.15, 0.45)
        assert hz[magnitude.argmax()] / 261.6 == pytest.approx(
          2, rel=0.02
        )  # this piano's second partial is the louder one
      assert np.sqrt(np.mean(tokens**2)) == pytest.approx(np.sqrt(np.mean(audio**2)), rel=0.05)
    if place == 1:
      envelopes = [np.sqrt(np.convolve(x**2, np.ones(400) / 400, 'same'))[::160] for x in (audio, tokens)]
      assert np.corrcoef(*envelopes)[0, 1] > 0.8
  assert {0, 1} <= set(places)  # the others are silent


def test_notes_of_a_segment_are_those_of_the_piece_within_it():
  rng = np.random.default_rng(3)
  compared = 0
  for _ in range(20):
    onset = rng.uniform(0, 9, 60)
    notes = as_notes(
      np.stack(
        [
          onset,
          onset + rng.uniform(0.1, 3, 60),
          rng.integers(40, 60, 60),
          np.full(60, 90),
          rng.choice([0, 33, 40], 60),
          rng.random(60) < 0.2,
        ],
        axis=-1,
      )
    )
    notes['program'][notes['is_drum']] = 0
    notes = trim_overlapping_notes(notes)
    events = segment_targets.encode_piece(notes, CODEC)
    segments = [segment_targets.segment_targets(events, 256 * k, 256, codec=CODEC) for k in range(6)]
    whole, _ = note_sequences.decode_piece(segments, [256 * k for k in range(6)], CODEC)
    for k, tokens in enumerate(segments):
      begin = segment_targets.covering_step(256 * k, CODEC) / 100
      end = segment_targets.covering_step(256 * (k + 1), CODEC) / 100
      wanted = {
        (
          n['pitch'],
          n['program'],
          n['is_drum'],
          round(max(n['onset'] - begin, 0), 4),
          round(min(n['offset'], end) - begin, 4),
        )
        for n in whole
        if n['onset'] < end and n['offset'] > begin + 1e-9
      }
      found = {
        (n['pitch'], n['program'], n['is_drum'], round(n['onset'], 4), round(n['offset'], 4))
        for n in inspection_statistics.segment_notes(tokens, CODEC, end - begin)
      }
      compared += len(found)
      # A note that ends with the segment before is tied and ends at once.
      assert wanted == {row for row in found if not (row[3] == 0 and row[4] == 0.01 and row not in wanted)}
  assert compared > 1000


def test_invalid_tokens_are_shown_and_not_fatal():
  tokens = np.array([PROGRAM + 40, PITCH + 60, TIE, 0, 2, 1500, SHIFT + 5, SHIFT + 7, ON, PITCH + 62, OFF, DRUM + 36])
  kinds = [(event.kind, event.pitch, event.time) for event in inspection_statistics.read_events(tokens, CODEC)]
  assert kinds == [('tie', 60, 0), ('?', 0, 0), ('?', 2, 0), ('?', 1500, 0), ('on', 62, 0.12), ('on', 36, 0.12)]
  shares = inspection_statistics.token_shares(tokens, CODEC)
  assert shares['other'] == 3 / 12 and shares['EOS'] == 0
  assert inspection_statistics.event_lines(tokens, CODEC)[-1].strip() == 'no EOS: truncated'
  assert [line.strip() for line in inspection_statistics.event_lines(np.array([TIE, EOS]), CODEC)] == ['no events']
  bins = vocabularies.build_codec(vocabularies.VocabularyConfig(num_velocity_bins=127))
  loud = np.array([bins.event_type_range('velocity')[0] + 3 + 64, PITCH + 60, EOS])
  assert 'on   64' in inspection_statistics.event_lines(loud, bins)[0]


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['nothing'], 'own_folder, slakh'),
    (['mt3_records', '--data', 'DATA'], "'name'"),
    (['mt3_records', '--data', 'DATA', '--gin.mt3_records.task.name=x'], 'unknown data set'),
    (['slakh'], '--data DIR'),
    (['slakh', '--data', 'nowhere'], 'nowhere'),
    (['nothing', '--data', 'nowhere'], "unknown task 'nothing'"),
    (['slakh', '--data', 'DATA', '--split', 'omitted'], 'it has train, test'),
    (['slakh', '--data', 'DATA', '--n', '-1'], '--n is -1'),
    (['slakh', '--data', 'DATA', '--n', '0', '--plot', 'a.png'], '--n 1'),
    (['slakh', '--data', 'DATA', '--examples', '0'], '--examples is 0'),
    (['slakh', '--data', 'DATA', '--length', '0'], '--length is 0'),
    (['slakh', '--data', 'DATA', '--plot', 'a.gif'], "'.gif'"),
    (['slakh', '--data', 'DATA', *SMALL, '--examples', '2', '--plot', 'file/a.png'], 'file'),
    (['slakh', '--data', 'DATA', '--audio', 'file'], 'file'),
    (['slakh', '--data', 'DATA', *SMALL, '--examples', '2', '--json', 'file/a.json'], 'file'),
    (['slakh', '--data', 'DATA', '--gin.ExampleConfig.max_hop=0'], 'max_hop is 0'),
    (['slakh', '--data', 'DATA', '--gin.ExampleConfig.hops=1'], 'hops'),
    (['slakh', '--data', 'DATA', '--gin.Nothing.max_hop=1'], 'Nothing'),
    (['slakh', '--data', 'DATA', '--gin.SEED'], '--gin.SEED=VALUE'),
    (['slakh', '--data', 'DATA', '--gin_file=nothing.gin'], 'nothing.gin'),
    (['train', *RUN], 'DATA_DIR is not set'),
    (['train', '--gin_file=models/tiny.gin'], "no data set 'train'"),
    (['a/b', *RUN], "'a/b'"),
    (['train_eval', *RUN, '--gin.DATA_DIR=DATA'], "no split 'validation'"),
    (['name', '--module', 'no_such_module'], 'no_such_module'),
  ],
)
def test_mistakes_are_one_line(arguments, message, small_data, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').write_text('')
  assert (
    main(
      [
        'inspect',
        *(
          word.replace('DATA', str(small_data)) if 'DATA_DIR=' not in word else f'--gin.DATA_DIR={small_data}'
          for word in arguments
        ),
      ]
    )
    == 2
  )
  errors = capsys.readouterr().err
  assert len(errors.splitlines()) == 1 and errors.startswith('mrmt3: error: ') and message in errors
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_without_a_synthesizer_it_says_what_to_install(small_data, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'symusic', None)
  assert main(['inspect', 'slakh', '--data', str(small_data), '--audio', str(tmp_path / 'a')]) == 2
  assert 'mrmt3[dataset]' in capsys.readouterr().err and not (tmp_path / 'a').exists()


def test_a_full_disk_is_one_line(known, capsys):
  assert main(['inspect', 'own_folder', '--data', str(known), *SMALL, '--examples', '2', '--json', '/dev/full']) == 2
  errors = capsys.readouterr().err
  assert 'No space left' in errors and len(errors.splitlines()) == 1
