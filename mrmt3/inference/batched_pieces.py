"""Continuous batching: several pieces in one batch, each with a memory of its own; long pieces need no more memory.

A piece takes a slot, `hop` rows of the network's batch, and the next piece takes it over when it ends. A piece's
segments are decoded `hop` at a time, each with the memory of the segment `hop` back: the one before for hop 1, as in
MR-MT3.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from mrmt3.audio.level import LevelMeter
from mrmt3.config import ModelSpec
from mrmt3.inference import memory
from mrmt3.inference import segments as piece_segments
from mrmt3.inference.transcription import Segment, Transcription
from mrmt3.note_sequences import DecodingStats, SegmentDecoder
from mrmt3.notes.note_array import empty_notes
from mrmt3.special_tokens import EOS_ID

KeepNotes = Callable[[np.ndarray], np.ndarray]
# (log-mel frames [rows, frames, mel], memory, active rows) -> tokens [rows, length]
DecodeRows = Callable[[np.ndarray, memory.Memory, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Piece:
  """A piece to transcribe.

  Attributes:
    blocks: its samples at the model's sample rate, mono, float32 `[n]` each.
    key: identifies it.
    known: tokens of its first segments, where they have been decoded before.
  """

  blocks: Iterable[np.ndarray]
  key: Any = None
  known: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Update:
  """What is new about a piece.

  Attributes:
    piece: which one.
    segments: the segments decoded since the last update.
    notes: table of the notes that are complete since the last update, in the order of completion.
    seconds: how much of the audio has been decoded.
    left_out: number of notes that are complete and not kept.
    is_silent: whether the audio has been silent so far, see `LevelMeter`.
    stats: statistics of the whole piece with its last update, else None.
    error: what went wrong, which ends the piece, or None.
  """

  piece: Piece
  segments: list[Segment] = dataclasses.field(default_factory=list)
  notes: np.ndarray = dataclasses.field(default_factory=empty_notes)
  seconds: float = 0.0
  left_out: int = 0
  is_silent: bool = False
  stats: DecodingStats | None = None
  error: Exception | None = None


def pad_tokens(tokens: np.ndarray, length: int) -> np.ndarray:
  """Return tokens `[n]` followed by padding up to `length`."""
  return np.pad(tokens, (0, length - len(tokens)))


def until_eos(tokens: np.ndarray) -> np.ndarray:
  """Return the tokens `[n]` up to and including the first EOS; all of them if there is none."""
  ends = np.flatnonzero(tokens == EOS_ID)
  return tokens[: ends[0] + 1] if len(ends) else tokens


class Slot:
  """A place in the batch with a piece in it: its segments to come, its memory, and its notes so far."""

  def __init__(
    self,
    piece: Piece,
    spec: ModelSpec,
    hop: int,
    decoder: SegmentDecoder,
    keep: KeepNotes | None,
    has_memory: bool = True,
  ):
    """Start a piece.

    Args:
      piece: the piece.
      spec: of the model.
      hop: segments per group.
      decoder: turns tokens into notes.
      keep: returns the notes of an array that are kept, with their final programs; None: all.
      has_memory: whether segments are conditioned on those before; if not, each is decoded as if it were the first.
    """
    self.piece, self.finished = piece, False
    self._has_memory = has_memory
    self._spec, self._hop, self._decoder, self._keep = spec, hop, decoder, keep
    self._frames, self._config = spec.step_frames, spec.spectrogram
    self._context = spec.decoding.context_frames
    self._meter = LevelMeter(self._config.sample_rate)
    self._cut = piece_segments.cut(piece.blocks, spec, self._meter)
    self._memory = memory.of_group(spec, hop) if has_memory else memory.empty(spec, hop)
    self._count = 0  # segments decoded

  @property
  def memory(self) -> memory.Memory:
    """What the next group is conditioned on, `hop` rows."""
    return self._memory

  def next_group(self) -> list[piece_segments.Segment]:
    """Return up to `hop` segments; raises what reading the audio raises."""
    group = []
    for segment in self._cut:
      group.append(segment)
      if len(group) == self._hop:
        break
    return group

  def replay(self) -> Update | None:
    """Take the tokens that are known already, in whole groups; returns None if there are none."""
    update = None
    known = self.piece.known
    while not self.finished and self._count + self._hop <= len(known):
      group = self.next_group()
      tokens = known[self._count : self._count + len(group)]
      part = self.take(group, [pad_tokens(row, self._spec.targets_length) for row in tokens])
      update = part if update is None else _joined(update, part)
    return update

  def take(self, group: list[piece_segments.Segment], tokens: Iterable[np.ndarray]) -> Update:
    """Take the tokens `[length]` of each segment of a group."""
    segments, notes, seconds = [], [], 0.0
    tokens = list(tokens)
    for (_, samples, last), row in zip(group, tokens, strict=True):
      start = self._count * self._frames
      self._count += 1
      notes.append(self._decoder.segment(row, start, None if last else start + self._frames))
      segments.append(Segment(float(start / self._config.frame_rate), until_eos(row)))
      own = min(samples - self._context * self._config.hop_width, self._frames * self._config.hop_width)
      seconds = (start * self._config.hop_width + own) / self._config.sample_rate
      self.finished = last
    stats = None
    if self.finished:
      rest, stats = self._decoder.finish()
      notes.append(rest)
    elif self._has_memory:
      self._memory = memory.after(self._memory, np.stack(tokens), self._spec, one_piece=True)
    found = np.concatenate(notes)
    if self.finished and self._context:
      # The padding behind the audio is detected as a hit where the audio breaks off.
      found = found[found['onset'] < seconds]
    kept = found if self._keep is None else self._keep(found)
    return Update(self.piece, segments, kept, seconds, len(found) - len(kept), self._meter.is_silent, stats)


def _joined(first: Update, second: Update) -> Update:
  notes = np.concatenate([first.notes, second.notes])
  left_out = first.left_out + second.left_out
  return dataclasses.replace(second, segments=first.segments + second.segments, notes=notes, left_out=left_out)


def run(
  pieces: Iterable[Piece],
  spec: ModelSpec,
  decode: DecodeRows,
  note_decoder: Callable[..., SegmentDecoder],
  *,
  batch: int,
  hop: int,
  keep: KeepNotes | None = None,
  has_memory: bool = True,
) -> Iterator[Update]:
  """Decode pieces, `batch` of them at a time; the next one starts where one has ended.

  Args:
    pieces: taken one by one, when there is room.
    spec: of the model.
    decode: decodes a batch of segments.
    note_decoder: makes what turns the tokens of one piece into notes; called with `keep_notes`.
    batch: how many pieces are decoded together.
    hop: segments of a piece at once.
    keep: returns the notes of an array that are kept, with their final programs; None: all.
    has_memory: whether segments are conditioned on those before; if not, each is decoded as if it were the first.

  Yields:
    an `Update` for each group of segments of each piece. A piece that cannot be read ends with an error in its update;
    the others go on.
  """
  waiting, slots = iter(pieces), [None] * batch
  while True:
    groups = {}
    for place in range(batch):
      while place not in groups:
        if slots[place] is None:
          piece = next(waiting, None)
          if piece is None:
            break
          slots[place] = Slot(piece, spec, hop, note_decoder(keep_notes=False), keep, has_memory)
        slot = slots[place]
        try:
          update = slot.replay()
          if update is not None:
            yield update
          if not slot.finished:
            groups[place] = slot.next_group()
        except Exception as error:
          yield Update(slot.piece, error=error)
          slot.finished = True
        if slot.finished:
          slots[place] = None
    if not groups:
      return
    tokens = _decode_groups(groups, slots, spec, hop, decode)
    for place, group in groups.items():
      slot = slots[place]
      yield slot.take(group, tokens[place * hop :][: len(group)])
      if slot.finished:
        slots[place] = None


def _decode_groups(groups, slots, spec, hop, decode):
  """Return the tokens `[batch * hop, length]` of the groups of all places."""
  rows = len(slots) * hop
  places = [place * hop + index for place, group in groups.items() for index in range(len(group))]
  mel = piece_segments.log_mels((segment for group in groups.values() for segment in group), spec)
  inputs = np.zeros((rows, *mel.shape[1:]), np.float32)
  inputs[places] = mel
  active = np.zeros(rows, bool)
  active[places] = True
  nothing = memory.empty(spec, hop)
  each = [nothing if slot is None else slot.memory for slot in slots]
  return decode(inputs, memory.joined(each), active)


def collect(updates: Iterable[Update]) -> Iterator[tuple[Piece, Transcription | Exception]]:
  """Yield each piece with its whole transcription, or the error that ended it, when it has ended."""
  from mrmt3.notes.note_array import sort_notes

  parts = {}
  for update in updates:
    place = id(update.piece)
    parts.setdefault(place, []).append(update)
    if update.error is not None:
      del parts[place]
      yield update.piece, update.error
    elif update.stats is not None:
      own = parts.pop(place)
      notes = sort_notes(np.concatenate([part.notes for part in own]))
      segments = [segment for part in own for segment in part.segments]
      left_out = sum(part.left_out for part in own)
      yield update.piece, Transcription(notes, update.stats, segments, update.seconds, left_out, update.is_silent)
