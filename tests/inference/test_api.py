"""The Python API: transcribe in one line, save by suffix, short reprs, and clear errors."""

import builtins
import json

import jax
import mido
import numpy as np
import pytest

import mrmt3
from mrmt3.errors import UserError
from mrmt3.inference import loading
from mrmt3.inference.outputs import KINDS
from mrmt3.inference.transcriber import Transcriber
from mrmt3.inference.transcription import Transcription
from mrmt3.note_sequences import DecodingStats
from mrmt3.notes import midi
from mrmt3.notes.note_array import as_notes

RATE = 16000
NOTES = as_notes([(0.5 * k, 0.5 * k + 0.4, 60 + k % 5, 100, 0, 0) for k in range(16)] + [(1.0, 2.0, 40, 90, 33, 0)])
RESULT = Transcription(NOTES, DecodingStats(segments=2), [], 9.0)


def test_transcribe_is_the_transcriber_loaded_once(small_model, monkeypatch):
  samples = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32)
  expected = mrmt3.load(small_model).transcribe(samples, RATE)
  loads = []
  original = Transcriber.load.__func__
  monkeypatch.setattr(Transcriber, 'load', classmethod(lambda cls, path: loads.append(path) or original(cls, path)))
  loading._loaded.cache_clear()
  for _ in range(2):
    result = mrmt3.transcribe(samples, RATE, checkpoint=small_model)
    assert np.array_equal(result.notes, expected.notes)
  assert len(loads) == 1
  with pytest.raises(UserError, match='no such file'):
    mrmt3.transcribe('nowhere.wav', checkpoint=small_model)


def test_warmup_compiles_what_the_first_piece_needs(small_model):
  transcriber = mrmt3.load(small_model)
  assert transcriber.warmup() > 0
  compiled = []
  with jax.log_compiles():
    import logging

    handler = logging.Handler()
    handler.emit = lambda record: compiled.append(record.getMessage())
    logger = logging.getLogger('jax._src.interpreters.pxla')
    logger.addHandler(handler)
    try:
      transcriber.transcribe(np.full(30000, 0.1, np.float32), RATE)
    finally:
      logger.removeHandler(handler)
  assert not [line for line in compiled if 'transcribe_segments' in line]


def test_reprs_are_short(small_model):
  assert repr(RESULT) == '<Transcription: 17 notes, 2 instruments, 9.0 s>'
  text = repr(mrmt3.load(small_model))
  assert text.startswith('<Transcriber: ') and len(text) < 200 and '\n' not in text


@pytest.mark.parametrize('suffix', ['.mid', '.MIDI', '.json', '.csv', '.musicxml', '.png', '.svg', '.wav'])
def test_save_writes_what_the_suffix_says(tmp_path, suffix):
  pytest.importorskip({'.svg': 'verovio', '.wav': 'symusic'}.get(suffix, 'numpy'))
  path = tmp_path / f'song{suffix}'
  RESULT.save(path, tempo='120' if suffix in ('.musicxml', '.svg') else 'none')
  data = path.read_bytes()
  starts = {'.png': b'\x89PNG', '.svg': b'<svg', '.wav': b'RIFF', '.musicxml': b'<?xml', '.csv': b'onset'}
  if suffix.lower().startswith('.mid'):
    assert len(midi.read_midi(path)) == len(NOTES)
  elif suffix == '.json':
    assert len(json.loads(data)['notes']) == len(NOTES)
  else:
    assert data.startswith(starts[suffix])
  assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_save_with_a_tempo_has_bars(tmp_path):
  RESULT.save(tmp_path / 'song.mid', tempo='120')
  kinds = {message.type for message in mido.MidiFile(tmp_path / 'song.mid').tracks[0]}
  assert {'set_tempo', 'time_signature', 'key_signature'} <= kinds


def test_save_refuses_unknown_suffixes_and_bad_options(tmp_path):
  with pytest.raises(UserError, match='must end in one of '):
    RESULT.save(tmp_path / 'song.doc')
  with pytest.raises(UserError):
    RESULT.save(tmp_path / 'song.mid', tempo='fast')
  with pytest.raises(UserError, match='tempo'):
    RESULT.save(tmp_path / 'song.mid', quantize='1/16')
  assert not list(tmp_path.iterdir())
  assert {'.mid', '.musicxml', '.json', '.csv'} <= set(KINDS)


def test_a_note_sequence_names_the_extra(monkeypatch):
  original = builtins.__import__

  def without(name, *args, **kwargs):
    if name.split('.')[0] == 'note_seq':
      raise ModuleNotFoundError("No module named 'note_seq'", name='note_seq')
    return original(name, *args, **kwargs)

  monkeypatch.setattr(builtins, '__import__', without)
  with pytest.raises(UserError, match=r'note_seq.*mrmt3\[train\]'):
    RESULT.note_sequence()
