import json
import subprocess
import sys
import time

import mir_eval
import numpy as np
import paths
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from note_tables import note, note_tables, table
from paths import ROOT

from mrmt3 import metrics_utils
from mrmt3.evaluation import metric_registry, note_scores
from mrmt3.evaluation.summary import Summary, score_piece
from mrmt3.notes.note_array import as_notes, empty_notes
from mrmt3.tokens.segment_targets import encode_piece, segment_targets
from mrmt3.vocabularies import VocabularyConfig, build_codec

FIXTURES = np.load(paths.FIXTURES / 'metrics.npz')
CASES = range(6)
PUBLISHED_NAMES = {
  'Onset + offset + program': 'onset_offset_program',
  'Nondrum onset + offset + program': 'nondrum_onset_offset_program',
  'Onset + program': 'onset_program',
  'Onset': 'onset',
}
PUBLISHED_COUNTS = {
  'published instruments estimated': 'published_instruments_estimate',
  'published instruments reference': 'published_instruments_reference',
  'published leakage ratio': 'published_leakage_ratio',
  'published detection precision': 'published_instrument_detection_precision',
  'published detection recall': 'published_instrument_detection_recall',
  'published detection F1': 'published_instrument_detection_f1',
}


def our_name(published):
  if published in PUBLISHED_COUNTS:
    return PUBLISHED_COUNTS[published]
  name, _, granularity = published.partition(' (')
  head, _, part = name.rpartition(' ')
  if head == 'Drum onset':
    return f'drum_onset_{part.lower()}'  # all drums are one instrument, so that the granularity makes no difference
  suffix = {'': '', 'midi_class)': '', 'flat)': '_flat', 'full)': '_full'}[granularity]
  return f'{PUBLISHED_NAMES[head]}_{part.lower()}{suffix}'


def load(case):
  return as_notes(FIXTURES[f'case{case}/ref']), as_notes(FIXTURES[f'case{case}/est'])


def through_midi_ticks(notes):
  notes = notes.copy()
  for column in ('onset', 'offset'):
    notes[column] = np.round(440 * notes[column]) / 440
  return notes


def as_mir_eval(notes):
  intervals = np.stack([notes['onset'], np.maximum(notes['offset'], notes['onset'] + 1e-6)], 1)
  return intervals, mir_eval.util.midi_to_hz(notes['pitch'].astype(float))


def mir_eval_matches(reference, estimate, offset_ratio):
  if not len(reference) or not len(estimate):
    return 0
  columns = *as_mir_eval(reference), *as_mir_eval(estimate)
  return len(mir_eval.transcription.match_notes(*columns, offset_ratio=offset_ratio))


@pytest.mark.parametrize('case', CASES)
def test_equals_mt3(case):
  expected = json.loads(str(FIXTURES[f'case{case}/mt3']))
  scores = metric_registry.evaluate_piece(*load(case))
  assert len(expected) == 27
  assert {name: scores[our_name(name)] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('case', CASES)
def test_equals_mr_mt3(case):
  expected = json.loads(str(FIXTURES[f'case{case}/mr_mt3']))
  scores = metric_registry.evaluate_piece(*map(through_midi_ticks, load(case)))
  assert len(expected) == 18
  assert {name: scores[our_name(name)] for name in expected} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(note_tables(), note_tables())
def test_matches_as_many_notes_as_mir_eval(reference, estimate):
  onsets = metrics_utils.match_notes(reference, estimate)
  assert len(onsets) == mir_eval_matches(reference, estimate, None)
  pitched_reference, pitched_estimate = (notes[~notes['is_drum']] for notes in (reference, estimate))
  offsets = metrics_utils.match_notes(pitched_reference, pitched_estimate, offsets=True)
  assert len(offsets) == mir_eval_matches(pitched_reference, pitched_estimate, 0.2)


@settings(max_examples=60, deadline=None)
@given(note_tables(), note_tables(), st.sampled_from(metrics_utils.GRANULARITIES), st.booleans())
def test_pairs_are_allowed_and_no_note_is_used_twice(reference, estimate, granularity, offsets):
  pairs = metrics_utils.match_notes(reference, estimate, granularity=granularity, offsets=offsets)
  ref, est = reference[pairs[:, 0]], estimate[pairs[:, 1]]
  assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
  np.testing.assert_array_equal(ref['pitch'], est['pitch'])
  np.testing.assert_array_equal(*(metrics_utils.map_programs(notes, granularity) for notes in (ref, est)))
  assert (np.abs(ref['onset'] - est['onset']) <= 0.05005).all()
  if offsets:
    tolerance = np.maximum(0.05, 0.2 * (ref['offset'] - ref['onset']))
    assert ((np.abs(ref['offset'] - est['offset']) <= tolerance + 5e-5) | ref['is_drum']).all()


@settings(max_examples=40, deadline=None)
@given(note_tables(), note_tables(), st.sampled_from(metrics_utils.GRANULARITIES), st.booleans())
def test_program_scores_are_the_published_weighted_means(reference, estimate, granularity, offsets):
  instruments = [metrics_utils.map_programs(notes, granularity) for notes in (reference, estimate)]
  precision = recall = 0.0
  for instrument in np.unique(np.concatenate(instruments)):
    ref, est = (notes[own == instrument] for notes, own in zip((reference, estimate), instruments, strict=True))
    matches = mir_eval_matches(ref, est, 0.2 if offsets and instrument < 128 else None)
    precision += (matches / len(est) if len(est) else 0) * len(est) / max(len(estimate), 1)
    recall += (matches / len(ref) if len(ref) else 0) * len(ref) / max(len(reference), 1)
  f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
  scores = note_scores.program_scores(reference, estimate, granularity, offsets=offsets)
  assert scores == pytest.approx((precision, recall, f1))


@settings(max_examples=30, deadline=None)
@given(note_tables(), note_tables(), st.randoms(use_true_random=False))
def test_scores_are_in_range_and_the_order_of_notes_plays_no_part(reference, estimate, random):
  scores = metric_registry.evaluate_piece(reference, estimate)
  orders = [random.sample(range(len(notes)), len(notes)) for notes in (reference, estimate)]
  shuffled = metric_registry.evaluate_piece(reference[np.array(orders[0], int)], estimate[np.array(orders[1], int)])
  assert scores == shuffled
  for name, score in scores.items():
    assert score >= 0 and np.isfinite(score), name
    if name.rpartition('_')[2] in ('precision', 'recall', 'f1', 'flat', 'full'):
      assert score <= 1, name


@settings(max_examples=30, deadline=None)
@given(note_tables())
def test_a_perfect_transcription_is_perfect(notes):
  scores = metric_registry.evaluate_piece(notes, notes)
  assert scores['leakage_ratio'] == scores['instrument_detection_f1'] == 1
  assert scores['leaked_note_ratio'] == scores['track_switches_per_minute'] == 0
  assert scores['onset_f1'] == scores['onset_offset_program_f1_full'] == bool(len(notes))


def test_onset_is_a_match_up_to_exactly_50_ms():
  reference = table(note(1.0, 60))
  for onset, found in ((0.95, 1), (1.05, 1), (1.05004, 1), (1.0502, 0), (0.949, 0)):
    assert note_scores.onset_scores(reference, table(note(onset, 60))).f1 == found
  assert note_scores.onset_scores(reference, table(note(1.0, 61))).f1 == 0


def test_neighbouring_pitches_and_programs_are_kept_apart():
  reference, estimate = table(note(0, 60), note(0, 127, 1)), table(note(0, 61), note(0, 126, 1), note(0, 0, 2))
  assert metrics_utils.match_notes(reference, estimate).shape == (0, 2)
  assert metrics_utils.match_notes(reference, estimate, granularity='full').shape == (0, 2)


def test_offset_tolerance_grows_with_the_reference():
  for length, late, found in ((0.1, 0.05, 1), (0.1, 0.06, 0), (2.0, 0.39, 1), (2.0, 0.41, 0)):
    reference, estimate = table(note(0, 60, offset=length)), table(note(0, 60, offset=length + late))
    assert note_scores.onset_offset_scores(reference, estimate).f1 == found


def test_precision_recall_and_f1_by_hand():
  reference = table(note(0, 60), note(1, 62), note(2, 64), note(3, 38, is_drum=1))
  estimate = table(note(0.01, 60, 40), note(1, 62), note(1.02, 62), note(3, 38, is_drum=1, offset=9), note(4, 50))
  assert note_scores.onset_scores(reference, estimate) == pytest.approx((3 / 5, 3 / 4, 2 / 3))
  assert note_scores.onset_scores(reference, estimate, drums=False) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
  assert note_scores.program_scores(reference, estimate) == pytest.approx((2 / 5, 2 / 4, 4 / 9))
  assert note_scores.program_scores(reference, estimate, offsets=True) == pytest.approx((2 / 5, 2 / 4, 4 / 9))


def test_granularities():
  reference = table(note(0, 60, 40), note(1, 60, 40), note(2, 60, 40), note(3, 60, 0))
  estimate = table(note(0, 60, 40), note(1, 60, 42), note(2, 60, 0), note(3, 60, 0, is_drum=1))
  for granularity, right in (('full', 1), ('midi_class', 2), ('flat', 3)):
    assert note_scores.program_scores(reference, estimate, granularity).f1 == right / 4
  with pytest.raises(ValueError, match='must be one of flat, midi_class, full'):
    note_scores.program_scores(reference, estimate, 'coarse')


def test_leakage_and_detection_by_hand():
  reference = table(note(0, 60, 0), note(1, 60, 30), note(1, 38, is_drum=1))  # 30 is of the class of 29
  estimate = table(note(0, 60, 0), note(1, 60, 29), note(2, 60, 48), note(3, 60, 49), note(4, 60, 73))
  # In Slakh classes: piano, distorted guitar and drums against piano, distorted guitar, strings (once) and pipe.
  assert note_scores.instrument_set(reference) == {(0, False), (29, False), (0, True)}
  assert note_scores.leakage_ratio(reference, estimate) == 4 / 3
  assert note_scores.instrument_detection(reference, estimate) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
  # As published: 0 (drums, too) and 30 against 0, 29, 48, 49 and 73.
  assert note_scores.leakage_ratio(reference, estimate, counting='published') == 5 / 2
  assert note_scores.instrument_detection(reference, estimate, counting='published') == pytest.approx(
    (1 / 5, 1 / 2, 2 / 7)
  )
  with pytest.raises(ValueError, match='counting must be one of'):
    note_scores.leakage_ratio(reference, estimate, counting='all')


def test_detection_with_nothing_right_is_zero():
  assert note_scores.instrument_detection(table(note(0, 60, 0)), table(note(0, 60, 40))) == (0, 0, 0)


@pytest.mark.parametrize('counting', note_scores.COUNTINGS)
def test_corner_cases(counting):
  some, none = table(note(0, 60, 0), note(1, 60, 40)), empty_notes()
  for reference, estimate, ratio, detection in ((some, none, 0, 0), (none, some, 3, 0), (none, none, 1, 1)):
    assert note_scores.leakage_ratio(reference, estimate, counting=counting) == ratio
    assert note_scores.instrument_detection(reference, estimate, counting=counting) == (detection,) * 3
    scores = metric_registry.evaluate_piece(reference, estimate, mt3_suite=True)
    assert all(np.isfinite(list(scores.values())))
    assert not any(score for name, score in scores.items() if name.endswith('f1') and 'detection' not in name)


def test_leaked_notes():
  reference = table(note(0, 60, 0), note(0, 60, 40), note(1, 62, 40), note(2, 64, 40), note(3, 66, 40))
  # A unison that is right, a leaked note, one right note with a second one on a wrong instrument, and a wrong pitch.
  estimate = table(note(0, 60, 40), note(0, 60, 0), note(1, 62, 0), note(2, 64, 40), note(2, 64, 0), note(3, 67, 0))
  assert note_scores.leaked_note_ratio(reference, estimate) == 1 / 6
  assert note_scores.leaked_note_ratio(reference, empty_notes()) == 0


def test_track_switches():
  drums = [note(t + 0.5, 38, is_drum=1) for t in range(6)]  # between the violin's notes
  reference = table(*(note(t, 60 + t, 40) for t in range(6)), *drums, note(29.5, 38, is_drum=1))
  programs = (40, 40, 0, 0, 40, 40)  # two switches in half a minute
  estimate = table(*(note(t, 60 + t, program) for t, program in enumerate(programs)), *drums)
  assert note_scores.track_switches_per_minute(reference, estimate) == 4
  assert note_scores.track_switches_per_minute(empty_notes(), estimate) == 0


def test_velocities_are_those_of_mir_eval():
  rng = np.random.default_rng(3)
  rows = [note(i / 4, 60 + i % 7, velocity=int(rng.integers(1, 128)), offset=i / 4 + 0.2) for i in range(60)]
  reference = table(*rows)
  estimate = reference[:50].copy()
  estimate['velocity'] = np.clip(estimate['velocity'] // 2 + rng.integers(-12, 12, 50), 1, 127)
  arguments = [*as_mir_eval(reference), reference['velocity'], *as_mir_eval(estimate), estimate['velocity']]
  for offsets, ratio in ((False, None), (True, 0.2)):
    expected = mir_eval.transcription_velocity.precision_recall_f1_overlap(*arguments, offset_ratio=ratio)[:3]
    scores = note_scores.velocity_scores(reference, estimate, offsets=offsets)
    assert scores == pytest.approx(expected) and 0 < scores.f1 < note_scores.onset_scores(reference, estimate).f1


@settings(max_examples=20, deadline=None)
@given(note_tables())
def test_pianoroll_is_that_of_pretty_midi(notes):
  notes = metrics_utils.lengthen_notes(notes)
  midi, instrument = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
  for onset, offset, pitch, velocity, *_ in notes.tolist():
    instrument.notes.append(pretty_midi.Note(velocity, pitch, onset, offset))
  midi.instruments.append(instrument)
  roll = metrics_utils.get_pianoroll(notes)
  expected = midi.get_piano_roll(fs=metrics_utils.FRAMES_PER_SECOND)
  np.testing.assert_array_equal(roll, expected if len(notes) else np.zeros((128, 0)))


def test_frames_by_hand():
  reference = table(note(0, 60, offset=0.16), note(0, 62, offset=0.16, velocity=30), note(0, 40, is_drum=1))
  estimate = table(note(0.08, 60, offset=0.32), note(0, 64, offset=0.001))  # 5 of 15 frames right; 64 lasts 3 frames
  assert note_scores.frame_scores(reference, estimate) == pytest.approx((5 / 18, 5 / 10, 10 / 28))


def test_tolerance_sweep():
  reference, estimate = table(note(1, 60, offset=1.01)), table(note(1.03, 60, offset=1.31))
  sweep = note_scores.tolerance_sweep(reference, estimate)
  assert {t: scores[0].f1 for t, scores in sweep.items()} == {0.01: 0, 0.02: 0, 0.05: 1, 0.1: 1, 0.2: 1, 0.5: 1}
  assert [scores[1].f1 for scores in sweep.values()] == [0, 0, 0, 0, 0, 1]
  estimate = table(note(1, 60, offset=1.05))
  for lengthened, found in ((False, 0), (True, 1)):
    assert note_scores.tolerance_sweep(reference, estimate, lengthened=lengthened)[0.01][1].f1 == found
  assert reference['offset'] == 1.01


def test_means_and_failed_pieces():
  notes = table(note(0, 60), note(1, 62, 40))
  pieces = {'good': (notes, notes), 'half': (notes, notes[:1]), 'failed': (notes, None)}
  summary = Summary([score_piece(name, *tables) for name, tables in pieces.items()])
  assert list(summary.failed) == ['failed']
  assert summary.values('onset_f1') == pytest.approx([1, 2 / 3, 0])
  assert summary.mean['onset_f1'] == pytest.approx(5 / 9)
  assert summary.mean['leakage_ratio'] == pytest.approx(0.5)


@pytest.mark.parametrize(
  'row, message',
  [
    ((np.nan, 1, 60, 100, 0, 0), 'not finite'),
    ((0, np.inf, 60, 100, 0, 0), 'not finite'),
    ((-0.1, 1, 60, 100, 0, 0), 'before 0 s'),
    ((2, 1, 60, 100, 0, 0), 'offset before its onset'),
    ((0, 1, 128, 100, 0, 0), 'pitch outside'),
    ((0, 1, 60, 100, -1, 0), 'program outside'),
    ((0, 1, 60, 128, 0, 0), 'velocity outside'),
  ],
)
def test_errors_name_the_invalid_note(row, message):
  good, bad = table(note(0, 60)), table(note(0, 60), row)
  with pytest.raises(ValueError, match=f'^reference has .*{message}.*: note 1'):
    note_scores.onset_scores(bad, good)
  with pytest.raises(ValueError, match=f'^estimate has .*{message}.*: note 1'):
    note_scores.leakage_ratio(good, bad)
  with pytest.raises(ValueError, match=f'^song: estimate has .*{message}'):
    score_piece('song', good, bad)
  with pytest.raises(ValueError, match=r'^the table has'):
    note_scores.instrument_set(bad)


def test_tolerances_below_zero_are_refused():
  notes = table(note(0, 60))
  with pytest.raises(ValueError, match='onset_tolerance is -1; it must be a number of at least 0'):
    note_scores.onset_scores(notes, notes, onset_tolerance=-1)
  with pytest.raises(ValueError, match='offset_min_tolerance is nan'):
    note_scores.onset_offset_scores(notes, notes, offset_min_tolerance=np.nan)
  with pytest.raises(ValueError, match='onset_tolerance is inf'):
    note_scores.onset_scores(notes, notes, onset_tolerance=np.inf)


def test_plain_rows_are_refused():
  with pytest.raises(ValueError, match='reference is not a note table'):
    note_scores.onset_scores(np.zeros((3, 6)), empty_notes())


def test_predictions_come_back_together():
  codec = build_codec(VocabularyConfig(num_velocity_bins=1))
  pieces = {
    name: table(note(0.5, 60, program), note(3.0, 64, program), note(4.5, 67, program))
    for name, program in (('a', 0), ('b', 40))
  }
  predictions = [
    {
      'unique_id': name,
      'start_time': frame / 125,
      'est_tokens': segment_targets(encode_piece(notes, codec), frame, 256, piece_frames=768, codec=codec),
    }
    for frame in (512, 0, 256)
    for name, notes in pieces.items()
  ]
  decoded = metrics_utils.combine_predictions_by_id(
    predictions, lambda group: metrics_utils.event_predictions_to_notes(group, codec)
  )
  assert decoded.keys() == pieces.keys()
  for name, (notes, stats) in decoded.items():
    assert (stats.segments, stats.invalid_events) == (3, 0)
    assert note_scores.program_scores(pieces[name], notes, 'full', offsets=True).f1 == 1


def test_a_large_piece_takes_no_time():
  rng = np.random.default_rng(0)
  rows = np.zeros((3000, 6))
  rows[:, 0] = rng.uniform(0, 240, 3000)
  rows[:, 1] = rows[:, 0] + rng.uniform(0.05, 1, 3000)
  rows[:, 2:4] = rng.integers(30, 90, (3000, 2))
  rows[:, 4] = rng.choice([0, 24, 33, 40, 80], 3000)
  reference, estimate = as_notes(rows), as_notes(rows + np.array([0.01, 0.02, 0, 0, 0, 0]))
  start = time.perf_counter()
  scores = metric_registry.evaluate_piece(reference, estimate)
  assert time.perf_counter() - start < 2
  assert scores['onset_offset_program_f1_full'] > 0.99


def test_needs_no_heavy_library():
  code = 'import sys, mrmt3.evaluation.note_scores, mrmt3.cli.evaluate; print(*sys.modules)'
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
  heavy = {'tensorflow', 'seqio', 'jax', 'flax', 'note_seq', 'mir_eval', 'librosa', 'matplotlib', 'pretty_midi'}
  assert not heavy & set(result.stdout.split())
