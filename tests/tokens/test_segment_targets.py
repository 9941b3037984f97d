import time
from fractions import Fraction

import numpy as np
import pytest
from paths import FIXTURES

from mrmt3.notes.note_array import as_notes, empty_notes, trim_overlapping_notes
from mrmt3.tokens.segment_targets import PieceEvents, covering_step, empty_segment, encode_piece, segment_targets
from mrmt3.tokens.shuffling import Shuffle
from mrmt3.vocabularies import VocabularyConfig, build_codec

CASES = np.load(FIXTURES / 'tokens.npz')
NUM_CASES = sum(key.endswith('/meta') for key in CASES)
CODEC = build_codec(VocabularyConfig(num_velocity_bins=1))
GRANULARITIES = ['flat', 'midi_class', 'full']


def targets(rows, start_frame=0, num_frames=256, granularity='full', **options):
  """Return a segment's model ids as (event type, value) pairs, without EOS."""
  piece = encode_piece(as_notes(rows), CODEC, granularity)
  ids = segment_targets(piece, start_frame, num_frames, codec=CODEC, **options)
  assert ids.dtype == np.int32
  assert ids[-1] == 1
  return [(event.type, event.value) for event in map(CODEC.decode_event_index, ids[:-1] - 3)]


@pytest.mark.parametrize('case', range(NUM_CASES))
def test_worked_cases_id_for_id(case):
  notes = as_notes(CASES[f'case{case}/notes'])
  start_frame, num_frames, bins, ties, granularity = CASES[f'case{case}/meta'].tolist()
  codec = build_codec(VocabularyConfig(num_velocity_bins=bins))
  for order in (slice(None), slice(None, None, -1)):  # notes come in any order
    piece = encode_piece(trim_overlapping_notes(notes[order]), codec, GRANULARITIES[granularity])
    ids = segment_targets(piece, start_frame, num_frames, codec=codec, ties=bool(ties))
    np.testing.assert_array_equal(ids, CASES[f'case{case}/tokens'])


def test_the_worked_cases_are_there():
  assert NUM_CASES == 36


def test_trimming_cuts_at_the_next_onset_of_the_same_pitch_and_instrument():
  rows = [
    (0.0, 2.0, 60, 80, 0, 0),
    (1.0, 3.0, 60, 81, 0, 0),
    (0.5, 9.0, 60, 82, 1, 0),  # another program
    (0.5, 9.0, 61, 83, 0, 0),  # another pitch
    (0.5, 9.0, 60, 84, 0, 1),  # a drum
    (1.0, 4.0, 60, 85, 0, 0),  # the same onset: the last stays
    (7.0, 7.0, 60, 86, 0, 0),  # no length
  ]
  trimmed = trim_overlapping_notes(as_notes(rows))
  assert trimmed['velocity'].tolist() == [80, 82, 83, 84, 85]
  assert trimmed['offset'].tolist() == [1.0, 9.0, 9.0, 9.0, 4.0]


def test_trimming_leaves_its_input_and_is_idempotent():
  notes = as_notes(CASES['case12/notes'])
  before = notes.copy()
  once = trim_overlapping_notes(notes)
  assert len(once) < len(notes) or (once['offset'] != notes['offset']).any()
  np.testing.assert_array_equal(notes, before)
  np.testing.assert_array_equal(trim_overlapping_notes(once), once)
  assert len(trim_overlapping_notes(empty_notes())) == 0


def test_order_within_a_step_is_by_time_before_rounding():
  rows = [(0.5, 0.9999, 60, 80, 0, 0), (0.9951, 2.0, 62, 80, 0, 0)]
  assert targets(rows, num_frames=200)[5:] == [('shift', 100), ('pitch', 62), ('velocity', 0), ('pitch', 60)]


def test_rounding_first_gives_simultaneous_notes_a_fixed_order():
  rng = np.random.default_rng(0)
  chord = [(1.0, 1.5, pitch, 90, program, 0) for program in (0, 33) for pitch in (40, 44, 47)] + [
    (1.0, 1.01, 38, 90, 0, 1)
  ]

  def moved():
    rows = [
      (onset + rng.uniform(-0.004, 0.004), offset + rng.uniform(-0.004, 0.004), *rest) for onset, offset, *rest in chord
    ]
    return [rows[index] for index in rng.permutation(len(rows))]

  wanted = encode_piece(as_notes(chord), CODEC)
  for _ in range(20):
    found = encode_piece(as_notes(moved()), CODEC, rounded_order=True)
    np.testing.assert_array_equal(found.to_array(), wanted.to_array())
  by_time = {encode_piece(as_notes(moved()), CODEC).to_array().tobytes() for _ in range(20)}
  assert len(by_time) > 10


def test_rounding_first_keeps_the_offset_of_a_short_note_after_its_onset():
  events = encode_piece(as_notes([(1.0, 1.002, 60, 90, 0, 0), (1.0, 1.3, 64, 90, 0, 0)]), CODEC, rounded_order=True)
  assert list(zip(events.step.tolist(), events.pitch.tolist(), events.velocity_bin.tolist(), strict=True)) == [
    (100, 60, 1),
    (100, 64, 1),
    (101, 60, 0),
    (130, 64, 0),
  ]


def test_steps_round_half_to_even():
  rows = [(0.125, 0.375, 60, 80, 0, 0)]
  assert [e for e in targets(rows) if e[0] == 'shift'] == [('shift', 12), ('shift', 38)]


def test_flat_granularity_with_drums():
  rows = [(0.0, 1.0, 60, 80, 40, 0), (0.0, 0.1, 36, 80, 0, 1), (0.5, 1.0, 62, 80, 7, 0)]
  assert targets(rows, granularity='flat') == [
    ('tie', 0),
    ('velocity', 1),
    ('pitch', 60),
    ('drum', 36),
    ('shift', 50),
    ('pitch', 62),
    ('shift', 100),
    ('velocity', 0),
    ('pitch', 62),
    ('pitch', 60),
  ]


def test_tie_section_goes_by_the_program_before_it_is_coarsened():
  rows = [(0.0, 9.0, 70, 80, 40, 0), (0.0, 9.0, 60, 80, 41, 0), (0.0, 9.0, 50, 80, 48, 0)]
  assert targets(rows, 125, granularity='midi_class') == [
    ('program', 40),
    ('pitch', 70),
    ('pitch', 60),
    ('program', 48),
    ('pitch', 50),
    ('tie', 0),
  ]


def test_ties_name_what_began_earlier_and_has_not_ended_earlier():
  rows = [
    (0.0, 1.0, 60, 80, 0, 0),  # ends at the start of the segment: tied, then its note-off
    (0.0, 0.99, 61, 80, 0, 0),
    (1.0, 2.0, 62, 80, 0, 0),  # begins there
    (0.99, 9.0, 63, 80, 0, 0),
    (0.9, 5.0, 36, 80, 0, 1),  # drums are never tied
  ]
  assert targets(rows, 125, 100) == [
    ('program', 0),
    ('pitch', 60),
    ('pitch', 63),
    ('tie', 0),
    ('velocity', 0),
    ('pitch', 60),
    ('velocity', 1),
    ('pitch', 62),
  ]


def test_nothing_is_tied_after_the_last_event():
  rows = [(0.0, 1.0, 60, 80, 0, 0)]
  assert targets(rows, 256, 256) == [('tie', 0)]
  piece = encode_piece(as_notes(rows), CODEC)
  np.testing.assert_array_equal(segment_targets(piece, 256, 256, codec=CODEC), empty_segment(CODEC))
  np.testing.assert_array_equal(empty_segment(CODEC), [1134, 1])


def test_a_piece_without_notes_has_empty_segments():
  assert targets([]) == [('tie', 0)]
  assert targets([], ties=False) == []
  assert targets([], shuffle=Shuffle(), rng=np.random.default_rng(0)) == [('tie', 0)]


def test_the_last_frame_takes_all_that_remains():
  rows = [(0.0, 50.0, 60, 80, 0, 0)]
  assert targets(rows, 0, 256, piece_frames=257)[1:] == [('program', 0), ('velocity', 1), ('pitch', 60)]
  rest = [('shift', 1000)] * 5 + [('velocity', 0), ('pitch', 60)]
  assert targets(rows, 0, 256, piece_frames=256)[4:] == rest


def test_segments_start_at_the_step_that_covers_the_frame():
  steps = [covering_step(frame, CODEC) for frame in range(6)]
  assert steps == [0, 0, 1, 2, 3, 4]
  assert covering_step(3840, CODEC) == 3072  # 30.72 s, where floating point is a step early
  assert covering_step(3, CODEC, Fraction(22050, 256)) == 3


@pytest.mark.parametrize('length', [1, 3, 64, 256])
def test_every_event_is_in_exactly_one_segment(length):
  notes = as_notes(CASES['case30/notes'])
  piece = encode_piece(notes, CODEC)
  frames = 1300
  total = 0
  for start in range(0, frames, length):
    ids = segment_targets(piece, start, length, codec=CODEC, piece_frames=frames, ties=False)
    types = [CODEC.decode_event_index(i).type for i in ids[:-1] - 3]
    total += types.count('pitch') + types.count('drum')
  assert total == len(piece)


def test_events_travel_as_one_array():
  piece = encode_piece(as_notes(CASES['case0/notes']), CODEC, 'midi_class')
  array = piece.to_array()
  assert array.shape == (len(piece), 7)
  assert array.dtype == np.int32
  same = PieceEvents.from_array(array)
  np.testing.assert_array_equal(same.to_array(), array)
  np.testing.assert_array_equal(
    segment_targets(same, 100, 256, codec=CODEC), segment_targets(piece, 100, 256, codec=CODEC)
  )
  assert len(PieceEvents.from_array(encode_piece(empty_notes(), CODEC).to_array())) == 0
  with pytest.raises(ValueError, match='array'):
    PieceEvents.from_array(array[:, :6])


def test_onsets_only_are_pitches_only():
  notes = as_notes([(0.5, 1.0, 60, 80, 40, 0), (0.5, 0.6, 36, 80, 0, 1), (0.0, 1.0, 50, 80, 40, 0)])
  piece = encode_piece(notes, CODEC, onsets_only=True)
  ids = segment_targets(piece, 0, 256, codec=CODEC, ties=False)
  np.testing.assert_array_equal(ids, [1001 + 50 + 3, 50 + 3, 1001 + 36 + 3, 1001 + 60 + 3, 1])
  np.testing.assert_array_equal(segment_targets(piece, 100, 256, codec=CODEC), empty_segment(CODEC))


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ((0, 1, 128, 80, 0, 0), 'pitch 128'),
    ((0, 1, 60, 0, 0, 0), 'velocity 0'),
    ((0, 1, 60, 80, 128, 0), 'program 128'),
    ((-1, 1, 60, 80, 0, 0), 'onset'),
    ((0, np.nan, 60, 80, 0, 0), 'offset'),
    ((0, np.inf, 60, 80, 0, 0), 'offset'),
  ],
)
def test_notes_out_of_range_are_refused(row, message):
  with pytest.raises(ValueError, match=message):
    encode_piece(as_notes([row]), CODEC)


def test_nonsense_requests_are_refused():
  piece = encode_piece(empty_notes(), CODEC)
  with pytest.raises(ValueError, match='granularity'):
    encode_piece(empty_notes(), CODEC, 'fine')
  with pytest.raises(ValueError, match='frame'):
    segment_targets(piece, -1, 256, codec=CODEC)
  with pytest.raises(ValueError, match='frame'):
    segment_targets(piece, 0, 0, codec=CODEC)
  with pytest.raises(ValueError, match='rng'):
    segment_targets(piece, 0, 256, codec=CODEC, shuffle=Shuffle())


def test_a_segment_takes_less_than_a_millisecond():
  rng = np.random.default_rng(0)
  onset = rng.uniform(0, 240, 10000)
  columns = onset, onset + rng.uniform(0.05, 2, 10000), rng.integers(30, 90, 10000), np.full(10000, 80)
  notes = as_notes(np.stack([*columns, rng.choice([0, 24, 33, 48], 10000), rng.random(10000) < 0.2], axis=1))
  piece = encode_piece(trim_overlapping_notes(notes), CODEC)
  seconds = []
  for start in range(0, 28000, 500):
    begin = time.perf_counter()
    segment_targets(piece, start, 256, codec=CODEC, piece_frames=30001, shuffle=Shuffle(), rng=rng)
    seconds.append(time.perf_counter() - begin)
  assert min(seconds) < 1e-3  # the minimum, because the machine may be busy
