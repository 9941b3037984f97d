"""MT3's tasks with their names, from a record to scores and predictions on disk."""

import dataclasses
import functools
import io
import json

import numpy as np
import pytest

pytest.importorskip('note_seq')
seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')

from mrmt3 import (  # noqa: E402
  datasets,
  inference,
  metrics,
  mixing,
  note_sequences,
  preprocessors,
  spectrograms,
  summaries,
  tasks,
  vocabularies,
)
from mrmt3.data import mt3_postprocessing  # noqa: E402
from mrmt3.notes.note_array import as_notes, trim_overlapping_notes  # noqa: E402
from mrmt3.notes.note_sequence_protos import notes_to_note_sequence  # noqa: E402
from mrmt3.tokens.segment_targets import encode_piece, segment_targets  # noqa: E402

FRAMES = 64
LENGTHS = {'inputs': FRAMES, 'targets': 512}
CODEC = vocabularies.build_codec(tasks.VOCAB_CONFIG_NOVELOCITY)
VOCABULARY = vocabularies.vocabulary_from_codec(CODEC)
SPECTROGRAM = spectrograms.SpectrogramConfig(num_mel_bins=32)
SAMPLES = FRAMES * 128 * 5  # a multiple of the hop, so there is one more frame
STEMS = {'Acoustic Piano': (0, False), 'Drums': (0, True), 'Electric Bass': (33, False)}


def make_notes(seed):
  rng = np.random.default_rng(seed)
  rows = []
  for program, is_drum in STEMS.values():
    for _ in range(25):
      onset = rng.uniform(0, 2.5)
      rows.append((onset, onset + rng.uniform(0.05, 0.6), rng.integers(50, 60), rng.integers(1, 128), program, is_drum))
  return as_notes(rows)


def feature(value):
  value = np.asarray(value)
  if value.dtype.kind in 'SO':
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=value.ravel().tolist()))
  if value.dtype.kind == 'f':
    return tf.train.Feature(float_list=tf.train.FloatList(value=value.ravel()))
  return tf.train.Feature(int64_list=tf.train.Int64List(value=value.ravel()))


def slakh_record(seed, notes):
  stems = [notes[(notes['is_drum'] == drum) & (notes['program'] == program)] for program, drum in STEMS.values()]
  values = {
    'audio_sample_rate': 16000,
    'stems_shape': [0, 0],
    'target_type': b'',
    'track_id': f'Track{seed}'.encode(),
    'mix': np.random.default_rng(seed).uniform(-0.5, 0.5, SAMPLES).astype(np.float32),
    'inst_names': [name.encode() for name in STEMS],
    'note_sequences': [notes_to_note_sequence(stem).SerializeToString() for stem in stems],
  }
  return tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in values.items()}))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Register tasks over two records; return (base name, notes by track)."""
  path = tmp_path_factory.mktemp('records') / 'slakh.tfrecord'
  notes = {f'Track{seed}': make_notes(seed) for seed in (1, 2)}
  with tf.io.TFRecordWriter(str(path)) as writer:
    for seed, table in zip((1, 2), notes.values(), strict=True):
      writer.write(slakh_record(seed, table).SerializeToString())
  config = dataclasses.replace(
    datasets.SLAKH_CONFIG,
    name='small',
    paths=dict.fromkeys(datasets.SLAKH_CONFIG.paths, str(path)),
    track_specs=[note_sequences.TrackSpec('bass', 33), note_sequences.TrackSpec('drums', 0, True)],
  )
  tokenize = functools.partial(preprocessors.tokenize_slakh_example, track_specs=None, ignore_pitch_bends=True)
  tasks.add_transcription_task_to_registry(
    config, SPECTROGRAM, tasks.VOCAB_CONFIG_NOVELOCITY, tokenize, onsets_only=False, include_ties=True
  )
  return 'small_notes_ties_mb32_vb1', notes


def examples(name, split, **options):
  task = seqio.get_mixture_or_task(name)
  return list(task.get_dataset(LENGTHS, split, use_cached=False, **options).as_numpy_iterator())


def test_published_tasks_are_registered():
  names = set(seqio.TaskRegistry.names())
  assert {'slakh_notes_ties_vb1_train', 'maestrov3_notes_test', 'urmp_notes_ties_vb1_eval_train'} <= names
  assert {'mega_notes_ties_vb1_train', 'mega_notes_ties_vb1_eval'} <= set(seqio.MixtureRegistry.names())
  mega = seqio.MixtureRegistry.get('mega_notes_ties_vb1_train')
  assert {task.name.split('_notes')[0] for task in mega.tasks} == set(tasks.MIXTURE_DATASET_NAMES)
  subset = seqio.MixtureRegistry.get('slakh_notes_ties_vb1_eval')
  assert {task.name.rsplit('vb1_')[1] for task in subset.tasks} == {'eval_train', 'validation'}
  assert tasks.construct_task_name('maestrov3_notes', task_suffix='train') == 'maestrov3_notes_train'
  assert tasks.construct_task_name('a', SPECTROGRAM, tasks.VOCAB_CONFIG_NOVELOCITY) == 'a_mb32_vb1'


def test_training_examples_are_segments_of_the_piece(data):
  name, notes = data
  pieces = [encode_piece(trim_overlapping_notes(table), CODEC) for table in notes.values()]
  frames = SAMPLES // 128 + 1
  known = {  # every segment there can be, by its first samples and its length
    segment_targets(
      piece, max(start, 0), min(start + FRAMES, frames) - max(start, 0), codec=CODEC, piece_frames=frames
    ).tobytes()
    for piece in pieces
    for start in range(1 - FRAMES, frames)
  }
  drawn = examples(f'{name}_train', 'train', shuffle=False, seed=3, num_epochs=15)
  assert len(drawn) == 30
  assert len({example['targets'].tobytes() for example in drawn}) > 20
  for example in drawn:
    assert example['targets'].astype(np.int32).tobytes() in known
    assert example['inputs'].shape[1] == 32
    expected = spectrograms.compute_spectrogram(example['raw_inputs'], SPECTROGRAM)
    np.testing.assert_allclose(example['inputs'], expected, atol=5e-3)
  again = examples(f'{name}_train', 'train', shuffle=False, seed=3, num_epochs=15)
  assert all(np.array_equal(a['inputs'], b['inputs']) for a, b in zip(drawn, again, strict=True))


def truth(segments, notes):
  """The target tokens of evaluation examples, which have none: the predictions of a perfect model."""
  pieces = [encode_piece(trim_overlapping_notes(table), CODEC) for table in notes.values()]
  tokens, starts = [], [0] * len(pieces)
  for example in segments:
    number = int(example['unique_id'][0])
    tokens.append(segment_targets(pieces[number], starts[number], FRAMES, codec=CODEC, piece_frames=SAMPLES // 128 + 1))
    starts[number] += FRAMES
  return tokens


def test_evaluation_scores_and_files(data, tmp_path):
  name, notes = data
  segments = examples(f'{name}_test', 'eval', shuffle=False)
  assert [len(example['inputs']) for example in segments] == [64, 64, 64, 64, 64, 1] * 2
  assert segments[0]['targets'].tolist() == [1]
  tokens = truth(segments, notes)
  task = seqio.get_mixture_or_task(f'{name}_test')
  decoded = [VOCABULARY.decode_tf(tf.constant(ids)).numpy() for ids in tokens]
  made = [
    [
      task.postprocess_fn(ids, example=example, is_target=is_target)
      for ids, example in zip(decoded, segments, strict=True)
    ]
    for is_target in (True, False)
  ]
  assert [prediction['start_time'] for prediction in made[1][:4]] == [0.0, 0.51, 1.02, 1.53]
  (score,) = task.metric_fns
  scores = score(*made)
  assert scores['Invalid events'] == scores['Dropped events'] == 0
  perfect = ('Onset F1', 'drums/Onset F1', 'bass/Onset F1', 'Drum onset F1 (flat)')
  assert [scores[name] for name in perfect] == pytest.approx([1.0] * 4, abs=0.06)  # references are not trimmed
  assert 0.7 < scores['Onset + offset + program F1 (full)'] <= 1
  assert 0 < scores['Frame F1'] <= 1
  assert 'drums/Onset + offset F1' not in scores
  assert len(scores['Onset F1 (hist)'].values) == 2
  assert scores['pianoroll'].image.shape[0] == 2

  path = tmp_path / 'notes.jsonl'

  class Dataset:
    def as_numpy_iterator(self):
      return iter(segments)

  write = functools.partial(
    inference.write_inferences_to_file,
    str(path),
    task_ds=Dataset(),
    vocab_config=tasks.VOCAB_CONFIG_NOVELOCITY,
    onsets_only=False,
    use_ties=True,
    vocabulary=VOCABULARY,
  )
  padded = [np.pad(ids, (0, 512 - len(ids))) for ids in tokens]
  write(inferences=padded, mode='predict')
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line['id'] for line in lines] == list(notes)
  assert [len(line['est_notes']) for line in lines] == [len(trim_overlapping_notes(table)) for table in notes.values()]
  written = path.read_text()
  write(inferences=([ids.tolist() for ids in padded], {'scores': []}), mode='predict')  # as t5x's infer passes them
  assert path.read_text() == written
  with pytest.raises(ValueError, match='score'):
    write(inferences=padded, mode='score')


def test_a_silent_model_scores_zero(data):
  name, _ = data
  segments = examples(f'{name}_test', 'eval', shuffle=False)
  task = seqio.get_mixture_or_task(f'{name}_test')
  targets = [task.postprocess_fn([], example=example, is_target=True) for example in segments]
  silent = [task.postprocess_fn([-1], example=example, is_target=False) for example in segments]
  scores = task.metric_fns[0](targets, silent)
  for name in ('Onset F1', 'Onset + offset + velocity F1', 'Frame F1', 'Onset + offset + program F1 (flat)'):
    assert scores[name] == 0
  with pytest.raises(ValueError, match='pieces'):
    metrics.transcription_metrics(targets, silent[:6], CODEC, SPECTROGRAM, False, True)


def test_start_times():
  times = np.arange(0, 4000 * 256, 256, dtype=np.int64)
  steps = [mt3_postprocessing.segment_start_time(np.float32(frame / 125), CODEC) for frame in times[:1000]]
  np.testing.assert_allclose(steps, times[:1000] * 100 // 125 / 100)
  assert mt3_postprocessing.segment_start_time(30.72, CODEC, 'float') == pytest.approx(30.71)
  with pytest.raises(ValueError, match='start_times'):
    mt3_postprocessing.segment_start_time(0.0, CODEC, 'now')


def wav(samples, rate):
  import soundfile

  file = io.BytesIO()
  soundfile.write(file, samples, rate, format='WAV')
  return file.getvalue()


def dataset_of(record):
  return tf.data.Dataset.from_tensors({key: tf.constant(value) for key, value in record.items()})


def test_other_records_are_tokenized():
  notes = make_notes(5)
  pitched = notes[~notes['is_drum']]
  ns = notes_to_note_sequence(pitched)
  sound = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
  common = {
    'spectrogram_config': SPECTROGRAM,
    'codec': CODEC,
    'is_training_data': True,
    'onsets_only': False,
    'include_ties': True,
  }
  record = {'sequence': ns.SerializeToString(), 'audio': wav(sound, 8000), 'id': b'a'}

  def tokenized(function, record, **options):
    (example,) = function(dataset_of(record), **{**common, **options}).as_numpy_iterator()
    return example

  maestro = tokenized(preprocessors.tokenize_transcription_example, record, audio_is_samples=False, id_feature_key='id')
  assert maestro['inputs'].shape == (16000 // 128 + 1, 128)
  assert 'audio' not in maestro
  musicnet = tokenized(
    preprocessors.tokenize_transcription_example,
    {**record, 'audio': sound.astype(np.float32), 'sample_rate': np.float32(8000)},
    audio_is_samples=True,
  )
  np.testing.assert_allclose(musicnet['inputs'], maestro['inputs'], atol=1e-3)
  np.testing.assert_array_equal(musicnet['targets'], maestro['targets'])
  guitar = tokenized(preprocessors.tokenize_guitarset_example, record)
  first, last = CODEC.event_type_range('program')
  assert set(guitar['targets'][(guitar['targets'] >= first) & (guitar['targets'] <= last)] - first) == {24}
  urmp = tokenized(
    preprocessors.tokenize_example_with_program_lookup,
    {'instrument_sequences': [ns.SerializeToString()] * 2, 'inst_names': [b'vn', b'fl'], 'audio': record['audio']},
    inst_name_to_program_fn=preprocessors.urmp_instrument_to_program,
  )
  assert set(urmp['targets'][(urmp['targets'] >= first) & (urmp['targets'] <= last)] - first) == {40, 73}
  onsets = tokenized(
    preprocessors.tokenize_transcription_example,
    record,
    audio_is_samples=False,
    onsets_only=True,
    include_ties=False,
  )
  assert np.count_nonzero(onsets['targets'] > CODEC.max_shift_steps) == len(pitched)
  with pytest.raises(ValueError, match='ties'):
    tokenized(preprocessors.tokenize_guitarset_example, record, onsets_only=True)
  with pytest.raises(ValueError, match='sample_rate'):
    tokenized(preprocessors.tokenize_transcription_example, record, audio_is_samples=True)


def test_pitch_bends_leave_a_record_out(data):
  ns = notes_to_note_sequence(make_notes(5)[:3])
  ns.pitch_bends.add(time=0.1, bend=100)
  record = {
    'note_sequences': [ns.SerializeToString()],
    'mix': np.zeros(999, np.float32),
    'audio_sample_rate': np.int64(16000),
    'inst_names': [b'Violin'],
    'track_id': b'a',
  }
  made = [
    list(
      preprocessors.tokenize_slakh_example(
        dataset_of(record), SPECTROGRAM, CODEC, True, False, True, track_specs=None, ignore_pitch_bends=ignore
      )
    )
    for ignore in (True, False)
  ]
  assert [len(x) for x in made] == [1, 0]
  with pytest.raises(preprocessors.PitchBendError):
    preprocessors.add_track_to_notesequence(
      notes_to_note_sequence(as_notes([])), ns, 3, False, ignore_pitch_bends=False
    )


def test_names_of_instruments():
  assert preprocessors.slakh_class_to_program_and_is_drum('Drums') == (0, True)
  assert preprocessors.slakh_class_to_program_and_is_drum('Pipe') == (73, False)
  assert preprocessors.urmp_instrument_to_program('sax') == 64
  for function in (
    preprocessors.slakh_class_to_program_and_is_drum,
    preprocessors.urmp_instrument_to_program,
    preprocessors.guitarset_instrument_to_program,
  ):
    with pytest.raises(ValueError, match='theremin'):
      function('theremin')


FEATURES = {'targets': seqio.Feature(VOCABULARY), 'inputs': seqio.ContinuousFeature(dtype=tf.float32, rank=1)}


def test_mixing_sums_sounds_and_merges_targets():
  records = [
    {'inputs': np.full(4, level, np.float32), 'targets': np.array([5 * i + 1, 1010 + i], np.int32)}
    for i, level in enumerate((0.25, 0.5, 1.0))
  ]
  signature = {'inputs': tf.TensorSpec([None], tf.float32), 'targets': tf.TensorSpec([None], tf.int32)}
  ds = tf.data.Dataset.from_generator(lambda: iter(records), output_signature=signature).repeat(30)
  mix = functools.partial(
    mixing.mix_transcription_examples, sequence_length=LENGTHS, output_features=FEATURES, codec=CODEC
  )
  assert mix(ds) is ds
  mixes = list(mix(ds, max_examples_per_mix=2).take(60).as_numpy_iterator())
  sizes = [len(example['targets']) for example in mixes]
  assert set(sizes) == {2, 3, 4}  # one; two of the same step, which share the shift; two of others
  for example in mixes:
    np.testing.assert_allclose(example['inputs'], 1.0)
    shifts = example['targets'][example['targets'] <= CODEC.max_shift_steps]
    assert (np.diff(shifts) > 0).all()


def test_too_long_is_an_error_or_left_out():
  ds = tf.data.Dataset.from_tensor_slices({'targets': np.arange(12, dtype=np.int32).reshape(2, 6)})
  check = functools.partial(preprocessors.handle_too_long, ds, {'targets': FEATURES['targets']})
  assert len(list(check({'targets': 7}))) == 2
  with pytest.raises(tf.errors.InvalidArgumentError, match='maximum length'):
    list(check({'targets': 6}))
  assert not list(check({'targets': 6}, skip=True))


def test_splitting_and_choosing():
  ds = tf.data.Dataset.from_tensors({'inputs': np.arange(7), 'more': np.arange(7) * 2, 'all': [9], 'gone': [1]})
  keys = {'feature_key': 'inputs', 'additional_feature_keys': ['more'], 'passthrough_feature_keys': ['all']}
  split = list(preprocessors.split_tokens(ds, 3, **keys).as_numpy_iterator())
  assert [x['inputs'].tolist() for x in split] == [[0, 1, 2], [3, 4, 5], [6]]
  assert [x['more'].tolist() for x in split] == [[0, 2, 4], [6, 8, 10], [12]]
  assert all(set(x) == {'inputs', 'more', 'all'} for x in split)
  select = functools.partial(
    preprocessors.select_random_chunk, ds.repeat(300), {'inputs': 3}, {'inputs': FEATURES['inputs']}, **keys
  )
  free = [tuple(x['inputs']) for x in select(uniform_random_start=True).as_numpy_iterator()]
  assert set(free) == {(0,), (0, 1), *((i, i + 1, i + 2) for i in range(5)), (5, 6), (6,)}
  assert {tuple(x['inputs']) for x in select().as_numpy_iterator()} == {(0, 1, 2), (3, 4, 5), (6,)}


def test_summaries_show_reference_and_estimate():
  reference, estimate = (
    notes_to_note_sequence(as_notes([(1.0, 2.0, 60, 80, 0, 0), row]))
    for row in ((3.0, 4.0, 62, 80, 33, 0), (3.0, 4.0, 64, 80, 33, 0))
  )
  predictions = [{'est_ns': estimate, 'start_times': [0.0, 2.0], 'raw_inputs': np.ones(100)}]
  specs = [note_sequences.TrackSpec('piano'), note_sequences.TrackSpec('bass', 33)]
  made = summaries.transcription_summaries(
    [{'ref_ns': reference}], predictions, SPECTROGRAM, 'ns', track_specs=specs, num_seconds=5.0
  )
  roll = made['pianoroll'].image
  assert roll.shape == (1, 257, 75, 3)
  sounding = roll[0, ::-1, :, 1:] > 0  # lowest pitch first, bass below piano
  assert sounding[129 + 60, 15:30].all()
  assert not sounding[129 + 60, :14].any()
  assert sounding[62, 45:60, 0].all() and sounding[64, 45:60, 1].all() and not sounding[62, :, 1].any()
  assert (roll[0, ::-1][128, :, 0] == 1).all()
  assert (roll[0, :, 30, 0] > 0).all()  # where a segment begins
  audio = made['input_with_transcription'].audiodata
  assert audio.shape == (1, 80000, 2)
  assert audio[0, :101, 0].tolist() == [1.0] * 100 + [0.0]
  by_frequency = {
    'ref_onsets': [1.0],
    'ref_hz': [440.0],
    'ref_confidence': [0.5],
    'est_onsets': [1.0],
    'est_hz': [440.0],
    'est_confidence': [0.5],
    'start_times': [],
    'raw_inputs': np.ones(9),
  }
  made = summaries.transcription_summaries(
    [by_frequency],
    [by_frequency],
    SPECTROGRAM,
    note_onset_feature_suffix='onsets',
    note_frequency_feature_suffix='hz',
    note_confidence_feature_suffix='confidence',
    num_seconds=2.0,
  )
  assert (made['onset_pianoroll'].image[0, ::-1][69, 15, 1:] > 0).all()
  with pytest.raises(ValueError, match='exactly one'):
    summaries.transcription_summaries([], [], SPECTROGRAM)
