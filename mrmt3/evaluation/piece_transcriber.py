"""Transcription of whole pieces in batches over all devices, in each memory mode, without TensorFlow."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from mrmt3 import spectrograms
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.data import piece_targets
from mrmt3.inference import transcription
from mrmt3.note_sequences import DecodingStats

BUCKET = 8  # segments; a larger bucket means fewer compilations and more padding


class PieceTranscriber:
  """A restored checkpoint that transcribes batches of pieces.

  Attributes:
    spec: the model's ModelSpec.
    folder: the checkpoint's folder.
    batch_size: pieces per batch.
  """

  def __init__(self, checkpoint: str | os.PathLike, memory: str = 'predicted', batch_size: int | None = None):
    """Restores a checkpoint.

    Args:
      checkpoint: a checkpoint_<step> folder, or a folder of them, of which the latest is used.
      memory: see `piece_model.PieceEncoderDecoderModel`.
      batch_size: pieces per batch, rounded up to a multiple of the devices; None is one per device, at least 4.

    Raises:
      UserError: there is no checkpoint, or the memory mode is unknown.
    """
    import jax

    from mrmt3.engine.partitioning import PjitPartitioner
    from mrmt3.evaluation.piece_model import PieceEncoderDecoderModel

    self.folder = orbax_checkpoints.find_checkpoint(checkpoint)
    params, self.spec, _ = orbax_checkpoints.restore_params(self.folder)
    self._memory = memory
    self._partitioner = PjitPartitioner()
    devices = self._partitioner.mesh.size
    self.batch_size = -(-(batch_size or max(4, devices)) // devices) * devices
    self._params = self._partitioner.place_state(params)
    self._predict = jax.jit(PieceEncoderDecoderModel(self.spec, memory=memory).predict_batch)

  def transcribe(
    self, pieces: Iterable[tuple[str, np.ndarray, np.ndarray | None]]
  ) -> Iterator[tuple[str, np.ndarray, DecodingStats]]:
    """Transcribes pieces; one batch of them is held in memory.

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
    spec = self.spec
    frames = [spectrograms.num_frames(len(samples), spec.spectrogram) for _, samples, _ in pieces]
    segments = -(-max(frames) // (spec.segment_frames * BUCKET)) * BUCKET
    inputs = np.zeros(
      (self.batch_size, segments, spec.segment_frames, spectrograms.input_depth(spec.spectrogram)), np.float32
    )
    targets = np.zeros((self.batch_size, segments, spec.targets_length), np.int32)
    counts = np.zeros((self.batch_size, 1), np.int32)
    for row, (_, samples, notes) in enumerate(pieces):
      mel = spectrograms.segment_inputs(np.asarray(samples, np.float32), spec.spectrogram, spec.segment_frames)
      inputs[row, : len(mel)] = mel
      counts[row] = len(mel)
      if self._memory == 'truth':
        targets[row, : len(mel)] = piece_targets.piece_targets(notes, spec, frames[row], len(mel))
    batch = {'encoder_input_tokens': inputs, 'decoder_target_tokens': targets, 'num_segments': counts}
    tokens = np.asarray(self._predict(self._params, self._partitioner.place_batch(batch)))
    for row, (name, _, _) in enumerate(pieces):
      yield name, *transcription.decode_segments(tokens[row, : counts[row, 0]], spec)
