import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrmt3 import note_sequences
from mrmt3.event_codec import Event
from mrmt3.note_sequences import SegmentDecoder, decode_piece
from mrmt3.notes.note_array import as_notes, as_rows, empty_notes, sort_notes, trim_overlapping_notes
from mrmt3.tokens.segment_targets import empty_segment, encode_piece, segment_targets
from mrmt3.tokens.shuffling import Shuffle
from mrmt3.vocabularies import VocabularyConfig, build_codec

CODEC = build_codec(VocabularyConfig(num_velocity_bins=1))
FINE_CODEC = build_codec(VocabularyConfig(num_velocity_bins=127))


def model_ids(events, eos=True):
  """Return model ids of 'type value' events, e.g. 'shift 5, pitch 60'."""
  pairs = [event.split() for event in events.split(',') if event.strip()]
  return np.array([CODEC.encode_event(Event(kind, int(value))) + 3 for kind, value in pairs] + [1] * eos, np.int32)


def play(*segments, frames=250, **options):
  """Decode segments of 2 s each; return rows of (onset, offset, pitch, program, is_drum), invalid and dropped."""
  ids = [model_ids(s) if isinstance(s, str) else s for s in segments]
  notes, stats = decode_piece(ids, [frames * i for i in range(len(ids))], CODEC, **options)
  rows = [
    (round(n['onset'].item(), 6), round(n['offset'].item(), 6), *n[['pitch', 'program', 'is_drum']].item())
    for n in notes
  ]
  return rows, stats.invalid_events, stats.dropped_events


def test_a_note_and_a_drum():
  rows, *counts = play('tie 0, shift 10, program 7, velocity 1, pitch 60, drum 36, shift 50, velocity 0, pitch 60')
  assert rows == [(0.1, 0.5, 60, 7, False), (0.1, 0.11, 36, 0, True)]
  assert counts == [0, 0]


def test_velocity_and_program_persist_across_segments():
  rows, *counts = play(
    'tie 0, program 9, velocity 1, pitch 60', 'tie 0, shift 100, pitch 62, shift 150, velocity 0, pitch 62'
  )
  assert rows == [(0.0, 2.0, 60, 9, False), (3.0, 3.5, 62, 9, False)]
  assert counts == [0, 0]


def test_velocity_is_100_until_a_token_says_otherwise():
  notes, _ = decode_piece([model_ids('tie 0, pitch 60, velocity 1, pitch 61')], [0], CODEC)
  assert notes['velocity'].tolist() == [100, 127]
  assert notes['program'].tolist() == [0, 0]


def test_notes_that_are_not_tied_end_where_the_tie_is():
  rows, *counts = play('tie 0, pitch 60, pitch 61', 'program 0, pitch 61, tie 0, shift 50, velocity 0, pitch 61')
  assert rows == [(0.0, 2.0, 60, 0, False), (0.0, 2.5, 61, 0, False)]
  assert counts == [0, 0]
  late, *_ = play('tie 0, pitch 60', 'shift 30, tie 0')
  assert late == [(0.0, 2.3, 60, 0, False)]


def test_wrong_ties_are_invalid():
  rows, invalid, _ = play(
    'tie 0, pitch 60', 'pitch 60, pitch 60, pitch 61, tie 0, tie 0, shift 10, velocity 0, pitch 60'
  )
  assert rows == [(0.0, 2.1, 60, 0, False)]
  assert invalid == 3


def test_a_segment_without_a_tie_never_leaves_the_tie_section():
  rows, invalid, _ = play('tie 0, pitch 60', 'pitch 60, shift 10, velocity 1, pitch 70', 'tie 0')
  assert rows == [(0.0, 4.0, 60, 0, False)]
  assert invalid == 1


def test_a_note_struck_again_ends_and_starts():
  rows, *counts = play('tie 0, pitch 60, shift 20, pitch 60, shift 40, velocity 0, pitch 60')
  assert rows == [(0.0, 0.2, 60, 0, False), (0.2, 0.4, 60, 0, False)]
  assert counts == [0, 0]


def test_impossible_events_are_counted_and_skipped():
  rows, invalid, dropped = play(
    'tie 0, velocity 0, pitch 60, drum 36, velocity 1, shift 50, pitch 61, shift 20, velocity 0, shift 60, pitch 62'
  )
  # Nothing ends, no drum begins; the velocity at 0.2 s is earlier than the note at 0.5 s and does not count either.
  assert [(row[0], row[2]) for row in rows] == [(0.5, 61), (0.6, 62)]
  assert (invalid, dropped) == (3, 0)


def test_a_note_off_of_a_pitch_that_does_not_sound_is_invalid():
  """As in MT3, whose metric counts these events."""
  ended_by_tie = 'tie 0, shift 10, velocity 0, pitch 60'  # the note-off comes too late: the note is not tied
  rows, *counts = play('tie 0, pitch 60', ended_by_tie)
  assert rows == [(0.0, 2.0, 60, 0, False)] and counts == [1, 0]
  _, *counts = play('tie 0, program 5, pitch 60, shift 10, velocity 0, program 6, pitch 60')  # another program's
  assert counts == [1, 0]
  _, *counts = play('tie 0, pitch 60, shift 10, velocity 0, pitch 60, shift 20, pitch 60')  # the second of two
  assert counts == [1, 0]


def test_a_note_lasts_10_ms_at_least():
  rows, *_ = play('tie 0, pitch 60, velocity 0, pitch 60, shift 100, velocity 1, pitch 61')
  assert rows == [(0.0, 0.01, 60, 0, False), (1.0, 1.01, 61, 0, False)]


def test_what_lies_beyond_the_next_segments_start_is_dropped():
  rows, invalid, dropped = play('tie 0, shift 200, pitch 60, shift 201, pitch 61, pitch 62', 'pitch 60, tie 0')
  assert [(row[0], row[2]) for row in rows] == [(2.0, 60)]
  assert (invalid, dropped) == (0, 3)


def test_the_last_segment_has_no_end():
  rows, *counts = play('tie 0, shift 1000, shift 1000, shift 500, pitch 60')
  assert rows == [(25.0, 25.01, 60, 0, False)]
  assert counts == [0, 0]


def test_what_follows_the_end_of_sequence_is_ignored():
  ids = np.concatenate([model_ids('tie 0, pitch 60'), model_ids('pitch 61, pitch 62'), np.zeros(9, int)])
  rows, *counts = play(ids)
  assert [row[2] for row in rows] == [60]
  assert counts == [0, 0]


def test_segments_without_end_of_sequence_are_kept_or_discarded_on_demand():
  cut = model_ids('tie 0, pitch 60', eos=False)
  notes, stats = decode_piece([cut], [0], CODEC)
  assert len(notes) == 1
  assert (stats.segments, stats.segments_without_eos) == (1, 1)
  notes, stats = decode_piece([cut, model_ids('tie 0, pitch 61')], [0, 250], CODEC, discard_without_eos=True)
  assert notes['pitch'].tolist() == [61]
  assert (stats.segments, stats.segments_without_eos) == (2, 1)


def test_floating_point_starts_lose_the_boundary_and_steps_do_not():
  # The segment that starts at 30.72 s: in floating point it starts at 30.71 s.
  segments = [model_ids('tie 0, shift 205, pitch 60, velocity 0'), model_ids('pitch 60, tie 0, pitch 60')]
  exact, stats = decode_piece(segments, [3584, 3840], CODEC)
  assert exact['onset'].tolist() == [30.72]
  assert stats.dropped_events == 0
  early, stats = decode_piece(segments, [3584, 3840], CODEC, start_times='float')
  assert stats.dropped_events == 3
  assert early['onset'].tolist() == [30.71]


def test_onset_and_plain_specs():
  ids = model_ids('shift 10, pitch 60, shift 20, pitch 61')
  onsets, *_ = play(ids, spec=note_sequences.NoteOnsetEncodingSpec)
  assert onsets == [(0.1, 0.11, 60, 0, False), (0.2, 0.21, 61, 0, False)]
  plain, *_ = play(ids, model_ids('shift 50, velocity 0, pitch 61'), spec=note_sequences.NoteEncodingSpec)
  assert plain == [(0.1, 2.5, 60, 0, False), (0.2, 2.5, 61, 0, False)]


def test_onset_tokens_round_trip():
  notes = as_notes([(0.1 * i, 0.1 * i + 0.01, 40 + i, 100, 0, 0) for i in range(20)])
  piece = encode_piece(notes, CODEC, onsets_only=True)
  segments = [segment_targets(piece, start, 125, codec=CODEC, ties=False) for start in (0, 125)]
  decoded, stats = decode_piece(segments, [0, 125], CODEC, spec=note_sequences.NoteOnsetEncodingSpec)
  np.testing.assert_allclose(as_rows(decoded), as_rows(notes), atol=1e-9)
  assert stats.invalid_events == 0


def test_the_stream_hands_out_notes_as_they_complete():
  decoder = SegmentDecoder(CODEC)
  assert (
    len(decoder.segment(model_ids('tie 0, pitch 60, shift 10, velocity 0, pitch 60, velocity 1, pitch 61'), 0)) == 0
  )
  assert decoder.segment(empty_segment(CODEC), 250)['pitch'].tolist() == [60]
  assert decoder.segment(empty_segment(CODEC), 500)['pitch'].tolist() == [61]
  notes, stats = decoder.finish()
  assert notes['pitch'].tolist() == [60, 61]
  assert stats.segments == 3


def test_segments_come_in_order():
  decoder = SegmentDecoder(CODEC)
  decoder.segment(empty_segment(CODEC), 250)
  with pytest.raises(ValueError, match='order'):
    decoder.segment(empty_segment(CODEC), 249)
  with pytest.raises(ValueError, match='start_times'):
    SegmentDecoder(CODEC, start_times='now')


def test_a_piece_without_segments_has_no_notes():
  notes, stats = decode_piece([], [], CODEC)
  assert len(notes) == 0
  assert stats == note_sequences.DecodingStats()


def quantised_notes(max_step=600):
  """Notes on whole steps, many of them colliding in pitch and instrument."""
  note = st.tuples(
    st.integers(0, max_step),
    st.integers(1, 300),
    st.integers(60, 63),
    st.integers(1, 127),
    st.sampled_from([0, 8, 33]),
    st.booleans(),
  )
  return st.lists(note, max_size=40).map(_as_trimmed_notes)


def _as_trimmed_notes(rows):
  drum_steps = 1  # a decoded drum lasts 10 ms
  return trim_overlapping_notes(
    as_notes(
      [
        (on / 100, (on + (drum_steps if drum else length)) / 100, pitch, velocity, 0 if drum else program, drum)
        for on, length, pitch, velocity, program, drum in rows
      ]
    )
  )


def round_trip(notes, lengths, **options):
  """Encode into segments of the lengths in turn until the piece is over, and decode them."""
  piece = encode_piece(notes, FINE_CODEC)
  piece_frames = 300  # most pieces are longer: the last segment has the rest
  starts, segments, start = [], [], 0
  while start < piece_frames:
    length = lengths[len(starts) % len(lengths)]
    starts.append(start)
    segments.append(segment_targets(piece, start, length, codec=FINE_CODEC, piece_frames=piece_frames, **options))
    start += length
  return decode_piece(segments, starts, FINE_CODEC)


def assert_same_notes(decoded, notes):
  np.testing.assert_allclose(as_rows(decoded), as_rows(sort_notes(notes)), atol=1e-9)


@settings(max_examples=120, deadline=None)
@given(quantised_notes(), st.lists(st.integers(1, 130), min_size=1, max_size=5))
def test_notes_round_trip_over_any_segmentation(notes, lengths):
  decoded, stats = round_trip(notes, lengths)
  assert_same_notes(decoded, notes)
  assert (stats.invalid_events, stats.dropped_events, stats.segments_without_eos) == (0, 0, 0)


@settings(max_examples=80, deadline=None)
@given(quantised_notes(max_step=60), st.integers(5, 130), st.integers(0, 2**32))
def test_shuffled_targets_decode_to_the_same_notes(notes, length, seed):
  decoded, stats = round_trip(notes, [length], shuffle=Shuffle(), rng=np.random.default_rng(seed))
  assert_same_notes(decoded, notes)
  assert stats.invalid_events == 0


def any_notes():
  """Notes at any time, many of them colliding; some on the half steps that are rounded to even."""
  seconds = st.one_of(st.floats(0, 5), st.integers(0, 1000).map(lambda half_steps: half_steps / 200))
  note = st.tuples(
    seconds,
    st.one_of(st.floats(1e-4, 0.03), st.floats(0.03, 4)),
    st.integers(60, 62),
    st.integers(1, 127),
    st.sampled_from([0, 33]),
    st.booleans(),
  )
  rows = st.lists(note, max_size=40)
  return rows.map(lambda rows: [(on, on + n, pitch, v, 0 if drum else p, drum) for on, n, pitch, v, p, drum in rows])


@settings(max_examples=150, deadline=None)
@given(any_notes(), st.lists(st.integers(1, 130), min_size=1, max_size=5), st.booleans(), st.integers(0, 2**32))
def test_any_piece_comes_back_trimmed_and_quantised(rows, lengths, shuffled, seed):
  notes = trim_overlapping_notes(as_notes(rows))
  options = {'shuffle': Shuffle(), 'rng': np.random.default_rng(seed)} if shuffled else {}
  decoded, stats = round_trip(notes, lengths, **options)
  expected = notes.copy()
  for field in ('onset', 'offset'):
    expected[field] = [round(time * 100) / 100 for time in notes[field].tolist()]
  shortest = expected['onset'] + 0.01  # and a drum lasts as long
  expected['offset'] = np.where(notes['is_drum'], shortest, np.maximum(expected['offset'], shortest))

  def in_order(table):
    return sorted(map(tuple, np.round(as_rows(table), 6).tolist()))

  assert in_order(decoded) == in_order(expected)
  assert (stats.invalid_events, stats.dropped_events, stats.segments_without_eos) == (0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=20), st.integers(0, 99))
def test_notes_within_a_step_survive_shuffling(spans, seed):
  """Notes of a few ms: their order within the step is all that keeps an end after its beginning."""
  notes = trim_overlapping_notes(as_notes([(on / 1000, (on + n) / 1000, 60, 80, 0, 0) for on, n in spans]))
  plain, _ = round_trip(notes, [64])
  shuffled, stats = round_trip(notes, [64], shuffle=Shuffle(), rng=np.random.default_rng(seed))
  np.testing.assert_array_equal(shuffled, plain)
  assert stats.invalid_events == 0


@settings(max_examples=150, deadline=None)
@given(
  st.lists(st.lists(st.integers(-5, 1600), max_size=60), max_size=4),
  st.sampled_from(['NoteOnsetEncodingSpec', 'NoteEncodingSpec', 'NoteEncodingWithTiesSpec']),
  st.sampled_from(['steps', 'float']),
)
def test_any_ids_decode(segments, spec, start_times):
  starts = [64 * i for i in range(len(segments))]
  options = {'spec': getattr(note_sequences, spec), 'start_times': start_times}
  notes, stats = decode_piece([np.array(ids, int) for ids in segments], starts, CODEC, **options)
  assert (notes['offset'] - notes['onset'] > 0.0099).all()
  assert np.isin(notes['program'], np.arange(128)).all()
  tokens = sum(ids.index(1) if 1 in ids else len(ids) for ids in segments)
  assert len(notes) + stats.invalid_events + stats.dropped_events <= tokens


def test_instruments_are_numbered_as_they_appear_without_9():
  pytest.importorskip('note_seq')
  programs = [50, 3, 50, *range(60, 70)]
  rows = [(0, 1, 60, 80, program, 0) for program in programs] + [(0, 1, 36, 80, 0, 1)]
  sequence = note_sequences.notes_to_note_sequence(as_notes(rows))
  assert [note.instrument for note in sequence.notes] == [0, 1, 0, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 9]
  assert sequence.total_time == 1


def test_note_sequences_and_tables_round_trip():
  pytest.importorskip('note_seq')
  notes = as_notes([(0.5, 1.25, 60, 80, 7, 0), (0.25, 0.5, 36, 127, 0, 1)])
  sequence = note_sequences.notes_to_note_sequence(notes)
  np.testing.assert_array_equal(note_sequences.note_sequence_to_notes(sequence), notes)
  empty = note_sequences.notes_to_note_sequence(empty_notes())
  assert len(note_sequences.note_sequence_to_notes(empty)) == 0


def test_flushing_ends_all_notes_together_in_order_of_completion():
  pytest.importorskip('note_seq')
  state = note_sequences.NoteDecodingState()
  for time, event in [(0.0, 'pitch 60'), (0.5, 'program 5'), (0.5, 'pitch 61'), (0.7, 'velocity 0'), (0.7, 'pitch 61')]:
    kind, value = event.split()
    note_sequences.decode_note_event(state, time, Event(kind, int(value)), CODEC)
  sequence = note_sequences.flush_note_decoding_state(state)
  assert [(n.pitch, n.start_time, n.end_time, n.instrument) for n in sequence.notes] == [
    (61, 0.5, 0.7, 0),
    (60, 0, 0.7, 1),
  ]
  assert not state.active_pitches
