"""Decodes several pieces side by side, each with a memory of its own, and none larger in memory for being long.

Every piece has `hop` rows of the network's batch. Its segments are decoded `hop` at a time, each with the memory of the
segment `hop` back: the one before for hop 1, as MR-MT3 does it.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mrmt3 import spectrograms
from mrmt3.inference import memory
from mrmt3.inference.transcription import Segment, Transcription
from mrmt3.note_sequences import DecodingStats
from mrmt3.notes.note_array import empty_notes
from mrmt3.vocabularies import EOS_ID


@dataclasses.dataclass(frozen=True)
class Piece:
  """A piece to be transcribed.

  Attributes:
    blocks: its sound at the model's sample rate, mono, float32 `[n]` each.
    key: whatever tells it from others.
    known: tokens of its first segments where they have been decoded before.
  """

  blocks: Iterable[np.ndarray]
  key: Any = None
  known: tuple[np.ndarray, ...] = ()


@dataclasses.dataclass(frozen=True)
class Update:
  """What has become known about a piece.

  Attributes:
    piece: which one.
    segments: the segments decoded since the last update.
    notes: table of the notes that are complete since the last update, in the order of completion.
    seconds: how much of the audio has been decoded.
    stats: statistics of the whole piece with its last update, else None.
    error: what went wrong, which ends the piece, or None.
  """

  piece: Piece
  segments: list[Segment] = dataclasses.field(default_factory=list)
  notes: np.ndarray = dataclasses.field(default_factory=empty_notes)
  seconds: float = 0.0
  stats: DecodingStats | None = None
  error: Exception | None = None


def until_eos(tokens: np.ndarray) -> np.ndarray:
  """Returns the tokens `[n]` up to and including the first EOS; all of them if there is none."""
  ends = np.flatnonzero(tokens == EOS_ID)
  return tokens[: ends[0] + 1] if len(ends) else tokens


class Lane:
  """A piece under way: where its next segments come from, what it remembers, and its notes so far."""

  def __init__(self, piece: Piece, transcriber, hop: int, keep):
    """Starts a piece; `keep` is a function of a note table that returns the notes to be kept."""
    self.piece, self.finished = piece, False
    self._transcriber, self._hop, self._keep = transcriber, hop, keep
    spec = transcriber.spec
    self._frames, self._config = spec.segment_frames, spec.spectrogram
    self._cut = spectrograms.cut_segments(piece.blocks, self._config, self._frames)
    self._decoder = transcriber.segment_decoder(keep_notes=False)
    self._memory = memory.of_group(spec, hop)
    self._count = 0  # segments decoded

  @property
  def memory(self) -> memory.Memory:
    """What the next group is listened to with, `hop` rows."""
    return self._memory

  def next_group(self) -> list[tuple[np.ndarray, int, bool]]:
    """Returns up to `hop` segments as `spectrograms.cut_segments` yields them; raises what reading the audio raises."""
    group = []
    for segment in self._cut:
      group.append(segment)
      if len(group) == self._hop:
        break
    return group

  def replay(self) -> Update | None:
    """Takes in what is known, in whole groups; None where that is nothing."""
    update = None
    known = self.piece.known
    while not self.finished and self._count + self._hop <= len(known):
      group = self.next_group()
      tokens = known[self._count : self._count + len(group)]
      part = self.take(group, [self._transcriber.padded(row) for row in tokens])
      update = part if update is None else _joined(update, part)
    return update

  def take(self, group: list[tuple[np.ndarray, int, bool]], tokens: Iterable[np.ndarray]) -> Update:
    """Takes the tokens `[length]` of each segment of a group."""
    segments, notes, seconds = [], [], 0.0
    tokens = list(tokens)
    for (_, samples, last), row in zip(group, tokens, strict=True):
      start = self._count * self._frames
      self._count += 1
      notes.append(self._decoder.segment(row, start, None if last else start + self._frames))
      segments.append(Segment(float(start / self._config.frame_rate), until_eos(row)))
      seconds = (start * self._config.hop_width + samples) / self._config.sample_rate
      self.finished = last
    stats = None
    if self.finished:
      rest, stats = self._decoder.finish()
      notes.append(rest)
    else:
      self._memory = memory.after(self._memory, np.stack(tokens), self._transcriber.spec, one_piece=True)
    return Update(self.piece, segments, self._keep(np.concatenate(notes)), seconds, stats)


def _joined(first: Update, second: Update) -> Update:
  notes = np.concatenate([first.notes, second.notes])
  return dataclasses.replace(second, segments=first.segments + second.segments, notes=notes)


def run(
  transcriber, pieces: Iterable[Piece], batch: int, hop: int, allowed=None, keep=lambda notes: notes
) -> Iterator[Update]:
  """Decodes pieces, `batch` of them at a time; the next one starts where one has ended.

  Args:
    transcriber: an `inference.Transcriber`.
    pieces: taken one by one, when there is room.
    batch: pieces side by side.
    hop: segments of a piece at once.
    allowed: bool `[vocab]`, the tokens that may be said, or None: all.
    keep: function of a note table that returns the notes to be kept.

  Yields:
    an `Update` for each group of segments of each piece. A piece that cannot be read ends with an error in its update; the
    others go on.
  """
  waiting, lanes = iter(pieces), [None] * batch
  while True:
    groups = {}
    for place in range(batch):
      while place not in groups:
        if lanes[place] is None:
          piece = next(waiting, None)
          if piece is None:
            break
          lanes[place] = Lane(piece, transcriber, hop, keep)
        lane = lanes[place]
        try:
          update = lane.replay()
          if update is not None:
            yield update
          if not lane.finished:
            groups[place] = lane.next_group()
        except Exception as error:
          yield Update(lane.piece, error=error)
          lane.finished = True
        if lane.finished:
          lanes[place] = None
    if not groups:
      return
    tokens = _decode(transcriber, groups, lanes, hop, allowed)
    for place, group in groups.items():
      lane = lanes[place]
      yield lane.take(group, tokens[place * hop :][: len(group)])
      if lane.finished:
        lanes[place] = None


def _decode(transcriber, groups, lanes, hop, allowed):
  """Returns the tokens `[batch * hop, length]` of the groups of all places."""
  config, rows = transcriber.spec.spectrogram, len(lanes) * hop
  segments = [segment for group in groups.values() for segment in group]
  samples = np.stack([segment[0] for segment in segments])
  frames = np.array([spectrograms.num_frames(own, config) for _, own, _ in segments], np.int32)
  valid = np.minimum(frames, transcriber.spec.segment_frames)
  places = [place * hop + index for place, group in groups.items() for index in range(len(group))]
  mel = spectrograms.clear_invalid_frames(spectrograms.compute_spectrogram(samples, config), valid)
  inputs = np.zeros((rows, *mel.shape[1:]), np.float32)
  inputs[places] = mel
  active = np.zeros(rows, bool)
  active[places] = True
  nothing = memory.empty(transcriber.spec, hop)
  each = [nothing if lane is None else lane.memory for lane in lanes]
  return transcriber.decode_rows(inputs, memory.joined(each), active, allowed)


def collect(updates: Iterable[Update]) -> Iterator[tuple[Piece, Transcription | Exception]]:
  """Yields each piece with its whole transcription, or what went wrong, when it has ended."""
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
      yield update.piece, Transcription(notes, update.stats, segments, update.seconds)
