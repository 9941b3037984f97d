"""Tests of mrmt3.dataset_builder and `mrmt3 dataset build`: from scores to a data set in Slakh2100's layout."""

import argparse
import collections
import contextlib
import os
import signal
import subprocess
import sys
import time

import hypothesis
import numpy as np
import pytest
import soundfile
from hypothesis import strategies as st

from mrmt3.audio import synthesizer as render
from mrmt3.cli import dataset as dataset_cli
from mrmt3.data import slakh_layout
from mrmt3.dataset_builder import arrange, build, drums, groups, layout, recipes, settings, sources, timing
from mrmt3.dataset_builder import track as track_module
from mrmt3.dataset_builder.score import (
  BAR_DTYPE,
  SCORE_NOTE_DTYPE,
  Score,
  bar_phases,
  drop_doubles,
  excerpt,
  repeat,
  tidy_part,
)
from mrmt3.errors import UserError
from mrmt3.notes.instruments import slakh_class_program
from mrmt3.notes.note_array import as_notes
from mrmt3.utils import parallel

RATE = 16000
METRES = [(4, 4), (3, 4), (2, 2), (2, 4), (3, 8), (6, 8), (9, 8), (12, 8), (5, 4), (1, 4), (3, 2)]


def part(*rows):
  return np.array([(*row, 0)[:4] for row in rows], SCORE_NOTE_DTYPE)


def bars_of(lengths, metre=(4, 4)):
  bars = np.zeros(len(lengths), BAR_DTYPE)
  bars['length'] = lengths
  bars['start'] = np.cumsum(lengths) - lengths
  bars['numerator'], bars['denominator'] = metre
  return bars


def scale_score(num_bars=8, transposed=(24, 12, 0, -12), metre=(4, 4)):
  """Return a score whose parts play scales in quarters."""
  bars = bars_of([4 * metre[0] / metre[1]] * num_bars, metre)
  quarters = np.arange(int(bars['length'].sum()))
  parts = tuple(part(*[(q, 1, 60 + t + int(q) % 8) for q in quarters]) for t in transposed)
  return Score('test/scales', parts, bars)


@pytest.fixture(scope='module')
def synth():
  return render.Synth(render.default_soundfont())


# Scores


def test_bar_phases_of_pickups_and_split_bars():
  np.testing.assert_allclose(bar_phases(bars_of([1, 4, 4, 3])), [3, 0, 0, 0])
  np.testing.assert_allclose(bar_phases(bars_of([4, 3, 1, 4])), [0, 0, 3, 0])
  np.testing.assert_allclose(bar_phases(bars_of([1, 4, 3, 1, 4, 3])), [3, 0, 0, 3, 0, 0])
  np.testing.assert_allclose(bar_phases(bars_of([1.5, 3], (6, 8))), [1.5, 0])


def test_tidy_part_joins_unisons_and_cuts_overlaps():
  tidied = tidy_part(part((1, 2, 60), (0, 1, 60), (0, 1.5, 60), (2, 1, 60), (0, 1, 64), (3, 0, 60)))
  np.testing.assert_array_equal(tidied, part((0, 1, 60), (0, 1, 64), (1, 1, 60), (2, 1, 60)))
  assert len(tidy_part(part())) == 0


def test_ties_are_joined_only_at_the_same_pitch_and_moment():
  start, length, pitch = np.array([0.0, 1, 2, 4, 1]), np.array([1.0, 1, 1, 1, 1]), np.array([60, 60, 60, 60, 64])
  joined = sources._join_ties(start, length, pitch, np.array([False, True, True, True, False]))
  np.testing.assert_array_equal(joined, part((0, 3, 60), (4, 1, 60), (1, 1, 64)))


def test_drop_doubles_keeps_distinct_parts():
  melody, other = part((0, 1, 60), (1, 1, 62)), part((0, 1, 48), (1, 1, 50))
  score = drop_doubles(Score('x', (part(), melody, other, melody.copy()), bars_of([4])))
  assert [len(p) for p in score.parts] == [2, 2] and score.parts[1] is other
  with pytest.raises(UserError, match='no notes'):
    drop_doubles(Score('x', (part(),), bars_of([4])))


def test_excerpt_cuts_at_bar_lines_and_repeat_repeats():
  score = Score('x', (part((0, 6, 60), (4, 1, 62), (7, 3, 64), (8, 1, 65)),), bars_of([4, 4, 4]))
  middle = excerpt(score, 1, 2)
  np.testing.assert_array_equal(middle.parts[0], part((0, 1, 62), (3, 1, 64)))
  assert middle.length == 4 and middle.bars['start'][0] == 0
  twice = repeat(middle, 2)
  np.testing.assert_array_equal(twice.parts[0]['start'], [0, 3, 4, 7])
  np.testing.assert_array_equal(twice.bars['start'], [0, 4])


# Sources


def test_music21_chorale_is_read_as_written():
  score = sources.read_score('music21/bach/bwv66.6.mxl')
  assert score.name == 'music21/bach/bwv66.6' and len(score.parts) == 4
  assert score.length == 36 and score.bars['length'][0] == 1  # 9 bars with a pickup
  # "Christ ist erstanden": C#5 B4 | A4 B4 C#5
  assert score.parts[0]['pitch'][:5].tolist() == [73, 71, 69, 71, 73]
  assert score.parts[0]['start'][:5].tolist() == [0, 0.5, 1, 2, 3]
  for notes in score.parts:
    assert (notes['length'] > 0).all() and (notes['start'] + notes['length'] <= 36).all()


MUSIC_XML = """<score-partwise version="3.1">
<part-list><score-part id="P1"><part-name>Clarinet in Bb</part-name></score-part></part-list>
<part id="P1">
<measure number="0" implicit="yes"><attributes><divisions>2</divisions>
<time><beats>3</beats><beat-type>4</beat-type></time>
<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose></attributes>
<note><pitch><step>G</step><octave>4</octave></pitch><duration>2</duration><tie type="start"/></note>
</measure>
<measure number="1">
<note><pitch><step>G</step><octave>4</octave></pitch><duration>2</duration><tie type="stop"/></note>
<note><grace/><pitch><step>A</step><octave>5</octave></pitch><type>eighth</type></note>
<note><rest/><duration>2</duration><type>quarter</type></note>
<note><pitch><step>C</step><octave>5</octave></pitch><duration>2</duration><type>quarter</type></note>
<note><chord/><pitch><step>E</step><octave>5</octave></pitch><duration>2</duration><type>quarter</type></note>
</measure>
</part></score-partwise>"""


def test_reader_joins_ties_transposes_and_splits_chords(tmp_path, monkeypatch):
  (tmp_path / 'clarinet.xml').write_text(MUSIC_XML)
  monkeypatch.setattr(sources, 'music21_folder', lambda: tmp_path)
  score = sources.read_score('music21/clarinet.xml')
  # Written G4 sounds as F4; the tie crosses the bar line; the grace note has no time.
  np.testing.assert_array_equal(score.parts[0], part((0, 2, 65), (3, 1, 70), (3, 1, 74)))
  assert score.bars.tolist() == [(0, 1, 3, 4), (1, 3, 3, 4)]


def test_list_and_works():
  names = sources.list_music21()
  assert len(names) > 1500 and names == sorted(names) and len(set(names)) == len(names)
  without_suffix = [name.rsplit('.', 1)[0] for name in names]
  assert len(set(without_suffix)) == len(names)  # one format of each piece
  for recipe in recipes.RECIPES.values():
    for works in (recipe.works or {}).values():
      assert set(works) <= set(names)


@pytest.mark.parametrize(
  ('one', 'other', 'same'),
  [
    ('bach/bwv227.1.mxl', 'bach/bwv227.11.mxl', True),
    ('bach/bwv227.1.mxl', 'bach/bwv226.2.mxl', False),
    ('mozart/k155/movement1.mxl', 'mozart/k155/movement3.mxl', True),
    ('mozart/k155/movement1.mxl', 'mozart/k156/movement1.mxl', False),
    ('palestrina/Kyrie_12.krn', 'palestrina/Agnus_I_12.krn', True),
    ('palestrina/Kyrie_12.krn', 'palestrina/Kyrie_13.krn', False),
    ('monteverdi/madrigal.3.1.mxl', 'monteverdi/madrigal.3.2.mxl', False),
    ('corelli/opus3no1/1grave.xml', 'corelli/opus3no1/2allegro.xml', True),
  ],
)
def test_work_of(one, other, same):
  assert (sources.work_of(sources.MUSIC21 + one) == sources.work_of(sources.MUSIC21 + other)) == same


def test_bad_sources_raise_user_errors(tmp_path, monkeypatch):
  with pytest.raises(UserError, match='no such source'):
    sources.read_score('midi/x.mid')
  with pytest.raises(UserError, match='no such piece'):
    sources.read_score('music21/bach/bwv99999.mxl')
  (tmp_path / 'bad.xml').write_text('<score-partwise><part-list/></score-partwise')
  monkeypatch.setattr(sources, 'music21_folder', lambda: tmp_path)
  with pytest.raises(UserError, match=r'cannot read the score music21/bad\.xml'):
    sources.read_score('music21/bad.xml')


# Groups


def melody_score(pitches, length=1.0):
  return Score('x', (part(*[(i * length, length, p) for i, p in enumerate(pitches)]),), bars_of([4]))


def test_one_tune_is_one_group_in_any_key_and_rhythm():
  rng = np.random.default_rng(0)
  tune, other = (60 + np.cumsum(rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], 40)) for _ in range(2))
  repeated_notes = np.repeat(tune + 5, 2)
  varied = tune.copy()
  varied[20] += 1
  scores = [melody_score(p) for p in (tune, other, repeated_notes, varied)]
  numbers = groups.group_scores(scores, ['a', 'b', 'c', 'd'])
  assert numbers == [0, 1, 0, 0]
  assert groups.group_scores(scores, ['a', 'b', 'c', 'b']) == [0, 0, 0, 0]  # joined by the work b


def test_known_chorales_share_their_tunes():
  names = ['bwv227.1', 'bwv64.8', 'bwv81.7', 'bwv40.8', 'bwv244.3', 'bwv245.3']
  scores = [sources.read_score(f'music21/bach/{name}.mxl') for name in names]
  assert groups.group_scores(scores, names) == [0, 0, 0, 1, 2, 2]


@hypothesis.given(st.lists(st.integers(0, 12), min_size=3, max_size=60), st.integers(0, 100))
@hypothesis.settings(max_examples=40, deadline=None)
def test_split_never_divides_a_group(numbers, seed):
  shares = {'train': 0.8, 'validation': 0.1, 'test': 0.1}
  splits = groups.split_groups(numbers, shares, np.random.default_rng(seed))
  assert set(splits) <= set(shares)
  by_group = collections.defaultdict(set)
  for number, split in zip(numbers, splits, strict=True):
    by_group[number].add(split)
  assert all(len(found) == 1 for found in by_group.values())


def test_split_meets_its_shares():
  shares = {'train': 0.8, 'validation': 0.1, 'test': 0.1}
  splits = groups.split_groups(list(range(100)), shares, np.random.default_rng(0))
  assert collections.Counter(splits) == {'train': 80, 'validation': 10, 'test': 10}


# Arrangement


@pytest.mark.parametrize('seed', range(8))
def test_arrangement_is_playable(seed):
  score = scale_score()
  arranged = arrange.arrange(score, np.random.default_rng(seed))
  assert len(arranged) == 4
  classes = [slakh_class_program(one.program) for one in arranged]
  assert len(set(classes)) == 4
  assert arranged[-1].program in arrange.BASSES
  instruments = {instrument.program: instrument for instrument in arrange.INSTRUMENTS}
  for one, written in zip(arranged, score.parts, strict=True):
    assert instruments[one.program].low <= one.notes['pitch'].min()
    assert one.notes['pitch'].max() <= instruments[one.program].high
    shift = one.notes['pitch'] - written['pitch']
    assert shift[0] % 12 == 0 and (shift == shift[0]).all()


def test_arrangement_follows_palette_and_seed():
  score = scale_score()
  programs = [one.program for one in arrange.arrange(score, np.random.default_rng(3), palette=(0, 24, 33, 40, 70))]
  assert programs == [
    one.program for one in arrange.arrange(score, np.random.default_rng(3), palette=(0, 24, 33, 40, 70))
  ]
  assert set(programs) <= {0, 24, 33, 40, 70}
  without = arrange.arrange(score, np.random.default_rng(3), palette=(0, 24, 33, 40, 70), exclude=(33, 40))
  assert {one.program for one in without} <= {0, 24, 70}
  # Two instruments for four parts: two parts are dropped.
  assert len(arrange.arrange(score, np.random.default_rng(3), palette=(0, 24))) == 2


def test_chords_go_to_instruments_that_play_chords():
  chords = part(*[(q, 1, p) for q in range(8) for p in (60, 64, 67)])
  can = {instrument.program for instrument in arrange.INSTRUMENTS if instrument.chords}
  for seed in range(10):
    (one,) = arrange.arrange(Score('x', (chords,), bars_of([4, 4])), np.random.default_rng(seed))
    assert one.program in can


def test_instrument_ranges_are_valid():
  assert len({instrument.program for instrument in arrange.INSTRUMENTS}) == len(arrange.INSTRUMENTS)
  assert all(0 <= i.low < i.high < 128 for i in arrange.INSTRUMENTS)
  assert set(arrange.BASSES) <= {i.program for i in arrange.INSTRUMENTS}
  for recipe in recipes.RECIPES.values():
    assert set(recipe.palette or ()) <= {i.program for i in arrange.INSTRUMENTS}


def test_performance_keeps_time_and_detaches_repeated_notes():
  score = Score('x', (part((0, 1, 60), (1, 1, 60), (2, 0.125, 60)),), bars_of([4]))
  notes = arrange.perform(arrange.ArrangedPart(70, score.parts[0]), score, 120, np.random.default_rng(0))
  np.testing.assert_allclose(notes['onset'], [0, 0.5, 1])
  np.testing.assert_allclose(notes['offset'], [0.45, 0.95, 1.05])
  assert (notes['program'] == 70).all() and not notes['is_drum'].any()
  assert ((notes['velocity'] >= 1) & (notes['velocity'] <= 127)).all()


def test_accents_follow_the_metre():
  score = Score('x', (part(),), bars_of([1, 3, 3], (3, 4)))
  np.testing.assert_array_equal(arrange.accents(score, np.array([0, 1, 1.5, 2, 4.0])), [0.4, 1, 0, 0.4, 1])


# Tempo


@pytest.mark.parametrize('num_bars', [2, 9, 100])
def test_fit_fills_the_time_exactly(num_bars):
  score, tempo = timing.fit(scale_score(num_bars), 30.0, 5.0, fill=True, rng=np.random.default_rng(0))
  assert score.length * 60 / tempo == pytest.approx(30 - timing.TAIL_SECONDS)
  assert timing.MIN_TEMPO <= tempo <= timing.MAX_TEMPO
  assert score.num_notes / 28.5 == pytest.approx(5.0, abs=0.3)


def test_fit_leaves_short_pieces_short_and_cuts_long_ones():
  short, tempo = timing.fit(scale_score(4), 60.0, 5.0, fill=False, rng=np.random.default_rng(0))
  assert short.length == 16 and tempo == pytest.approx(75)
  for seed in range(5):
    long, tempo = timing.fit(scale_score(100), 30.0, 5.0, fill=False, rng=np.random.default_rng(seed))
    assert long.length * 60 / tempo == pytest.approx(28.5)
    assert long.bars['start'][0] == 0 and long.num_notes / 28.5 == pytest.approx(5.0, abs=0.3)


def test_fit_keeps_the_tempo_in_range_when_density_cannot_be_met():
  _, slow = timing.fit(scale_score(100), 30.0, 0.5, fill=True, rng=np.random.default_rng(0))
  _, fast = timing.fit(scale_score(100), 30.0, 50.0, fill=True, rng=np.random.default_rng(0))
  assert timing.MIN_TEMPO <= slow < 60 and 140 < fast <= timing.MAX_TEMPO


# Drums


@hypothesis.given(st.sampled_from(METRES), st.integers(1, 20), st.booleans(), st.floats(50, 150), st.integers(0, 1000))
@hypothesis.settings(max_examples=60, deadline=None)
def test_drums_follow_the_bars(metre, num_bars, pickup, tempo, seed):
  whole = 4.0 * metre[0] / metre[1]
  beat = drums.beat_length(*metre)
  lengths = [whole] * num_bars
  if pickup and whole > beat:
    lengths = [beat, *lengths]
  score = Score('x', (part(),), bars_of(lengths, metre))
  notes = drums.play_drums(score, tempo, np.random.default_rng(seed))
  assert notes['is_drum'].all() and (notes['program'] == 0).all()
  assert ((notes['velocity'] >= 1) & (notes['velocity'] <= 127)).all()
  quarters = notes['onset'] * tempo / 60
  assert quarters.min() >= 0 and quarters.max() < score.length
  assert len(notes) == len(np.unique(np.stack([np.round(quarters, 6), notes['pitch']]), axis=1).T)
  kicks = np.round(quarters[notes['pitch'] == drums.KICK], 6)
  for bar, phase in zip(score.bars, bar_phases(score.bars), strict=True):
    if phase == 0 and metre[0] > 1:
      assert np.round(bar['start'], 6) in kicks  # every bar line has a kick
  assert len(notes) / (score.length * 60 / tempo) < 12


def test_drums_mark_the_end_of_a_phrase():
  notes = drums.play_drums(scale_score(16), 100, np.random.default_rng(0))
  toms = notes['onset'][np.isin(notes['pitch'], drums.TOMS)] * 100 / 60
  crashes = notes['onset'][notes['pitch'] == drums.CRASH] * 100 / 60
  np.testing.assert_allclose(toms, [30, 30.5, 31, 31.5])
  np.testing.assert_allclose(crashes, [0, 32])


# Sound


@pytest.mark.parametrize(
  ('program', 'is_drum', 'pitch'), [(0, False, 60), (24, False, 60), (16, False, 60), (0, True, 38)]
)
def test_audio_onset_is_at_the_label(synth, program, is_drum, pitch):
  onsets = [0.5, 1.2503, 2.0017]
  notes = as_notes([(onset, onset + 0.3, pitch, 100, 0, 0) for onset in onsets])
  audio = synth.render(notes, program, is_drum, 3.0)
  assert audio.shape == (3 * RATE,) and audio.dtype == np.float32
  assert not audio[: RATE // 2].any()
  for onset in onsets:
    attack = np.abs(audio[round(onset * RATE) : round((onset + 0.05) * RATE)])
    assert np.argmax(attack > 0.1 * attack.max()) / RATE < 0.005


def test_audio_has_the_right_pitch_and_length(synth):
  audio = synth.render(as_notes([(0.0, 1.0, 69, 100, 0, 0)]), 73, False, 1.5)
  spectrum = np.abs(np.fft.rfft(audio[:RATE] * np.hanning(RATE)))
  assert abs(int(np.argmax(spectrum)) % 440) <= 5 or abs(int(np.argmax(spectrum)) % 440 - 440) <= 5
  assert len(synth.render(as_notes([(0.0, 5.0, 69, 100, 0, 0)]), 73, False, 1.5)) == 1.5 * RATE


def test_empty_stem_is_silence(synth):
  audio = synth.render(as_notes([]), 0, False, 1.0)
  assert len(audio) == RATE and not audio.any()


def test_silent_notes_are_counted():
  notes = as_notes([(0.0, 0.5, 60, 90, 0, 0), (1.0, 1.5, 62, 90, 0, 0), (2.99, 3.0, 62, 90, 0, 0)])
  audio = np.zeros(3 * RATE, np.float32)
  assert render.silent_share(audio, notes, RATE) == 1
  audio[: RATE // 2] = 0.5
  assert render.silent_share(audio, notes, RATE) == pytest.approx(2 / 3)
  audio[:] = 0.5
  assert render.silent_share(audio, notes, RATE) == 0
  assert render.silent_share(audio, notes[:0], RATE) == 0


def test_bad_soundfonts_raise_user_errors(tmp_path):
  with pytest.raises(UserError, match='no such soundfont'):
    render.Synth(tmp_path / 'missing.sf2')
  (tmp_path / 'text.sf2').write_text('not a soundfont')
  with pytest.raises(UserError, match='is not a soundfont'):
    render.Synth(tmp_path / 'text.sf2')
  (tmp_path / 'cut.sf2').write_bytes(render.default_soundfont().read_bytes()[:2000])
  with pytest.raises(UserError, match='cannot load the soundfont'):
    render.Synth(tmp_path / 'cut.sf2')


# Recipes and the whole build


def test_fixed_plan_gives_each_split_its_share():
  demo = recipes.RECIPES['demo']
  counts = collections.Counter(split for split, _ in recipes.fixed_plan(demo, 4))
  assert counts == {'train': 3, 'test': 1}
  assert [split for split, _ in recipes.fixed_plan(demo, 2)] == ['train', 'test']
  with pytest.raises(ValueError, match='requested'):
    recipes.fixed_plan(demo, 100)


def test_demo_never_tests_on_a_work_it_trains_on():
  works = recipes.RECIPES['demo'].works
  names = [*works['train'], *works['test']]
  scores = [sources.read_score(name) for name in names]
  numbers = groups.group_scores(scores, [sources.work_of(name) for name in names])
  trained = set(numbers[: len(works['train'])])
  assert not trained & set(numbers[len(works['train']) :])


def test_draw_order_mixes_composers():
  names = [f'music21/a/{i}' for i in range(900)] + [f'music21/b/{i}' for i in range(9)]
  order = recipes.draw_order(names, np.random.default_rng(0))
  assert sorted(order) == sorted(names)
  assert 4 <= sum(name.startswith('music21/b') for name in order[:66]) <= 8  # 60 to 6, not 65 to 1
  assert order == recipes.draw_order(names, np.random.default_rng(0))


def contents(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def build_small(out, **changes):
  number = {} if 'tracks_of' in changes else {'pieces': 2}
  return build.build(out, **{**number, 'seconds': 6, 'workers': 1, 'progress': False, **changes})


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
  out = tmp_path_factory.mktemp('built') / 'set'
  report = build_small(out)
  assert (report.made, report.kept, report.splits) == (2, 0, {'train': 1, 'test': 1})
  return out


def test_built_tracks_are_music_with_drums(small_set):
  tracks = slakh_layout.find_tracks(small_set)
  assert [(track.split, track.name) for track in tracks] == [('train', 'Track00001'), ('test', 'Track00002')]
  for track in tracks:
    mix, rate = soundfile.read(track.audio_path)
    assert (rate, len(mix)) == (RATE, 6 * RATE)
    stems = slakh_layout.read_stems(track)
    classes = [(slakh_class_program(stem.program), stem.is_drum) for stem in stems]
    assert len(set(classes)) == len(stems) >= 4 and (0, True) in classes
    for stem in stems:
      notes, audio = slakh_layout.read_stem_notes(stem), soundfile.read(stem.audio_path)[0]
      assert len(notes) and notes['offset'].max() <= 6
      assert render.silent_share(audio, notes, rate) == 0
      assert layout.integrated_loudness(audio, rate) > -40


def test_an_interrupted_build_resumes(small_set, tmp_path):
  import shutil

  out = tmp_path / 'set'
  shutil.copytree(small_set, out)
  shutil.rmtree(out / 'train' / 'Track00001')
  (out / 'train' / '.Track00001.half').mkdir()
  report = build_small(out)
  assert (report.made, report.kept) == (1, 1)
  assert contents(out) == contents(small_set)  # the same bytes, and nothing left over
  assert not (out / 'train' / '.Track00001.half').exists()


def test_another_seed_is_another_arrangement(small_set, tmp_path):
  build_small(tmp_path / 'set', seed=5)
  mix = 'train/Track00001/mix.flac'
  assert (tmp_path / 'set' / mix).read_bytes() != (small_set / mix).read_bytes()


def test_tracks_of_another_set_can_be_rendered_again(small_set, tmp_path):
  """With the same settings, the tracks of a split are equal."""
  out = tmp_path / 'set'
  report = build_small(out, tracks_of=small_set, split='test')
  assert report.splits == {'test': 1}
  (track,) = (out / 'test').iterdir()
  assert (track / 'mix.flac').read_bytes() == (small_set / 'test' / track.name / 'mix.flac').read_bytes()
  assert build_small(out, tracks_of=small_set, split='test').kept == 1
  with pytest.raises(UserError, match='other tracks'):
    build_small(out, tracks_of=small_set)
  with pytest.raises(UserError, match='no tracks in the split'):
    build_small(tmp_path / 'other', tracks_of=small_set, split='validation')
  with pytest.raises(UserError, match='built here'):
    build_small(tmp_path / 'other', tracks_of=tmp_path)
  with pytest.raises(UserError, match='--tracks-of'):
    build_small(tmp_path / 'other', split='test')
  for more in ({'pieces': 3}, {'hours': 0.1}):
    with pytest.raises(UserError, match='leave --pieces and --hours out'):
      build_small(tmp_path / 'other', tracks_of=small_set, **more)


def test_held_out_songs_are_for_testing_only():
  recipe = recipes.RECIPES['held-out']
  plan = recipes.fixed_plan(recipe, recipe.pieces)
  assert {split for split, _ in plan} == {'test'} and len(plan) == recipe.pieces
  with pytest.raises(ValueError, match='requested'):
    recipes.fixed_plan(recipe, 50)


def test_other_contents_are_not_overwritten(small_set, tmp_path):
  with pytest.raises(UserError, match='other settings'):
    build_small(small_set, seed=7)
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='is not empty'):
    build_small(tmp_path)
  (tmp_path / 'dataset.json').write_text('{')
  with pytest.raises(UserError, match=r'dataset\.json is broken; choose another folder'):
    build_small(tmp_path)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['dataset.json', 'thesis.txt']


def test_force_replaces_tracks_and_nothing_else(small_set, tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  (tmp_path / 'train' / 'Track00099').mkdir(parents=True)
  with pytest.raises(UserError, match='was not built here'):  # Slakh2100 itself, for example
    build_small(tmp_path, force=True)
  (tmp_path / 'dataset.json').write_text('{')  # a broken plan of an earlier build
  with pytest.raises(UserError, match='cannot give'):
    build_small(tmp_path, force=True, pieces=1000)
  assert (tmp_path / 'train' / 'Track00099').exists()  # a build that fails early removes nothing
  build_small(tmp_path, force=True)
  assert contents(tmp_path) == {**contents(small_set), 'thesis.txt': b'mine'}
  assert not (tmp_path / 'train' / 'Track00099').exists()


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'recipe': 'soup'}, 'no such recipe'),
    ({'pieces': 1}, 'no test split'),
    ({'pieces': 1000}, 'cannot give 1000 pieces'),
    ({'seconds': 1}, 'tracks of 1 s'),
    ({'seconds': float('nan')}, 'tracks of nan s'),
    ({'seed': -1}, 'negative'),
    ({'workers': -1}, 'workers'),
    ({'soundfonts': ['nowhere.sf2']}, 'no such soundfont'),
    ({'recipe': 'corpus', 'pieces': 999999}, 'fewer with --pieces'),
    ({'recipe': 'corpus', 'hours': 1, 'pieces': 9}, 'give one of them'),
    ({'recipe': 'corpus', 'hours': 0, 'pieces': None}, '0 hours'),
    ({'recipe': 'corpus', 'drums': 2}, 'drums'),
    ({'recipe': 'corpus', 'takes': 0}, '0 takes'),
    ({'recipe': 'midi'}, 'needs a folder'),
    ({'recipe': 'demo', 'hours': 2, 'pieces': None}, 'its own pieces'),
    ({'midi': ['nowhere']}, 'no such folder'),
  ],
)
def test_invalid_settings_raise_user_errors(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    build_small(tmp_path / 'set', **changes)
  assert not (tmp_path / 'set' / 'dataset.json').exists()


def test_out_must_be_a_folder(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot make the folder'):
    build_small(tmp_path / 'file')


def test_a_program_that_is_silent_in_the_soundfont_is_replaced(monkeypatch):
  class HalfSynth(render.Synth):
    def render(self, notes, program, is_drum, seconds):
      audio = super().render(notes, program, is_drum, seconds)
      return audio * 0 if program in (0, 33) else audio

  half = HalfSynth(render.default_soundfont())
  monkeypatch.setattr(track_module, '_synth', lambda path: half)
  setup, _ = settings.prepare('demo')
  plan = track_module.TrackPlan('train', 'Track00001', 'x', programs=(40, 16, 24, 33))
  stems = track_module._pitched_stems(scale_score(4), 120, 9.5, plan, setup, np.random.default_rng(0))
  assert len(stems) >= 3 and not {stem.program for stem in stems} & {0, 33}


def cube(number):
  if number == 13:
    raise UserError('thirteen')
  return number**3


def test_parallel_keeps_order_and_propagates_errors():
  assert list(parallel.parallel(cube, [3, 1, 2], 1)) == [27, 1, 8]
  assert list(parallel.parallel(cube, [], 4)) == []
  assert list(parallel.parallel(cube, list(range(9)), 2)) == [n**3 for n in range(9)]
  with pytest.raises(UserError, match='thirteen'):
    list(parallel.parallel(cube, [1, 13, 2], 2))


def test_command_line(small_set, capsys):
  parser = argparse.ArgumentParser()
  dataset_cli.add_parser(parser.add_subparsers())
  args = parser.parse_args(['dataset', 'build', str(small_set), '--pieces', '2', '--seconds', '6', '--workers', '1'])
  assert args.run(args) == 0
  assert '2 tracks (1 train, 1 test, 2 of them built before)' in capsys.readouterr().out


@pytest.mark.slow
def test_workers_do_not_change_the_bytes(small_set, tmp_path):
  build_small(tmp_path / 'set', workers=2)
  assert contents(tmp_path / 'set') == contents(small_set)


@pytest.mark.slow
def test_demo_recipe(tmp_path):
  build.build(tmp_path, progress=False)
  tracks = slakh_layout.find_tracks(tmp_path)
  assert [track.split for track in tracks] == ['train'] * 3 + ['test']
  programs = {'train': set(), 'test': set()}
  for track in tracks:
    mix, rate = soundfile.read(track.audio_path)
    notes = slakh_layout.read_notes(track)
    assert 45 <= len(mix) / rate <= 50 and 4 <= len(notes) / (len(mix) / rate) <= 10
    programs[track.split] |= {(int(note['program']), bool(note['is_drum'])) for note in notes}
  assert programs['test'] <= programs['train']


@pytest.mark.slow
def test_corpus_recipe(tmp_path):
  report = build.build(tmp_path, recipe='corpus', pieces=10, seconds=20, progress=False)
  assert report.splits == {'train': 8, 'validation': 1, 'test': 1}
  assert len(slakh_layout.find_tracks(tmp_path)) == 10


@pytest.mark.parametrize('wait', [0.02, 0.1])
def test_an_interrupt_while_results_arrive_exits_at_once(wait, tmp_path):
  (tmp_path / 'large_results.py').write_text('def work(_):\n  return bytes(40_000_000)\n')
  script = """
from large_results import work
from mrmt3.utils.parallel import parallel
try:
  for number, _ in enumerate(parallel(work, range(100_000), 2)):
    if number == 2:
      print('results come', flush=True)
except KeyboardInterrupt:
  raise SystemExit(130)
"""
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
  process = subprocess.Popen(
    [sys.executable, '-c', script], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
  )
  try:
    assert process.stdout.readline() == 'results come\n'
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
