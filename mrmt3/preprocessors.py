"""MT3's seqio preprocessors, under its names: records to audio frames and tokens, then model inputs and targets.

The `tokenize_*` functions turn a record of MT3's data sets into audio frames and the piece's tokens with an index by
frame; the others split, select and pad such examples. Our own tasks (`tasks.registration`) go straight from note arrays to
the tokens of a segment. Imports TensorFlow, and note_seq once records are read.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

import gin
from mrmt3 import note_sequences, run_length_encoding, spectrograms
from mrmt3.audio.files import decode_audio, resample
from mrmt3.data.records.layouts import URMP_PROGRAMS
from mrmt3.event_codec import Codec
from mrmt3.notes import note_sequence_protos
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.notes.note_sequence_protos import TrackSpec
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.tokens import note_events
from mrmt3.vocabularies import PROGRAM_GRANULARITIES

_GUITAR, _GUITAR_PROGRAM = 'Clean Guitar', 24

_INTS = ('targets', 'input_event_start_indices', 'input_event_end_indices', 'state_events', 'input_state_event_indices')


class PitchBendError(Exception):
  """A track has pitch bends, which tokens cannot say."""


def guitarset_instrument_to_program(instrument: str) -> int:
  """Returns 24, the first guitar, for GuitarSet's only instrument, 'Clean Guitar'; ValueError for others."""
  if instrument != _GUITAR:
    raise ValueError(f'unknown GuitarSet instrument {instrument!r}: there is only {_GUITAR!r}')
  return _GUITAR_PROGRAM


def urmp_instrument_to_program(urmp_instrument: str) -> int:
  """Returns the program of an URMP instrument code such as 'vn'; ValueError for an unknown one."""
  if urmp_instrument not in URMP_PROGRAMS:
    raise ValueError(f'unknown URMP instrument {urmp_instrument!r}: choose one of {", ".join(URMP_PROGRAMS)}')
  return URMP_PROGRAMS[urmp_instrument]


def slakh_class_to_program_and_is_drum(slakh_class: str) -> tuple[int, bool]:
  """Returns (program, is_drum) of a Slakh class or 'Drums'; ValueError for an unknown one."""
  if slakh_class == 'Drums':
    return 0, True
  if slakh_class not in SLAKH_CLASSES:
    raise ValueError(f'unknown Slakh class {slakh_class!r}: choose one of {", ".join(SLAKH_CLASSES)} or Drums')
  return SLAKH_CLASSES[slakh_class], False


def add_track_to_notesequence(ns, track, program: int, is_drum: bool, ignore_pitch_bends: bool) -> None:
  """Adds a track's notes, held by its sustain pedal, to a NoteSequence under a program.

  Raises:
    PitchBendError: the track has pitch bends, and they are not to be ignored.
  """
  if track.pitch_bends and not ignore_pitch_bends:
    raise PitchBendError('the track has pitch bends')
  for note in _sustained(track).notes:
    note.program, note.is_drum = program, is_drum
    ns.notes.add().CopyFrom(note)
    ns.total_time = max(ns.total_time, note.end_time)


def tokenize_transcription_example(
  ds: tf.data.Dataset,
  spectrogram_config: SpectrogramConfig,
  codec: Codec,
  is_training_data: bool,
  onsets_only: bool,
  include_ties: bool,
  audio_is_samples: bool,
  id_feature_key: str | None = None,
) -> tf.data.Dataset:
  """Tokenizes records with one NoteSequence ('sequence') and one sound ('audio').

  Args:
    ds: the records.
    spectrogram_config: sample rate and hop.
    codec: the codec of the tokens.
    is_training_data: unused; such notes are never trimmed (as MT3).
    onsets_only: whether tokens say only what begins.
    include_ties: whether to write the states that tie sections are made of.
    audio_is_samples: whether 'audio' is float samples at 'sample_rate' and not a wav file.
    id_feature_key: feature that becomes the NoteSequence's id.

  Returns:
    the records, without 'audio', and: inputs `[frames, hop]` float32 samples, input_times `[frames]` float32 s, and what
    `run_length_encoding.encode_and_index_events` returns as targets, input_event_start_indices, input_event_end_indices,
    state_events and input_state_event_indices, all int32; sequence, the serialized NoteSequence, pedals applied.

  Raises:
    ValueError: ties with onsets only; samples without 'sample_rate'.
  """
  del is_training_data

  def read(sequence, audio, sample_rate=None):
    ns = _parsed(sequence)
    note_sequences.validate_note_sequence(ns)
    ns = ns if onsets_only else _sustained(ns)
    samples = (
      _resampled(audio, sample_rate, spectrogram_config) if audio_is_samples else _decoded(audio, spectrogram_config)
    )
    return ns, samples

  if audio_is_samples and 'sample_rate' not in ds.element_spec:
    raise ValueError('records whose audio is samples need a feature sample_rate')
  features = ['sequence', 'audio', *(['sample_rate'] if audio_is_samples else [])]
  return _tokenize(ds, read, features, id_feature_key, spectrogram_config, codec, onsets_only, include_ties, ('audio',))


def tokenize_guitarset_example(
  ds: tf.data.Dataset,
  spectrogram_config: SpectrogramConfig,
  codec: Codec,
  is_training_data: bool,
  onsets_only: bool,
  include_ties: bool,
) -> tf.data.Dataset:
  """Tokenizes GuitarSet's records as `tokenize_example_with_program_lookup`, all notes being a guitar's."""

  def name_instrument(record):
    others = {key: value for key, value in record.items() if key != 'sequence'}
    return {**others, 'inst_names': [_GUITAR], 'instrument_sequences': [record['sequence']]}

  return tokenize_example_with_program_lookup(
    ds.map(name_instrument, num_parallel_calls=tf.data.AUTOTUNE),
    spectrogram_config,
    codec,
    is_training_data,
    onsets_only,
    include_ties,
    guitarset_instrument_to_program,
    'id',
  )


def tokenize_example_with_program_lookup(
  ds: tf.data.Dataset,
  spectrogram_config: SpectrogramConfig,
  codec: Codec,
  is_training_data: bool,
  onsets_only: bool,
  include_ties: bool,
  inst_name_to_program_fn: Callable[[str], int],
  id_feature_key: str | None = None,
) -> tf.data.Dataset:
  """Tokenizes records with a NoteSequence for each player ('instrument_sequences') and one sound ('audio', a wav file).

  See `tokenize_transcription_example` for the other arguments.

  Args:
    inst_name_to_program_fn: a name in 'inst_names' -> program.

  Returns:
    see `tokenize_transcription_example`. A pitch bend is an error (`PitchBendError`).
  """
  del is_training_data

  def read(sequences, names, audio):
    tracks = [(inst_name_to_program_fn(name.decode()), False) for name in names]
    ns = _join_tracks(sequences, tracks, ignore_pitch_bends=False)
    return ns, _decoded(audio, spectrogram_config)

  features = ['instrument_sequences', 'inst_names', 'audio']
  return _tokenize(ds, read, features, id_feature_key, spectrogram_config, codec, onsets_only, include_ties, ('audio',))


def tokenize_slakh_example(
  ds: tf.data.Dataset,
  spectrogram_config: SpectrogramConfig,
  codec: Codec,
  is_training_data: bool,
  onsets_only: bool,
  include_ties: bool,
  track_specs: Sequence[TrackSpec] | None,
  ignore_pitch_bends: bool,
) -> tf.data.Dataset:
  """Tokenizes records of Slakh and Cerberus4: a NoteSequence a stem ('note_sequences') and the mix ('mix', samples).

  See `tokenize_transcription_example` for the other arguments.

  Args:
    is_training_data: whether to trim overlapping notes, which tokens cannot say.
    track_specs: the stems' names, programs and is_drum, in the order of 'inst_names'; None: those are Slakh classes.
    ignore_pitch_bends: False leaves records with pitch bends out.

  Returns:
    see `tokenize_transcription_example`; 'mix' and 'stems' are dropped.
  """

  def read(sequences, mix, sample_rate, names):
    names = [name.decode() for name in names]
    if track_specs and names != [spec.name for spec in track_specs]:
      raise ValueError(f'instruments {names} are not the expected {[spec.name for spec in track_specs]}')
    if track_specs:
      tracks = [(spec.program, spec.is_drum) for spec in track_specs]
    else:
      tracks = [slakh_class_to_program_and_is_drum(name) for name in names]
    try:
      ns = _join_tracks(sequences, tracks, ignore_pitch_bends)
    except PitchBendError:
      return None
    ns = note_sequences.trim_overlapping_notes(ns) if is_training_data else ns
    return ns, _resampled(mix, sample_rate, spectrogram_config)

  features = ['note_sequences', 'mix', 'audio_sample_rate', 'inst_names']
  left_out = ('mix', 'stems')
  return _tokenize(ds, read, features, 'track_id', spectrogram_config, codec, onsets_only, include_ties, left_out)


def _parsed(sequence: bytes):
  from note_seq.protobuf import music_pb2

  return music_pb2.NoteSequence.FromString(sequence)


def _sustained(ns):
  from note_seq import sequences_lib

  return sequences_lib.apply_sustain_control_changes(ns)


def _resampled(samples, sample_rate, config) -> np.ndarray:
  return resample(samples, round(float(sample_rate)), config.sample_rate)


def _decoded(audio, config) -> np.ndarray:
  return decode_audio(audio, 'the audio of a record', config.sample_rate)


def _join_tracks(sequences, tracks, ignore_pitch_bends):
  """Returns one NoteSequence of serialized ones, each under its (program, is_drum)."""
  if len(sequences) != len(tracks):
    raise ValueError(f'{len(sequences)} note sequences do not go with {len(tracks)} instruments')
  ns = note_sequence_protos.new_note_sequence()
  for sequence, (program, is_drum) in zip(sequences, tracks, strict=True):
    add_track_to_notesequence(ns, _parsed(sequence), program, is_drum, ignore_pitch_bends)
  note_sequences.assign_instruments(ns)
  note_sequences.validate_note_sequence(ns)
  return ns


def _tokenize(ds, read, features, id_key, config, codec, onsets_only, include_ties, left_out) -> tf.data.Dataset:
  """Maps records through `read`: values of `features` -> (NoteSequence, samples), or None to leave the record out."""
  spec = note_sequences.encoding_spec(onsets_only=onsets_only, ties=include_ties)

  def tokenize(name, *values):
    made = read(*values)
    if made is None:
      return (
        False,
        np.zeros((0, config.hop_width), np.float32),
        np.zeros(0, np.float32),
        b'',
        *[np.zeros(0, np.int32)] * 5,
      )
    ns, samples = made
    if id_key is not None:
      ns.id = name
    del ns.control_changes[:]
    # Always padded by a sample at least, as MT3.
    frames = spectrograms.split_audio(np.pad(samples, (0, 1)), config).astype(np.float32)
    frame_times = np.arange(len(frames)) / config.frames_per_second
    to_events = note_events.note_sequence_to_onsets_and_offsets_and_programs
    times, events = (note_events.note_sequence_to_onsets if onsets_only else to_events)(ns)
    indexed = run_length_encoding.encode_and_index_events(
      spec.init_encoding_state_fn(),
      times,
      events,
      spec.encode_event_fn,
      codec,
      frame_times,
      spec.encoding_state_to_events_fn,
    )
    tokens, starts, ends, states, state_starts = (x.astype(np.int32) for x in indexed)
    return (
      True,
      frames,
      frame_times.astype(np.float32),
      ns.SerializeToString(),
      tokens,
      starts,
      ends,
      states,
      state_starts,
    )

  def process(record):
    kinds = (tf.bool, tf.float32, tf.float32, tf.string, *[tf.int32] * len(_INTS))
    arguments = [record[id_key] if id_key is not None else '', *(record[key] for key in features)]
    fits, frames, times, sequence, *ints = tf.numpy_function(tokenize, arguments, kinds, stateful=False)
    made = {'inputs': frames, 'input_times': times, 'sequence': sequence, **dict(zip(_INTS, ints, strict=True))}
    for key, value in made.items():
      value.set_shape({'inputs': [None, config.hop_width], 'sequence': []}.get(key, [None]))
    fits.set_shape([])
    kept = {key: value for key, value in record.items() if key not in left_out}
    return fits, {**kept, **made}

  ds = ds.map(process, num_parallel_calls=tf.data.AUTOTUNE)
  return ds.filter(lambda fits, _: fits).map(lambda _, example: example)


def add_unique_id(ds: tf.data.Dataset) -> tf.data.Dataset:
  """Adds unique_id `[1]`, the number of the example."""
  return ds.enumerate().map(lambda i, example: {**example, 'unique_id': [i]}, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def pad_notesequence_array(ex):
  """Makes `sequence` an array by frame, empty but for the first, so that it can be split with the frames."""
  count = tf.shape(ex['input_times'])[0]
  return {**ex, 'sequence': tf.concat([[ex['sequence']], tf.fill([count - 1], '')], axis=0)}


@seqio.map_over_dataset
def add_dummy_targets(ex):
  """Adds empty targets, which seqio wants even where metrics take the notes."""
  return {**ex, 'targets': tf.zeros([0], tf.int32)}


def _as_keys(keys: Sequence[str] | None) -> list[str]:
  return list(keys or ())


def split_tokens(
  dataset: tf.data.Dataset,
  max_tokens_per_segment: int,
  feature_key: str = 'targets',
  additional_feature_keys: Sequence[str] | None = None,
  passthrough_feature_keys: Sequence[str] | None = None,
) -> tf.data.Dataset:
  """Cuts an example into consecutive ones of `max_tokens_per_segment`, the last one perhaps shorter.

  Args:
    dataset: the examples; empty ones are dropped.
    max_tokens_per_segment: length.
    feature_key: feature that decides the number of segments, cut along its first axis.
    additional_feature_keys: cut with it.
    passthrough_feature_keys: kept whole in every segment. All other features are dropped.
  """
  length = max_tokens_per_segment
  cut = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def split(example, seed):
    del seed  # T5's takes one as well: so what follows draws what it draws in MT3
    count = -(-tf.shape(example[feature_key], tf.int64)[0] // length)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}

    def segment(index):
      return {**whole, **{key: example[key][index * length : (index + 1) * length] for key in cut}}

    return tf.data.Dataset.range(count).map(segment)

  return split(dataset).flat_map(lambda segments: segments)


def split_tokens_to_inputs_length(dataset, sequence_length, output_features, **kwargs) -> tf.data.Dataset:
  """As `split_tokens`, with segments of the inputs' length, one less if they end with EOS."""
  return split_tokens(dataset, _room(sequence_length, output_features, 'inputs'), **kwargs)


def select_random_chunk(
  dataset: tf.data.Dataset,
  sequence_length: Mapping[str, int],
  output_features: Mapping[str, seqio.Feature],
  feature_key: str = 'targets',
  additional_feature_keys: Sequence[str] | None = None,
  passthrough_feature_keys: Sequence[str] | None = None,
  uniform_random_start: bool = False,
) -> tf.data.Dataset:
  """Cuts one segment out of each example, at random.

  Args:
    dataset: the examples; empty ones are dropped.
    sequence_length: gives the segment's length, that of `feature_key`, one less if it ends with EOS.
    output_features: tells whether it does.
    feature_key: feature that decides the number of places, cut along its first axis.
    additional_feature_keys: cut with it.
    passthrough_feature_keys: kept whole. All other features are dropped.
    uniform_random_start: True: any segment that overlaps the example, cut short at its ends, each start as likely. False:
      one of the consecutive ones that begin at 0.
  """
  length = _room(sequence_length, output_features, feature_key)
  keys = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def select(example, seed):
    count = tf.shape(example[feature_key])[0]
    seed = tf.random.experimental.stateless_split(seed)[1]  # which T5 draws the start from
    if uniform_random_start:
      start = tf.random.stateless_uniform([], seed, 1 - length, count, tf.int32)
    else:
      start = length * tf.random.stateless_uniform([], seed, 0, -(-count // length), tf.int32)
    first, last = tf.maximum(start, 0), tf.minimum(start + length, count)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}
    return {**whole, **{key: example[key][first:last] for key in keys}}

  return select(dataset.filter(lambda example: tf.size(example[feature_key]) > 0))


def _room(sequence_length, output_features, key) -> int:
  """Returns how long a feature may be before its EOS."""
  return sequence_length[key] - bool(output_features[key].add_eos)


@seqio.map_over_dataset
def compute_spectrograms(ex, spectrogram_config: SpectrogramConfig):
  """Replaces inputs `[frames, hop]` samples by log-mel `[frames, mel]`; adds raw_inputs `[samples]`."""
  samples = spectrograms.flatten_frames(ex['inputs'])
  return {**ex, 'inputs': spectrograms.compute_spectrogram(samples, spectrogram_config), 'raw_inputs': samples}


def handle_too_long(
  dataset: tf.data.Dataset,
  output_features: seqio.preprocessors.OutputFeaturesType,
  sequence_length: seqio.preprocessors.SequenceLengthType,
  skip: bool = False,
) -> tf.data.Dataset:
  """Leaves out, with `skip`, examples with a feature longer than its length; without it they are an error that names it."""

  def sizes(example):
    return [
      (key, tf.shape(example[key])[0], _room(sequence_length, output_features, key))
      for key in output_features
      if key in example
    ]

  def fits(example):
    return tf.reduce_all([size <= room for _, size, room in sizes(example)])

  def check(example):
    checks = [
      tf.debugging.Assert(size <= room, [f'{key} exceeds its maximum length {room}; it is', size])
      for key, size, room in sizes(example)
    ]
    with tf.control_dependencies(checks):
      return {key: tf.identity(value) for key, value in example.items()}

  if skip:
    return dataset.filter(fits)
  return dataset.map(check, num_parallel_calls=tf.data.AUTOTUNE)


@gin.configurable(module='mrmt3.preprocessors')
def map_midi_programs(
  ds: tf.data.Dataset, codec: Codec, granularity_type: str = 'full', feature_key: str = 'targets'
) -> tf.data.Dataset:
  """Makes the programs in a feature of regular ids as coarse as one of `vocabularies.PROGRAM_GRANULARITIES`."""
  granularity = PROGRAM_GRANULARITIES[granularity_type]

  def change(example):
    return {**example, feature_key: granularity.tokens_map_fn(example[feature_key], codec)}

  return ds.map(change, num_parallel_calls=tf.data.AUTOTUNE)
