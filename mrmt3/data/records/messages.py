"""The protocol buffers of records, tf.train.Example and note_seq's NoteSequence, without TensorFlow and note_seq.

Only the fields in use are declared; the parser skips all others. Importing this module takes milliseconds; importing
TensorFlow and note_seq takes seconds in every process.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mrmt3.notes.note_array import from_tuples, labels_of

SUSTAIN = 64  # MIDI's control number of the sustain pedal

# Message name -> fields as (name, number, type or message name, whether repeated).
_EXAMPLE = {
  'Example': [('features', 1, 'Features', False)],
  'Features': [('feature', 1, 'Entry', True)],  # a map in TensorFlow's file, with the same encoding
  'Entry': [('key', 1, 'string', False), ('value', 2, 'Feature', False)],
  'Feature': [
    ('bytes_list', 1, 'BytesList', False),
    ('float_list', 2, 'FloatList', False),
    ('int64_list', 3, 'Int64List', False),
  ],
  'BytesList': [('value', 1, 'bytes', True)],
  'FloatList': [('value', 1, 'float', True)],
  'Int64List': [('value', 1, 'int64', True)],
}
_NOTE_SEQUENCE = {
  'NoteSequence': [
    ('id', 1, 'string', False),
    ('filename', 2, 'string', False),
    ('ticks_per_quarter', 4, 'int32', False),
    ('notes', 8, 'Note', True),
    ('total_time', 9, 'double', False),
    ('control_changes', 11, 'ControlChange', True),
  ],
  'Note': [
    ('pitch', 1, 'int32', False),
    ('velocity', 2, 'int32', False),
    ('start_time', 3, 'double', False),
    ('end_time', 4, 'double', False),
    ('instrument', 7, 'int32', False),
    ('program', 8, 'int32', False),
    ('is_drum', 9, 'bool', False),
  ],
  'ControlChange': [
    ('time', 1, 'double', False),
    ('control_number', 2, 'int32', False),
    ('control_value', 3, 'int32', False),
    ('instrument', 4, 'int32', False),
  ],
}
_LISTS = {'bytes_list': None, 'float_list': np.float32, 'int64_list': np.int64}


@functools.cache
def _message(name):
  """Return the class of a message."""
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

  pool = descriptor_pool.DescriptorPool()
  field_type = descriptor_pb2.FieldDescriptorProto
  messages = _EXAMPLE if name in _EXAMPLE else _NOTE_SEQUENCE
  # proto3 packs repeated numbers; parsers accept both encodings.
  file = descriptor_pb2.FileDescriptorProto(name='records.proto', package='mrmt3', syntax='proto3')
  for message, fields in messages.items():
    described = file.message_type.add(name=message)
    for field, number, kind, repeated in fields:
      label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
      if kind in messages:
        described.field.add(
          name=field, number=number, label=label, type=field_type.TYPE_MESSAGE, type_name=f'.mrmt3.{kind}'
        )
      else:
        described.field.add(name=field, number=number, label=label, type=getattr(field_type, f'TYPE_{kind.upper()}'))
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'mrmt3.{name}'))


class Example:
  """A parsed tf.train.Example: features by name.

  Supports `name in example` and iteration over names, like a dictionary. `example[name]` is a list of bytes, a float32
  array or an int64 array.

  Raises:
    ValueError: the data is not a tf.train.Example.
  """

  def __init__(self, data: bytes):
    from google.protobuf.message import DecodeError

    try:
      message = _message('Example').FromString(data)
    except DecodeError as error:
      raise ValueError('not a tf.train.Example') from error
    self._features = {entry.key: entry.value for entry in message.features.feature}

  def __contains__(self, name: str) -> bool:
    return name in self._features

  def __iter__(self):
    return iter(self._features)

  def get(self, name: str, default=None):
    """Return a feature, or `default` if the example does not have it."""
    return self[name] if name in self else default  # noqa: SIM401

  def __getitem__(self, name: str) -> list[bytes] | np.ndarray:
    feature = self._features[name]
    for kind, dtype in _LISTS.items():
      if feature.HasField(kind):
        values = getattr(feature, kind).value
        return list(values) if dtype is None else np.array(values, dtype)
    return []


def serialize_example(features: Mapping[str, bytes | Sequence[bytes] | np.ndarray]) -> bytes:
  """Return features as a serialized tf.train.Example, sorted by name.

  Args:
    features: name -> bytes, a sequence of bytes, or a one-dimensional array. Floats are written as float32, integers
      as int64.
  """
  message = _message('Example')()
  for name, value in sorted(features.items()):
    feature = message.features.feature.add(key=name).value
    if isinstance(value, np.ndarray) and value.dtype.kind == 'f':
      # Encoded as one block of bytes. Appending a minute of samples one by one would take a tenth of a second.
      packed = value.astype('<f4').tobytes()
      feature.float_list.ParseFromString(b'\x0a' + _varint(len(packed)) + packed)
    elif isinstance(value, np.ndarray):
      feature.int64_list.value.extend(value.tolist())
    else:
      feature.bytes_list.value.extend([value] if isinstance(value, bytes) else value)
  return message.SerializeToString()


def _varint(number):
  """Return a number as a protocol buffer varint, seven bits per byte."""
  out = bytearray()
  while number > 127:
    out.append(number & 127 | 128)
    number >>= 7
  return bytes([*out, number])


def parse_note_sequence(data: bytes):
  """Return a parsed NoteSequence (its notes and control changes); ValueError for other data."""
  from google.protobuf.message import DecodeError

  try:
    return _message('NoteSequence').FromString(data)
  except DecodeError as error:
    raise ValueError('not a NoteSequence') from error


def serialize_notes(
  notes: np.ndarray, sequence_id: str = '', total_time: float = 0.0, pedal: Iterable[tuple[float, int]] = ()
) -> bytes:
  """Return a note array as a serialized NoteSequence, without loss. Each program is one instrument; drums are 9.

  Args:
    notes: note array.
    sequence_id: the sequence's id.
    total_time: length of the sequence in s; the last note's offset is the minimum.
    pedal: (time in s, value 0..127) of the sustain pedal of the first program's instrument.
  """
  pitched = np.unique(notes['program'][~notes['is_drum']])
  instrument = np.searchsorted(pitched, notes['program'])
  instrument = np.where(notes['is_drum'], 9, instrument + (instrument >= 9))
  sequence = _message('NoteSequence')(id=sequence_id, ticks_per_quarter=220)
  for note, number in zip(labels_of(notes).tolist(), instrument.tolist(), strict=True):
    onset, offset, pitch, velocity, program, is_drum = note
    sequence.notes.add(
      start_time=onset,
      end_time=offset,
      pitch=pitch,
      velocity=velocity,
      program=program,
      is_drum=is_drum,
      instrument=number,
    )
  for time, value in pedal:
    sequence.control_changes.add(time=time, control_number=SUSTAIN, control_value=value, instrument=0)
  sequence.total_time = max(total_time, notes['offset'].max(initial=0.0))
  return sequence.SerializeToString()


def sequence_notes(sequence) -> tuple[np.ndarray, np.ndarray]:
  """Return (note array in the sequence's order, instrument numbers as int64 `[notes]`) of a parsed NoteSequence."""
  rows = [(n.start_time, n.end_time, n.pitch, n.velocity, n.program, n.is_drum) for n in sequence.notes]
  return from_tuples(rows), np.array([n.instrument for n in sequence.notes], np.int64)
