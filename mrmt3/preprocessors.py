"""MT3's seqio preprocessors, with its names: from records to audio frames and tokens, then to inputs and targets.

The `tokenize_*` functions turn a record of MT3's data sets into audio frames and the piece's tokens, indexed by frame.
The others split, select and pad such examples. Our own tasks (`tasks.registration`) tokenize segments directly from
note arrays. Imports TensorFlow, and note_seq when records are read.
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
  """A track has pitch bends, which tokens cannot represent."""


def guitarset_instrument_to_program(instrument: str) -> int:
  """Return program 24, the first guitar, for GuitarSet's only instrument, 'Clean Guitar'; ValueError for others."""
  if instrument != _GUITAR:
    raise ValueError(f'unknown GuitarSet instrument {instrument!r}; it must be {_GUITAR!r}')
  return _GUITAR_PROGRAM


def urmp_instrument_to_program(urmp_instrument: str) -> int:
  """Return the program of an URMP instrument code such as 'vn'; ValueError for an unknown one."""
  if urmp_instrument not in URMP_PROGRAMS:
    raise ValueError(f'unknown URMP instrument {urmp_instrument!r}; it must be one of {", ".join(URMP_PROGRAMS)}')
  return URMP_PROGRAMS[urmp_instrument]


def slakh_class_to_program_and_is_drum(slakh_class: str) -> tuple[int, bool]:
  """Return (program, is_drum) of a Slakh class or 'Drums'; ValueError for an unknown one."""
  if slakh_class == 'Drums':
    return 0, True
  if slakh_class not in SLAKH_CLASSES:
    raise ValueError(f'unknown Slakh class {slakh_class!r}; it must be one of {", ".join(SLAKH_CLASSES)} or Drums')
  return SLAKH_CLASSES[slakh_class], False


def add_track_to_notesequence(ns, track, program: int, is_drum: bool, ignore_pitch_bends: bool) -> None:
  """Add a track's notes, extended by its sustain pedal, to a NoteSequence with the given program.

  Raises:
    PitchBendError: the track has pitch bends, and `ignore_pitch_bends` is False.
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
  """Tokenize records with one NoteSequence ('sequence') and one audio signal ('audio').

  Args:
    ds: the records.
    spectrogram_config: has the sample rate and the hop.
    codec: the codec of the tokens.
    is_training_data: unused; notes of these data sets are never trimmed (as in MT3).
    onsets_only: whether the tokens encode onsets only.
    include_ties: whether to write the states for tie sections.
    audio_is_samples: whether 'audio' is float samples at 'sample_rate', instead of a wav file.
    id_feature_key: feature that becomes the NoteSequence's id.

  Returns:
    The records without 'audio', and with the features inputs (samples, float32 `[frames, hop]`), input_times (s,
    float32 `[frames]`), sequence (the serialized NoteSequence with sustain pedals applied), and the int32 results of
    `run_length_encoding.encode_and_index_events`: targets, input_event_start_indices, input_event_end_indices,
    state_events and input_state_event_indices.

  Raises:
    ValueError: both onsets_only and include_ties are set, or samples come without 'sample_rate'.
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
    raise ValueError('audio_is_samples: the records have no feature sample_rate; add it')
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
  """Tokenize GuitarSet's records as `tokenize_example_with_program_lookup`; all notes are of a guitar."""

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
  """Tokenize records with a NoteSequence per instrument ('instrument_sequences') and a wav file ('audio').

  See `tokenize_transcription_example` for the other arguments and the result. Pitch bends raise `PitchBendError`.

  Args:
    inst_name_to_program_fn: name in 'inst_names' -> program.
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
  """Tokenize records of Slakh and Cerberus4: a NoteSequence per stem ('note_sequences') and the mix ('mix', samples).

  See `tokenize_transcription_example` for the other arguments and the result. 'mix' and 'stems' are dropped.

  Args:
    is_training_data: whether to trim overlapping notes, which tokens cannot represent.
    track_specs: names, programs and is_drum of the stems, in the order of 'inst_names'; None if those are Slakh
      classes.
    ignore_pitch_bends: whether to keep records with pitch bends.
  """

  def read(sequences, mix, sample_rate, names):
    names = [name.decode() for name in names]
    if track_specs and names != [spec.name for spec in track_specs]:
      raise ValueError(f'inst_names is {names}; expected {[spec.name for spec in track_specs]}')
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
  dropped = ('mix', 'stems')
  return _tokenize(ds, read, features, 'track_id', spectrogram_config, codec, onsets_only, include_ties, dropped)


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
  """Join serialized NoteSequences into one, each with its (program, is_drum)."""
  if len(sequences) != len(tracks):
    raise ValueError(f'a record has {len(sequences)} note sequences but {len(tracks)} instruments')
  ns = note_sequence_protos.new_note_sequence()
  for sequence, (program, is_drum) in zip(sequences, tracks, strict=True):
    add_track_to_notesequence(ns, _parsed(sequence), program, is_drum, ignore_pitch_bends)
  note_sequences.assign_instruments(ns)
  note_sequences.validate_note_sequence(ns)
  return ns


def _tokenize(ds, read, features, id_key, config, codec, onsets_only, include_ties, dropped) -> tf.data.Dataset:
  """Tokenize records with `read`: values of `features` -> (NoteSequence, samples), or None to drop the record."""
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
    # Always padded by at least one sample, as in MT3.
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
    kept = {key: value for key, value in record.items() if key not in dropped}
    return fits, {**kept, **made}

  ds = ds.map(process, num_parallel_calls=tf.data.AUTOTUNE)
  return ds.filter(lambda fits, _: fits).map(lambda _, example: example)


def add_unique_id(ds: tf.data.Dataset) -> tf.data.Dataset:
  """Add unique_id, int64 `[1]`, the index of the example."""
  return ds.enumerate().map(lambda i, example: {**example, 'unique_id': [i]}, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def pad_notesequence_array(ex):
  """Make `sequence` an array over frames, empty except for the first one, so that it can be split with the frames."""
  count = tf.shape(ex['input_times'])[0]
  return {**ex, 'sequence': tf.concat([[ex['sequence']], tf.fill([count - 1], '')], axis=0)}


@seqio.map_over_dataset
def add_dummy_targets(ex):
  """Add empty targets, which seqio needs even if the metrics use the notes."""
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
  """Split each example into consecutive segments of `max_tokens_per_segment`; the last one may be shorter.

  Args:
    dataset: the examples; empty ones are dropped.
    max_tokens_per_segment: length of a segment.
    feature_key: feature that determines the number of segments; split along its first axis.
    additional_feature_keys: features split in the same way.
    passthrough_feature_keys: features copied to every segment. All other features are dropped.
  """
  length = max_tokens_per_segment
  cut = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def split(example, seed):
    del seed  # T5's function consumes a seed as well, so that later random draws are as in MT3
    count = -(-tf.shape(example[feature_key], tf.int64)[0] // length)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}

    def segment(index):
      return {**whole, **{key: example[key][index * length : (index + 1) * length] for key in cut}}

    return tf.data.Dataset.range(count).map(segment)

  return split(dataset).flat_map(lambda segments: segments)


def split_tokens_to_inputs_length(dataset, sequence_length, output_features, **kwargs) -> tf.data.Dataset:
  """Same as `split_tokens`, with segments of the inputs' length, minus one if they end with EOS."""
  return split_tokens(dataset, _max_length(sequence_length, output_features, 'inputs'), **kwargs)


def select_random_chunk(
  dataset: tf.data.Dataset,
  sequence_length: Mapping[str, int],
  output_features: Mapping[str, seqio.Feature],
  feature_key: str = 'targets',
  additional_feature_keys: Sequence[str] | None = None,
  passthrough_feature_keys: Sequence[str] | None = None,
  uniform_random_start: bool = False,
) -> tf.data.Dataset:
  """Select a random segment of each example.

  Args:
    dataset: the examples; empty ones are dropped.
    sequence_length: has the length of a segment, that of `feature_key`, minus one if it ends with EOS.
    output_features: determines whether it ends with EOS.
    feature_key: feature that determines the possible segments; cut along its first axis.
    additional_feature_keys: features cut in the same way.
    passthrough_feature_keys: features that are not cut. All other features are dropped.
    uniform_random_start: True selects any segment that overlaps the example, truncated at its ends, with a uniform
      start; False selects one of the consecutive segments from 0.
  """
  length = _max_length(sequence_length, output_features, feature_key)
  keys = [feature_key, *_as_keys(additional_feature_keys)]

  @seqio.map_over_dataset(num_seeds=1)
  def select(example, seed):
    count = tf.shape(example[feature_key])[0]
    seed = tf.random.experimental.stateless_split(seed)[1]  # T5 draws the start from this seed
    if uniform_random_start:
      start = tf.random.stateless_uniform([], seed, 1 - length, count, tf.int32)
    else:
      start = length * tf.random.stateless_uniform([], seed, 0, -(-count // length), tf.int32)
    first, last = tf.maximum(start, 0), tf.minimum(start + length, count)
    whole = {key: example[key] for key in _as_keys(passthrough_feature_keys)}
    return {**whole, **{key: example[key][first:last] for key in keys}}

  return select(dataset.filter(lambda example: tf.size(example[feature_key]) > 0))


def _max_length(sequence_length, output_features, key) -> int:
  """Return the maximum length of a feature without its EOS."""
  return sequence_length[key] - bool(output_features[key].add_eos)


@seqio.map_over_dataset
def compute_spectrograms(ex, spectrogram_config: SpectrogramConfig):
  """Replace inputs (samples `[frames, hop]`) by the log-mel `[frames, mel]`; adds raw_inputs (samples `[n]`)."""
  samples = spectrograms.flatten_frames(ex['inputs'])
  return {**ex, 'inputs': spectrograms.compute_spectrogram(samples, spectrogram_config), 'raw_inputs': samples}


def handle_too_long(
  dataset: tf.data.Dataset,
  output_features: seqio.preprocessors.OutputFeaturesType,
  sequence_length: seqio.preprocessors.SequenceLengthType,
  skip: bool = False,
) -> tf.data.Dataset:
  """Drop examples with a feature that is too long if `skip` is set; otherwise they raise an error with its name."""

  def sizes(example):
    return [
      (key, tf.shape(example[key])[0], _max_length(sequence_length, output_features, key))
      for key in output_features
      if key in example
    ]

  def fits(example):
    return tf.reduce_all([size <= most for _, size, most in sizes(example)])

  def check(example):
    checks = [
      tf.debugging.Assert(size <= most, [f'{key} exceeds its maximum length {most}; it is', size])
      for key, size, most in sizes(example)
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
  """Map the programs in a feature of regular ids to one of `vocabularies.PROGRAM_GRANULARITIES`."""
  granularity = PROGRAM_GRANULARITIES[granularity_type]

  def change(example):
    return {**example, feature_key: granularity.tokens_map_fn(example[feature_key], codec)}

  return ds.map(change, num_parallel_calls=tf.data.AUTOTUNE)
