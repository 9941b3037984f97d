"""Target tokens of any segment of a piece, from its note array. This is the hot path of training, in numpy.

A piece is sorted and rounded once (`encode_piece`); a segment is then a slice of its events (`segment_targets`).
Frames are audio frames and steps are token time steps. Both are integers and are compared as integers.
"""

import dataclasses
from fractions import Fraction

import numpy as np

from mrmt3 import run_length_encoding, vocabularies
from mrmt3.event_codec import Codec
from mrmt3.special_tokens import EOS_ID
from mrmt3.tokens import shuffling

FRAMES_PER_SECOND = 125  # hops of 128 samples at 16 kHz

_ABSENT = run_length_encoding.ABSENT
_NEVER = np.iinfo(np.int32).max
_EOS = np.array([EOS_ID], np.int32)
MAX_SECONDS = 10_000_000  # steps stay far from the end of int32
_PITCHES = vocabularies.MAX_PITCH + 1


@dataclasses.dataclass(frozen=True)
class PieceEvents:
  """The events of a piece in the order in which they are encoded. All columns are int32 `[events]`.

  Attributes:
    step: time in steps from the start of the piece, not decreasing.
    program: program token at the piece's granularity; -1 if none is encoded (drums, 'flat', onsets only).
    velocity_bin: 0 for a note-off; -1 if none is encoded (onsets only).
    pitch: MIDI pitch; for drums the drum key.
    is_drum: 0 or 1.
    until: for a note-on, the step of the next event of the same pitch and instrument: the note can be tied until then.
      0 for events that are never tied: note-offs, drums, and all events if only onsets are encoded.
    tie_key: sort key of the note in a tie section, by program (before any change of granularity) and pitch.
  """

  step: np.ndarray
  program: np.ndarray
  velocity_bin: np.ndarray
  pitch: np.ndarray
  is_drum: np.ndarray
  until: np.ndarray
  tie_key: np.ndarray

  def __len__(self) -> int:
    return len(self.step)

  def to_array(self) -> np.ndarray:
    """Return the columns as one int32 array `[events, 7]`."""
    return np.stack([getattr(self, field.name) for field in dataclasses.fields(self)], axis=-1)

  @classmethod
  def from_array(cls, array: np.ndarray) -> 'PieceEvents':
    """Return the events of an array from `to_array`, as views; ValueError for an array of another shape."""
    array = np.asarray(array, np.int32)
    num_columns = len(dataclasses.fields(cls))
    if array.ndim != 2 or array.shape[1] != num_columns:
      raise ValueError(f'events of a piece are an array [events, {num_columns}], got shape {array.shape}')
    return cls(*array.T)


def encode_piece(
  notes: np.ndarray, codec: Codec, granularity: str = 'full', *, onsets_only: bool = False, rounded_order: bool = False
) -> PieceEvents:
  """Sort the notes of a piece into events, once for all its segments.

  Args:
    notes: note array. Trim overlapping notes first if you do not want them.
    codec: sets time resolution and velocity bins.
    granularity: 'flat', 'midi_class' or 'full', see `vocabularies.PROGRAM_GRANULARITIES`.
    onsets_only: whether to encode only the pitches of note-ons, drums included (MT3's onset encoding).
    rounded_order: whether to round times before sorting events by time, see `ExampleConfig`.

  Raises:
    ValueError: a note is out of range, or the granularity is unknown.
  """
  if granularity not in vocabularies.PROGRAM_GRANULARITIES:
    raise ValueError(f'unknown granularity {granularity!r}: choose one of {tuple(vocabularies.PROGRAM_GRANULARITIES)}')
  _check_notes(notes)
  # Sort by time *before* rounding, as in MT3: within a step an early onset precedes a late offset. Events of equal time
  # (with rounded_order: of equal step) are ordered offsets first, then by (is_drum, program, pitch).
  if onsets_only:
    notes = notes[np.argsort(notes['pitch'], kind='stable')]
    notes['is_drum'], ending = False, notes[:0]
  else:
    notes = notes[np.lexsort((notes['pitch'], notes['program'], notes['is_drum']))]
    notes = notes[notes['is_drum'] | (notes['offset'] > notes['onset'])]
    ending = notes[~notes['is_drum']]
  time = np.concatenate([ending['offset'], notes['onset']])
  step = np.rint(time * codec.steps_per_second).astype(np.int32)
  if rounded_order:
    # A note ends at least one step after its onset. Otherwise its offset would be sorted first.
    began = np.rint(ending['onset'] * codec.steps_per_second).astype(np.int32)
    step[: len(ending)] = np.maximum(step[: len(ending)], began + 1)
  order = np.argsort(step if rounded_order else time, kind='stable')
  ordered = np.concatenate([ending, notes])[order]
  is_onset = order >= len(ending)
  step = step[order]

  is_drum, program, pitch = ordered['is_drum'], ordered['program'], ordered['pitch']
  velocity_bin = vocabularies.velocity_to_bin(ordered['velocity'], vocabularies.num_velocity_bins_from_codec(codec))
  written = vocabularies.PROGRAM_GRANULARITIES[granularity].program_map_fn(program)
  tie_key = program * _PITCHES + pitch
  sounds_on = is_onset & ~is_drum & (not onsets_only)
  return PieceEvents(
    step=step,
    program=np.where(is_drum | onsets_only | (granularity == 'flat'), _ABSENT, written),
    velocity_bin=np.where(onsets_only, _ABSENT, np.where(is_onset, velocity_bin, 0)),
    pitch=pitch.copy(),
    is_drum=is_drum.astype(np.int32),
    until=np.where(sounds_on, _next_step(step, np.where(is_drum, _ABSENT, tie_key)), 0),
    tie_key=tie_key,
  )


def _check_notes(notes):
  last = {'pitch': vocabularies.MAX_PITCH, 'program': vocabularies.MAX_PROGRAM, 'velocity': vocabularies.MAX_VELOCITY}
  first = {'pitch': 0, 'program': 0, 'velocity': 1}
  for field in last:
    outside = (notes[field] < first[field]) | (notes[field] > last[field])
    if outside.any():
      raise ValueError(f'a note has {field} {notes[field][outside][0]}, not within {first[field]}..{last[field]}')
  for field in ('onset', 'offset'):
    if not ((notes[field] >= 0) & (notes[field] <= MAX_SECONDS)).all():  # false for NaN as well
      raise ValueError(f'a note has an {field} that is not within 0..{MAX_SECONDS} s')


def _next_step(step, key):
  """Return the step of the next event that has the same key `[events]`, `_NEVER` after the last one."""
  order = np.argsort(key, kind='stable')
  following = np.full(len(step), _NEVER, np.int32)
  same = key[order[1:]] == key[order[:-1]]
  following[order[:-1][same]] = step[order[1:][same]]
  return following


def covering_step(frame: int, codec: Codec, frames_per_second=FRAMES_PER_SECOND) -> int:
  """Return the last step that is not later than the start of a frame."""
  # Exact integer arithmetic without new Fraction objects: training calls this several times per example.
  steps, frames = codec.steps_per_second, frames_per_second
  if not isinstance(steps, int):
    steps = Fraction(steps)
  if not isinstance(frames, (int, Fraction)):
    frames = Fraction(frames)
  return int(frame) * steps.numerator * frames.denominator // (steps.denominator * frames.numerator)


def segment_targets(
  piece: PieceEvents,
  start_frame: int,
  num_frames: int,
  *,
  codec: Codec,
  frames_per_second: int | Fraction = FRAMES_PER_SECOND,
  piece_frames: int | None = None,
  ties: bool = True,
  shuffle: shuffling.Shuffle | None = None,
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Return the target of a segment: int32 model ids `[tokens]`, EOS included.

  Args:
    piece: the piece's events, from `encode_piece` with the same codec.
    start_frame: first frame of the segment.
    num_frames: frames in the segment.
    codec: the codec.
    frames_per_second: audio frames per second, exact.
    piece_frames: frames in the piece. The segment with the last frame takes all remaining events, also those after the
      end of the audio. None: no segment does.
    ties: whether to begin with a tie section, the notes that sound on from before the segment.
    shuffle: how to permute events of one step; None keeps their order.
    rng: random generator for `shuffle`.

  After the last event of a piece the tie section is empty (MT3's repeats the notes that ended last).

  Raises:
    ValueError: the segment starts before frame 0 or has no frames, or `shuffle` is given without `rng`.
  """
  if start_frame < 0 or num_frames < 1:
    raise ValueError(
      f'start_frame is {start_frame} and num_frames {num_frames}; a segment starts at frame 0 or later and has frames'
    )
  if shuffle is not None and rng is None:
    raise ValueError('shuffling needs a random generator: give rng')
  start_step = covering_step(start_frame, codec, frames_per_second)
  first = piece.step.searchsorted(np.int32(start_step))
  last = len(piece)
  if piece_frames is None or start_frame + num_frames < piece_frames:
    last = piece.step.searchsorted(np.int32(covering_step(start_frame + num_frames, codec, frames_per_second)))
  tokens = _event_tokens(piece, slice(first, last), start_step, codec, shuffle, rng)
  if ties:
    tokens = np.concatenate([_tie_section(piece, first, start_step, codec), tokens])
  tokens = run_length_encoding.remove_redundant_state_changes(tokens, codec)
  return np.concatenate([vocabularies.encode_ids(tokens), _EOS])


def empty_segment(codec: Codec) -> np.ndarray:
  """Return the target of a segment without notes, `[tie, EOS]`: int32 model ids."""
  tie_id, _ = codec.event_type_range('tie')
  return np.append(vocabularies.encode_ids([tie_id]), np.int32(EOS_ID))


def _event_tokens(piece, window, start_step, codec, shuffle, rng):
  """Return the regular ids of the events in a slice of the piece, with every state change."""
  step = piece.step[window] - start_step
  columns = piece.program[window], piece.velocity_bin[window], piece.pitch[window], piece.is_drum[window]
  if shuffle is not None:
    program, velocity_bin, pitch, is_drum = columns
    key = ((program + 1) * 2 + is_drum) * _PITCHES + pitch
    order = shuffling.shuffled_order(step, velocity_bin != 0, key, shuffle, rng)
    columns = [column[order] for column in columns]
  program, velocity_bin, pitch, is_drum = columns
  event_ids = np.empty((len(step), 3), np.int32)
  event_ids[:, 0] = _ids_or_absent('program', program, codec)
  event_ids[:, 1] = _ids_or_absent('velocity', velocity_bin, codec)
  event_ids[:, 2] = np.where(is_drum, codec.event_type_range('drum')[0], codec.event_type_range('pitch')[0]) + pitch
  return run_length_encoding.run_length_encode(step, event_ids, codec)


def _tie_section(piece, first, start_step, codec):
  """Return regular ids: program and pitch of each note that sounds before event `first`, then the tie."""
  sounding = (piece.until[:first] >= start_step).nonzero()[0]
  sounding = sounding[piece.tie_key[sounding].argsort(kind='stable')]
  tokens = np.empty(2 * len(sounding) + 1, np.int32)
  tokens[:-1:2] = _ids_or_absent('program', piece.program[sounding], codec)
  tokens[1::2] = codec.event_type_range('pitch')[0] + piece.pitch[sounding]
  tokens[-1] = codec.event_type_range('tie')[0]
  return tokens[tokens != _ABSENT]


def _ids_or_absent(event_type, values, codec):
  return np.where(values == _ABSENT, _ABSENT, codec.event_type_range(event_type)[0] + values)
