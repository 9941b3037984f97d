"""Transcription of whole pieces in batches over all devices, in each memory mode, without TensorFlow."""

import dataclasses
import os
from collections.abc import Iterable, Iterator

import numpy as np

from mrmt3 import spectrograms
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.data import piece_targets
from mrmt3.errors import UserError
from mrmt3.inference import memory, segments, static_batching, transcription
from mrmt3.inference.static_batching import ConditionedPiece
from mrmt3.inference.transcriber import Transcriber
from mrmt3.note_sequences import DecodingStats

MEMORY_MODES = ('predicted', 'truth', 'none')


class PieceTranscriber:
  """A restored checkpoint that transcribes batches of pieces.

  Attributes:
    spec: the model's ModelSpec.
    folder: the checkpoint's folder.
    batch_size: pieces per batch.
  """

  def __init__(self, checkpoint: str | os.PathLike, memory: str = 'predicted', batch_size: int | None = None):
    """Restore a checkpoint.

    Args:
      checkpoint: a checkpoint_<step> folder, or a folder of them, of which the latest is used.
      memory: see `piece_model.PieceEncoderDecoderModel`.
      batch_size: pieces per batch, rounded up to a multiple of the devices; None is one per device, at least 4.

    Raises:
      UserError: there is no checkpoint, or the memory mode is unknown.
    """
    import jax

    if memory not in MEMORY_MODES:
      raise UserError(f'the memory mode is {memory!r}; it is one of {", ".join(MEMORY_MODES)}')
    self.folder = orbax_checkpoints.find_checkpoint(checkpoint)
    self._transcriber, self._mode = Transcriber.load(self.folder), memory
    self.spec = self._transcriber.spec
    devices = jax.local_device_count()
    self.batch_size = -(-(batch_size or max(4, devices)) // devices) * devices

  def transcribe(
    self, pieces: Iterable[tuple[str, np.ndarray, np.ndarray | None]]
  ) -> Iterator[tuple[str, np.ndarray, DecodingStats]]:
    """Transcribe pieces; one batch of them is held in memory.

    Args:
      pieces: (name, float32 samples `[n]`, reference note table or None) of each piece; the reference is needed only
        for the memory mode 'truth'.

    Yields:
      (name, note table, decoding statistics) of each piece, in order.
    """
    waiting = []
    for piece in pieces:
      waiting.append(piece)
      if len(waiting) == self.batch_size:
        yield from self._batch(waiting)
        waiting = []
    if waiting:
      yield from self._batch(waiting)

  def _batch(self, pieces):
    conditioned = [self._conditioned(samples, notes) for _, samples, notes in pieces]
    tokens = static_batching.decode(self._transcriber, conditioned, self.batch_size)
    for (name, _, _), predicted in zip(pieces, tokens, strict=True):
      yield name, *transcription.decode_segments(predicted, self.spec)

  def _conditioned(self, samples, notes):
    samples, spec = np.asarray(samples, np.float32), self.spec
    mel = segments.log_mels(segments.cut([samples], spec), spec)
    held = memory.empty(spec, 1)
    if self._mode == 'none':
      return ConditionedPiece(mel, lambda decoded: held)
    if self._mode == 'predicted':
      return ConditionedPiece(mel, _Carry(spec, lambda decoded: decoded[-1]))
    frames = spectrograms.num_frames(len(samples), spec.spectrogram)
    targets = piece_targets.piece_targets(notes, spec, frames, len(mel))
    # Targets are laid out as in training, whatever the model's own output is.
    spec = dataclasses.replace(spec, prior_layout='targets')
    return ConditionedPiece(mel, _Carry(spec, lambda decoded: targets[len(decoded) - 1]))


class _Carry:
  """The memory of a piece, carried from segment to segment."""

  def __init__(self, spec, last_tokens):
    """`last_tokens` returns the tokens `[<= targets_length]` of the last segment decoded so far."""
    self._spec, self._last_tokens = spec, last_tokens
    self._held = memory.empty(spec, 1)

  def __call__(self, decoded):
    if decoded:
      self._held = memory.after(self._held, self._last_tokens(decoded)[None], self._spec)
    return self._held
