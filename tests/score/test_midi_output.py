"""MIDI files with bars: notes keep their times, bar lines are on the downbeats."""

import io

import mido
import numpy as np
import pretty_midi
import pytest

from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes
from mrmt3.score.analysis import Analysis
from mrmt3.score.beats import NO_BEATS, Beats
from mrmt3.score.key import Key
from mrmt3.score.midi_output import midi_clock
from mrmt3.score.tempo_map import TempoMap


def analysis_of(times, places, numerator=3, denominator=4, key=None):
  beats = Beats(np.array(times), np.array(places), numerator, denominator, 1.0)
  return Analysis(beats, TempoMap.from_beats(beats), key)


@pytest.mark.parametrize('lead', [0.0, 0.004, 0.1, 0.45, 0.9, 3.3, 11.0])
def test_notes_stay_and_bars_begin_on_downbeats(lead):
  rng = np.random.default_rng(1)
  times = lead + np.r_[0, np.cumsum(rng.uniform(0.45, 0.6, 30))]
  analysis = analysis_of(times, (np.arange(31) + 2) % 3, key=Key(9, True))
  rows = [(start, start + 0.3, 60 + k, 80, 0, False) for k, start in enumerate(lead + np.sort(rng.uniform(0, 16, 40)))]
  notes = as_notes(rows)
  data = midi.midi_bytes(notes, midi_clock(analysis, float(notes['offset'].max())))
  read = pretty_midi.PrettyMIDI(io.BytesIO(data))
  found = sorted((note.start, note.end) for note in read.instruments[0].notes)
  np.testing.assert_allclose(found, sorted(zip(notes['onset'], notes['offset'], strict=True)), atol=1e-3)
  downbeats = read.get_downbeats()
  for time in times[1::3]:
    assert np.abs(downbeats - time).min() < 1e-3
  assert [(change.numerator, change.denominator) for change in read.time_signature_changes][-1] == (3, 4)
  signatures = [
    message for message in mido.MidiFile(file=io.BytesIO(data)).tracks[0] if message.type == 'key_signature'
  ]
  assert [message.key for message in signatures] == ['Am']


def test_no_pulse_no_clock():
  assert midi_clock(Analysis(NO_BEATS, None, None), 10.0) is None


def test_without_a_clock_the_file_is_as_before():
  notes = as_notes([(0.5, 1.0, 60, 80, 0, False)])
  assert midi.midi_bytes(notes) == midi.midi_bytes(notes, None)
  tracks = mido.MidiFile(file=io.BytesIO(midi.midi_bytes(notes))).tracks
  assert [message.type for message in tracks[0]] == ['set_tempo', 'end_of_track']
