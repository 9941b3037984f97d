"""Feature names of MT3's published records, and decoding of a record into a piece.

| layout | audio | notes | programs |
|---|---|---|---|
| maestro | `audio`: a wav file | `sequence`: a NoteSequence | as in the sequence |
| guitarset | `audio`: a wav file | `sequence` | 24 |
| urmp | `audio`: a wav file | `instrument_sequences`, one per player | by `inst_names` (vn, va, ...) |
| musicnet | `audio`: float samples, `sample_rate` | `sequence` | as in the sequence |
| cerberus4 | `mix`: samples, `audio_sample_rate`; `stems` | `note_sequences`, one per stem | by `inst_names` (1) |
| slakh | as cerberus4 | as cerberus4 | by `inst_names` (2) |

(1) bass, drums, guitar, piano; (2) the Slakh class, or Drums.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mrmt3.audio.files import decode_audio, resample
from mrmt3.data.piece_source import PieceContent
from mrmt3.data.records.messages import SUSTAIN, Example, parse_note_sequence, sequence_notes
from mrmt3.errors import UserError
from mrmt3.notes.instruments import SLAKH_CLASSES
from mrmt3.notes.midi import apply_sustain
from mrmt3.notes.note_array import empty_notes, sort_order

_PEDAL_DOWN = 64  # control values from 64 up mean that the pedal is down

URMP_PROGRAMS = {
  'vn': 40,
  'va': 41,
  'vc': 42,
  'db': 43,
  'tpt': 56,
  'tbn': 57,
  'tba': 58,
  'hn': 60,
  'sax': 64,
  'ob': 68,
  'bn': 70,
  'cl': 71,
  'fl': 73,
}
CERBERUS4_PROGRAMS = {'bass': 32, 'drums': None, 'guitar': 24, 'piano': 0}


@dataclasses.dataclass(frozen=True)
class RecordLayout:
  """Names of the features of a record.

  Attributes:
    audio: feature with the bytes of an audio file, or with float samples if `sample_rate` is set.
    sequences: feature with the NoteSequences: one per name in `names`, or a single one.
    sample_rate: feature with the rate of float samples in Hz; None if the audio is a file.
    names: feature with the instrument names of the sequences; None if one sequence holds all instruments.
    programs: instrument name -> program, None for drums; empty without `names`.
    program: one program for all notes, if there are no `names`; None keeps the programs of the sequence.
    stems: feature with the float samples of all stems, concatenated, and their shape in `<stems>_shape`; None without
      stems.
  """

  audio: str = 'audio'
  sequences: str = 'sequence'
  sample_rate: str | None = None
  names: str | None = None
  programs: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
  program: int | None = None
  stems: str | None = None


_MULTITRACK = RecordLayout(
  'mix', 'note_sequences', 'audio_sample_rate', 'inst_names', CERBERUS4_PROGRAMS, stems='stems'
)
LAYOUTS = {
  'maestro': RecordLayout(),
  'guitarset': RecordLayout(program=24),
  'urmp': RecordLayout(sequences='instrument_sequences', names='inst_names', programs=URMP_PROGRAMS),
  'musicnet': RecordLayout(sample_rate='sample_rate'),
  'cerberus4': _MULTITRACK,
  'slakh': dataclasses.replace(_MULTITRACK, programs={**SLAKH_CLASSES, 'Drums': None}),
}


def decode_record(data: bytes, layout: RecordLayout, where: str, sample_rate: int, stems: bool = False) -> PieceContent:
  """Return the piece of a record.

  Sustain is applied per instrument, except to drums, as in MT3; pitch bends are ignored. Notes without length stay in
  the note array. If `stems` is set and the record has stems, the samples are their sum.

  Args:
    data: a serialized tf.train.Example.
    layout: its feature names.
    where: name of the record in error messages.
    sample_rate: of the result, Hz.
    stems: whether to read the stems.

  Raises:
    UserError: a feature is missing or has the wrong type, or an instrument name is unknown.
  """
  try:
    example = Example(data)
  except ValueError as error:
    raise UserError(f'{where}: {error}; check that the file holds records of this layout') from error
  notes, stem = _notes(example, layout, where)
  rows = _stems(example, layout, where, sample_rate) if stems and layout.stems else None
  order = sort_order(notes)
  if rows is None:
    return PieceContent(_audio(example, layout, where, sample_rate), notes[order])
  return PieceContent(rows.sum(axis=0), notes[order], rows, stem[order])


def _feature(example, name, where):
  if name not in example:
    raise UserError(f'{where}: no feature {name!r}, only {", ".join(sorted(example))}; choose another layout')
  return example[name]


def _only(example, name, where):
  values = _feature(example, name, where)
  if len(values) != 1:
    raise UserError(f'{where}: the feature {name!r} has {len(values)} values instead of one; choose another layout')
  return values[0]


def _audio(example, layout, where, sample_rate):
  if layout.sample_rate is None:
    sound = _only(example, layout.audio, where)
    if not isinstance(sound, bytes):
      raise UserError(f'{where}: the feature {layout.audio!r} is not an audio file; choose another layout')
    return decode_audio(sound, where, sample_rate, whole=True)
  return _at_rate(_samples(example, layout.audio, where), example, layout, where, sample_rate)


def _samples(example, name, where):
  samples = _feature(example, name, where)
  if not (isinstance(samples, np.ndarray) and samples.dtype == np.float32 and len(samples)):
    raise UserError(f'{where}: the feature {name!r} holds no samples; choose another layout')
  return samples


def _at_rate(samples, example, layout, where, sample_rate):
  rate = float(_only(example, layout.sample_rate, where))
  if not (rate > 0 and rate.is_integer()):
    raise UserError(f'{where}: the sample rate is {rate:g} Hz, not a positive integer; get the file again')
  # Resampling would spread NaN over seconds, so leave such samples to piece_validation.
  return samples if not np.isfinite(samples).all() else resample(samples, int(rate), sample_rate)


def _stems(example, layout, where, sample_rate):
  """Return the stems, float32 `[stems, n]`, or None if the record has none."""
  if layout.stems not in example or not len(example[layout.stems]):
    return None
  samples = _samples(example, layout.stems, where)
  shape = [int(size) for size in _feature(example, f'{layout.stems}_shape', where)]
  count = len(_feature(example, layout.names, where))
  if len(shape) != 2 or np.prod(shape) != len(samples) or count not in shape:
    raise UserError(
      f'{where}: stems of shape {shape} do not match {len(samples)} samples of {count} instruments; get the file again'
    )
  rows = samples.reshape(shape)
  rows = rows if shape[0] == count else rows.T
  return np.stack([_at_rate(np.ascontiguousarray(row), example, layout, where, sample_rate) for row in rows])


def _notes(example, layout, where):
  """Return (unsorted note array, index of each note's sequence as int32 `[notes]`)."""
  sequences = _feature(example, layout.sequences, where)
  if layout.names is None:
    sequences = [_only(example, layout.sequences, where)]
    programs = [None]
  else:
    names = [name.decode('utf-8', 'replace') for name in _feature(example, layout.names, where)]
    if len(names) != len(sequences):
      raise UserError(
        f'{where}: {len(sequences)} note sequences for {len(names)} instruments; '
        'the record is damaged, get the file again'
      )
    unknown = [name for name in names if name not in layout.programs]
    if unknown:
      raise UserError(f'{where}: unknown instrument {unknown[0]!r}, expected one of {", ".join(layout.programs)}')
    programs = [layout.programs[name] for name in names]
  tables = []
  for sequence, program in zip(sequences, programs, strict=True):
    try:
      notes = _sustained(parse_note_sequence(sequence))
    except (TypeError, ValueError) as error:
      raise UserError(f'{where}: the feature {layout.sequences!r} holds no NoteSequence: {error}') from error
    if layout.names is not None:
      notes['is_drum'] = program is None
      notes['program'] = program or 0
    elif layout.program is not None:
      notes['is_drum'], notes['program'] = False, layout.program
    notes['program'][notes['is_drum']] = 0
    tables.append(notes)
  sizes = [len(table) for table in tables]
  return np.concatenate(tables) if tables else empty_notes(), np.repeat(np.arange(len(tables), dtype=np.int32), sizes)


def _sustained(sequence):
  """Return the notes of a NoteSequence with the sustain pedal of each instrument applied."""
  notes, instrument = sequence_notes(sequence)
  changes = [
    (c.time, c.control_value >= _PEDAL_DOWN, c.instrument)
    for c in sequence.control_changes
    if c.control_number == SUSTAIN
  ]
  if not changes:
    return notes
  times, is_down, pedal_instrument = (np.array(column) for column in zip(*changes, strict=True))
  is_pitched = ~notes['is_drum'] & (notes['offset'] > notes['onset'])
  end = max(times.max(), notes['offset'][is_pitched].max(initial=0.0))
  sustained = [notes[~is_pitched]]
  for number in np.unique(instrument[is_pitched]):
    pedal = pedal_instrument == number
    sustained.append(apply_sustain(notes[is_pitched & (instrument == number)], times[pedal], is_down[pedal], end))
  return np.concatenate(sustained)
