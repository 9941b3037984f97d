"""MT3's functions from notes to tokens and back: names, arguments, and the same results as our own functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import FIXTURES

from mrmt3 import metrics_utils, note_sequences, vocabularies
from mrmt3 import run_length_encoding as rle
from mrmt3.event_codec import Codec, Event, EventRange
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes, trim_overlapping_notes
from mrmt3.notes.note_sequence_protos import note_sequence_to_notes, notes_to_note_sequence
from mrmt3.tokens.segment_targets import encode_piece, segment_targets
from mrmt3.vocabularies import VocabularyConfig, build_codec

pytest.importorskip('note_seq')

CASES = np.load(FIXTURES / 'tokens.npz')
NUM_CASES = sum(key.endswith('/meta') for key in CASES)
GRANULARITIES = ['flat', 'midi_class', 'full']
CODEC = build_codec(VocabularyConfig(num_velocity_bins=1))


def mt3_targets(ns, first, length, frames, codec, *, ties=True, granularity='full', onsets_only=False):
  """A segment's target by MT3's functions, as its task puts them together (without data sets)."""
  spec = note_sequences.encoding_spec(onsets_only=onsets_only, ties=ties)
  to_events = note_sequences.note_sequence_to_onsets_and_offsets_and_programs
  times, values = (note_sequences.note_sequence_to_onsets if onsets_only else to_events)(ns)
  ids, starts, ends, states, state_starts = rle.encode_and_index_events(
    spec.init_encoding_state_fn(),
    times,
    values,
    spec.encode_event_fn,
    codec,
    np.arange(frames) / 125,
    spec.encoding_state_to_events_fn,
  )
  last = min(first + length, frames) - 1
  ids = ids[starts[first] : ends[last]]
  if ties:
    state = states[state_starts[first] :]
    ids = np.concatenate([state[: list(state).index(codec.event_type_range('tie')[0]) + 1], ids])
  ids = vocabularies.PROGRAM_GRANULARITIES[granularity].tokens_map_fn(ids, codec)
  tie = int(ties and np.argmax(ids == codec.event_type_range('tie')[0]) + 1)
  ids = np.concatenate([ids[:tie], rle.run_length_encode_shifts(ids[tie:], codec)])
  return np.append(vocabularies.encode_ids(rle.remove_redundant_state_changes(ids, codec)), 1)


@pytest.mark.parametrize('case', range(NUM_CASES))
def test_worked_cases_id_for_id(case):
  first, length, bins, ties, granularity = CASES[f'case{case}/meta'].tolist()
  ns = note_sequences.trim_overlapping_notes(notes_to_note_sequence(as_notes(CASES[f'case{case}/notes'])))
  codec = build_codec(VocabularyConfig(num_velocity_bins=bins))
  frames = max(first + length, int(ns.total_time * 125)) + 1
  ids = mt3_targets(ns, first, length, frames, codec, ties=bool(ties), granularity=GRANULARITIES[granularity])
  np.testing.assert_array_equal(ids, CASES[f'case{case}/tokens'])


def pieces():
  note = st.tuples(
    st.floats(0, 5),
    st.floats(0.001, 2),
    st.integers(60, 62),
    st.integers(1, 127),
    st.sampled_from([0, 3, 33]),
    st.booleans(),
  )
  rows = st.lists(note, max_size=15)
  return rows.map(
    lambda rows: as_notes(
      [(on, on + n, pitch, v, 0 if drum else program, drum) for on, n, pitch, v, program, drum in rows]
    )
  )


@settings(max_examples=120, deadline=None)
@given(
  pieces(),
  st.integers(0, 900),
  st.integers(1, 256),
  st.sampled_from([1, 127]),
  st.sampled_from(GRANULARITIES),
  st.sampled_from(['ties', 'plain', 'onsets']),
)
def test_both_ways_come_to_the_same(notes, first, length, bins, granularity, kind):
  codec, onsets_only = build_codec(VocabularyConfig(num_velocity_bins=bins)), kind == 'onsets'
  frames = max(first + length, 700)  # often beyond the last event
  piece = encode_piece(notes, codec, granularity, onsets_only=onsets_only)
  ours = segment_targets(piece, first, length, codec=codec, piece_frames=frames, ties=kind == 'ties')
  options = {'ties': kind == 'ties', 'granularity': granularity, 'onsets_only': onsets_only}
  # Notes of the same time and kind are ordered by pitch: MT3's sort leaves the rest as it is in the list.
  theirs = mt3_targets(notes_to_note_sequence(notes), first, length, frames, codec, **options)
  np.testing.assert_array_equal(ours, theirs)


def test_frames_after_the_last_event():
  ns = notes_to_note_sequence(as_notes([(0.0, 1.0, 60, 80, 0, 0)]))
  times, values = note_sequences.note_sequence_to_onsets_and_offsets_and_programs(ns)

  def state_at(frame, **options):
    spec = note_sequences.NoteEncodingWithTiesSpec
    *_, states, starts = rle.encode_and_index_events(
      spec.init_encoding_state_fn(),
      times,
      values,
      spec.encode_event_fn,
      CODEC,
      np.arange(500) / 125,
      spec.encoding_state_to_events_fn,
      **options,
    )
    events = [CODEC.decode_event_index(i).type for i in states[starts[frame] :]]
    return events[: events.index('tie') + 1]

  sounding = ['program', 'pitch', 'tie']
  assert state_at(100) == state_at(100, repeat_last_state=True) == sounding
  assert state_at(300) == ['tie']
  assert state_at(300, repeat_last_state=True) == sounding  # MT3's: a note that has ended


def test_a_piece_without_events_is_indexed():
  spec = note_sequences.NoteEncodingWithTiesSpec
  ids, starts, ends, states, state_starts = rle.encode_and_index_events(
    spec.init_encoding_state_fn(),
    [],
    [],
    spec.encode_event_fn,
    CODEC,
    np.arange(3) / 125,
    spec.encoding_state_to_events_fn,
  )
  assert ids.tolist() == [1, 1]
  assert (starts.tolist(), ends.tolist()) == ([0, 0, 1], [0, 1, 2])
  assert states.tolist() == [CODEC.event_type_range('tie')[0]]
  assert state_starts.tolist() == [0, 0, 0]


def data_set(**features):
  tf = pytest.importorskip('tensorflow')
  return tf.data.Dataset.from_tensors({name: np.asarray(x, np.int32) for name, x in features.items()})


def only(dataset, key='targets'):
  (example,) = dataset.as_numpy_iterator()
  return example[key].tolist()


def ids(text):
  """'shift 1, pitch 60' -> regular ids."""
  pairs = (part.split() for part in text.split(', '))
  return [CODEC.encode_event(Event(name, int(value))) for name, value in pairs]


def test_functions_over_data_sets():
  single = ids('shift 1, shift 1, pitch 60, shift 1, pitch 61, pitch 62, shift 1')
  assert only(rle.run_length_encode_shifts_fn(CODEC)(data_set(targets=single))) == ids(
    'shift 2, pitch 60, shift 3, pitch 61, pitch 62'
  )
  far = [1] * 2003 + ids('pitch 60')
  assert only(rle.run_length_encode_shifts_fn(CODEC, 'far')(data_set(far=far)), 'far') == ids(
    'shift 1000, shift 1000, shift 3, pitch 60'
  )
  changes = ids('program 3, velocity 1, pitch 60, program 3, velocity 0, pitch 60, velocity 0, program 4')
  remove = rle.remove_redundant_state_changes_fn(CODEC, state_change_event_types=['velocity', 'program'])
  assert only(remove(data_set(targets=changes))) == ids(
    'program 3, velocity 1, pitch 60, velocity 0, pitch 60, program 4'
  )
  assert only(rle.remove_redundant_state_changes_fn(CODEC)(data_set(targets=changes))) == changes
  for function in (rle.run_length_encode_shifts_fn(CODEC), remove):
    assert only(function(data_set(targets=[]))) == []


def test_extracting_a_segments_targets():
  tie = CODEC.event_type_range('tie')[0]
  features = {
    'targets': np.arange(50, 60),
    'input_event_start_indices': [2, 3, 5],
    'input_event_end_indices': [3, 5, 7],
    'state_events': [tie, 7, 8, tie, 9, tie],
    'input_state_event_indices': [1, 4, 4],
  }
  extract = rle.extract_target_sequence_with_indices
  assert only(extract(data_set(**features))) == [52, 53, 54, 55, 56]
  assert only(extract(data_set(**features), state_events_end_token=tie)) == [7, 8, tie, 52, 53, 54, 55, 56]


def test_merging_tracks():
  rows = ['shift 3, pitch 60, pitch 61, shift 5, pitch 62', 'drum 36, shift 3, drum 37', 'drum 40, shift 4, drum 38']
  rows = [ids(row) for row in rows]
  length = max(map(len, rows))
  targets = np.array([row + [0] * (length - len(row)) for row in rows])
  expected = ids(
    'drum 40, drum 36, shift 3, pitch 60, pitch 61, drum 37, shift 4, drum 38, shift 5, pitch 62'
  )  # events at the start of the segment: the last track first
  assert rle.merge_run_length_encoded_targets(targets, CODEC).tolist() == expected
  tf = pytest.importorskip('tensorflow')
  merged = tf.function(lambda rows: rle.merge_run_length_encoded_targets(rows, CODEC))(tf.constant(targets))
  assert merged.numpy().tolist() == expected
  far = np.array(
    [ids('shift 1000, shift 1000, shift 9, pitch 60'), [*ids('shift 1000, shift 1000, shift 9, pitch 61')]]
  )
  assert rle.merge_run_length_encoded_targets(far, CODEC).tolist() == [*far[0], *ids('pitch 61')]


def test_granularities_of_tensors():
  tf = pytest.importorskip('tensorflow')
  tokens = np.array(ids('program 9, pitch 60, program 15, drum 3'))
  for granularity in vocabularies.PROGRAM_GRANULARITIES.values():
    made = tf.function(lambda x, g=granularity: g.tokens_map_fn(x, CODEC))(tf.constant(tokens))
    np.testing.assert_array_equal(made, granularity.tokens_map_fn(tokens, CODEC))


def test_events_of_notes():
  fine = build_codec(VocabularyConfig())

  def events_of(codec=fine, **what):
    return [(e.type, e.value) for e in note_sequences.note_event_data_to_events(state, data(60, **what), codec)]

  state, data = note_sequences.NoteEncodingState(), note_sequences.NoteEventData
  assert events_of() == [('pitch', 60)]
  assert events_of(velocity=90) == [('velocity', 90), ('pitch', 60)]
  assert events_of(CODEC, velocity=90, program=3, is_drum=False) == [('program', 3), ('velocity', 1), ('pitch', 60)]
  assert events_of(velocity=5, program=3, is_drum=True) == [('velocity', 5), ('drum', 60)]
  assert state.active_pitches == {(60, 0): 90, (60, 3): 1}
  events_of(velocity=0)
  events = note_sequences.note_encoding_state_to_events(state)
  assert [(e.type, e.value) for e in events] == [('program', 3), ('pitch', 60), ('tie', 0)]


def test_note_sequences_are_trimmed_split_and_checked():
  rows = [(0.0, 2.0, 60, 80, 0, 0), (1.0, 3.0, 60, 81, 0, 0), (1.0, 3.0, 60, 81, 5, 1), (7.0, 7.0, 61, 80, 0, 0)]
  ns = note_sequences.note_arrays_to_note_sequence(
    *zip(*[(r[0], r[2]) for r in rows], strict=True), *[[r[i] for r in rows] for i in (1, 3, 4, 5)]
  )
  assert [note.instrument for note in ns.notes] == [0, 0, 9, 0]
  trimmed = note_sequences.trim_overlapping_notes(ns)
  assert [(note.start_time, note.end_time, note.is_drum) for note in trimmed.notes] == [
    (0.0, 1.0, False),
    (1.0, 3.0, False),
    (1.0, 3.0, True),
  ]
  table = trim_overlapping_notes(as_notes(rows))
  np.testing.assert_array_equal(as_rows(note_sequence_to_notes(trimmed))[:, :4], as_rows(table)[:, :4])
  track = note_sequences.extract_track(ns, 5, True)
  assert (len(track.notes), track.total_time) == (1, 3.0)
  note_sequences.validate_note_sequence(trimmed)
  with pytest.raises(ValueError, match='pitch 61'):
    note_sequences.validate_note_sequence(ns)
  defaults = note_sequences.note_arrays_to_note_sequence([0.5], [60])
  assert as_rows(note_sequence_to_notes(defaults)).tolist() == [[0.5, 0.51, 60, 100, 0, 0]]


def test_the_decoding_state_has_its_notes_as_a_proto():
  state = note_sequences.NoteDecodingState()
  play = note_sequences.decode_note_event
  for step, (name, value) in enumerate([('drum', 36), ('pitch', 60), ('program', 4), ('pitch', 61)]):
    play(state, step / 10, Event(name, value), CODEC)
    assert len(state.note_sequence.notes) == 1
  same = state.note_sequence
  flushed = note_sequences.flush_note_decoding_state(state)
  assert flushed is same
  assert [(note.pitch, note.instrument) for note in flushed.notes] == [(36, 9), (60, 0), (61, 1)]


def test_onset_tokens_know_pitches_only():
  codec = Codec(100, 100, [EventRange('pitch', 0, 127)])
  predictions = [
    {'start_time': 0.4, 'est_tokens': [20, 101 + 60, 50, 101 + 62], 'raw_inputs': [2, 3]},
    {'start_time': 0.0, 'est_tokens': [30, 101 + 59, 10, 101 + 58, 400], 'raw_inputs': [0, 1]},
    {'start_time': 0.8, 'est_tokens': [], 'raw_inputs': [4, 5]},
  ]
  combined = metrics_utils.event_predictions_to_ns(predictions, codec, note_sequences.NoteOnsetEncodingSpec)
  notes = note_sequence_to_notes(combined['est_ns'])
  # Within a segment time may run back, as in MT3.
  np.testing.assert_allclose(notes['onset'], [0.3, 0.1, 0.6])
  assert notes['pitch'].tolist() == [59, 58, 60]
  assert (combined['est_invalid_events'], combined['est_dropped_events']) == (1, 2)
  assert combined['start_times'] == [0.0, 0.4, 0.8]
  assert combined['raw_inputs'].tolist() == [0, 1, 2, 3, 4, 5]
  with pytest.raises(ValueError, match='ties'):
    note_sequences.encoding_spec(onsets_only=True, ties=True)


def test_piano_rolls_leave_the_notes_alone():
  notes = as_notes([(0.0, 0.01, 60, 80, 0, 0), (1.0, 1.5, 36, 90, 0, 1)])
  ns = notes_to_note_sequence(notes)
  roll = metrics_utils.get_prettymidi_pianoroll(ns, 100, is_drum=False)
  assert roll.shape == (128, 150)
  assert np.flatnonzero(roll[60]).tolist() == [0, 1, 2, 3, 4]
  assert not roll[36].any()
  drums = metrics_utils.get_prettymidi_pianoroll(ns, 100, is_drum=True)
  assert drums.shape == (128, 105)
  assert np.unique(drums[36]).tolist() == [0, 90]
  np.testing.assert_array_equal(as_rows(note_sequence_to_notes(ns)), as_rows(notes))
  assert metrics_utils.get_prettymidi_pianoroll(notes_to_note_sequence(empty_notes()), 100, False).shape == (128, 0)
