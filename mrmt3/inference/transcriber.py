"""From audio to notes with a trained model: whole pieces, batches of pieces, and live streams.

    transcriber = mrmt3.load('model')
    transcriber.transcribe('song.wav').pretty_midi()
    for note in transcriber.stream(blocks, sample_rate=44100): ...

A Transcriber keeps nothing between calls, so threads may share one.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mrmt3.audio import arrays, levels
from mrmt3.audio import files as audio_files
from mrmt3.checkpoints import orbax as orbax_checkpoints
from mrmt3.config import ModelSpec
from mrmt3.errors import DataWarning, UserError
from mrmt3.inference import batched_pieces, memory
from mrmt3.inference.batched_pieces import pad_tokens, until_eos
from mrmt3.inference.instrument_filter import InstrumentChoice
from mrmt3.inference.transcription import Segment, Transcription
from mrmt3.note_sequences import SegmentDecoder, encoding_spec
from mrmt3.notes.note_array import Note
from mrmt3.vocabularies import build_codec

__all__ = ['Segment', 'Transcriber', 'Transcription', 'pad_tokens', 'until_eos']

SEGMENTS_AT_ONCE = 8  # where segments do not depend on each other
MAX_AT_ONCE = 1024

Audio = np.ndarray | str | os.PathLike


class Transcriber:
  """A model that is ready to transcribe; compiles on first use and then keeps its shapes.

  Attributes:
    spec: network, front end and vocabulary.
    codec: of the tokens.
    params: the parameters that encoding needs, on the device.
    weights: the parameters that decoding needs, laid out for it (`decoding.pack`); None if it needs none.
    rows: segments that `decode` takes at once: 1 for a network that uses prior segments.
  """

  def __init__(self, params, spec: ModelSpec, segments_at_once: int = SEGMENTS_AT_ONCE):
    """Take a parameter tree and what it belongs to; `segments_at_once` counts for models without memory only."""
    import jax

    from mrmt3.decoding import greedy

    self.spec = spec
    self.codec = build_codec(spec.vocabulary)
    self.weights = greedy.pack(params, spec)
    self.params = jax.device_put(spec.step_decoder(spec.targets_length).encoder_params(params))
    self.rows = 1 if spec.network.uses_prior else segments_at_once
    # The published code counts the start token among the tokens of a segment.
    self._max_length = spec.targets_length - (spec.prior_layout == 'start_token')

  def __repr__(self) -> str:
    """Return a line about the network."""
    return f'<Transcriber: {self.spec.network.describe()}>'

  @classmethod
  def load(cls, checkpoint: str | os.PathLike) -> 'Transcriber':
    """Read a checkpoint_<step> folder, or the newest one in a model_dir. UserError if there is none."""
    params, spec, _ = orbax_checkpoints.restore_params(checkpoint)
    return cls(params, spec)

  def transcribe(
    self,
    audio: Audio,
    sample_rate: int | None = None,
    *,
    hop: int | None = None,
    instruments: str | Iterable[str] | None = None,
    progress: Callable[[float, float | None], None] | None = None,
  ) -> Transcription:
    """Transcribe a piece.

    Args:
      audio: the name of an audio file, or samples: floats `[n]` or `[n, channels]`, full scale being -1..1.
      sample_rate: of the samples, Hz; required for samples. A file knows its rate.
      hop: segments decoded at once, each with the memory of the one `hop` back. None is 1, or 8 without memory.
      instruments: the only ones there are, such as 'piano,bass,drums' (`instrument_filter`), or None: any. Pitched
        notes become notes of the likeliest of them; without a pitched one they are left out, as are drum notes without
        drums.
      progress: called with (seconds done, all seconds or None) after every step.

    Raises:
      UserError: the file cannot be read, samples have no rate, integer type or more channels than samples, or an
        argument makes no sense.

    Warns:
      DataWarning: something is odd about the audio; it was handled.
    """
    blocks = self._blocks(audio, sample_rate)
    if _is_path(audio):
      total = audio_files.promised_seconds(audio)
    else:
      total = len(arrays.as_samples(audio)) / arrays.checked_rate(sample_rate)

    def watched():
      for update in self.run([batched_pieces.Piece(blocks)], hop=hop, instruments=instruments):
        if progress is not None:
          progress(update.seconds, total)
        yield update

    ((_, result),) = batched_pieces.collect(watched())
    if isinstance(result, Exception):
      raise result
    return result

  def transcribe_many(
    self,
    audios: Iterable[Audio],
    sample_rate: int | None = None,
    *,
    batch: int = 4,
    hop: int | None = None,
    instruments: str | Iterable[str] | None = None,
  ) -> Iterator[Transcription]:
    """Yield the transcription of each piece, in order, with continuous batching of `batch` pieces.

    Arguments and errors are those of `transcribe`. Each piece has a memory of its own, and its notes do not depend on
    the rest of the batch.
    """
    pieces = (batched_pieces.Piece(self._blocks(audio, sample_rate), key) for key, audio in enumerate(audios))
    done, following = {}, 0
    for piece, result in batched_pieces.collect(self.run(pieces, batch=batch, hop=hop, instruments=instruments)):
      done[piece.key] = result
      while following in done:
        result = done.pop(following)
        following += 1
        if isinstance(result, Exception):
          raise result
        yield result

  def stream(
    self,
    blocks: Iterable[np.ndarray],
    sample_rate: int | None = None,
    *,
    instruments: str | Iterable[str] | None = None,
  ) -> Iterator[Note]:
    """Yield the notes of a live stream, each when it has ended, as segment after segment is decoded.

    Together they are those of `transcribe`. A note is known a segment (2 s) after it has ended at the latest, plus the
    time that decoding takes. Memory use does not grow.

    Args:
      blocks: samples `[n]` or `[n, channels]` each, of any lengths, full scale being -1..1.
      sample_rate: of the samples, Hz; required.
      instruments: as in `transcribe`.

    Raises:
      UserError: a sample is no number or far from full scale -1..1, there is no rate, or an argument makes no sense.
    """
    rate = arrays.checked_rate(sample_rate)
    mono = levels.watched(arrays.mono_blocks(blocks, rate), 'audio')
    resampled = audio_files.resampled(mono, rate, self.sample_rate)
    for update in self.run([batched_pieces.Piece(resampled)], hop=1, instruments=instruments):
      if update.error is not None:
        raise update.error
      yield from map(Note._make, update.notes.tolist())

  def run(
    self,
    pieces: Iterable[batched_pieces.Piece],
    *,
    batch: int = 1,
    hop: int | None = None,
    instruments: str | Iterable[str] | None = None,
    has_memory: bool = True,
  ) -> Iterator[batched_pieces.Update]:
    """Yield updates of pieces while they are decoded, `batch` pieces at a time; see `batched_pieces.run`."""
    hop = self.rows if hop is None else hop
    for name, number in (('hop', hop), ('batch', batch)):
      if not 1 <= number <= MAX_AT_ONCE:
        raise UserError(f'{name} is {number}; it must lie in 1 .. {MAX_AT_ONCE}')
    allowed, keep = None, None
    if instruments is not None:
      choice = InstrumentChoice.parse(instruments)
      allowed, keep = choice.allowed_programs(self.codec, self.spec.network.vocab_size), choice.fit

    def decode(inputs, remembered, active):
      return self.decode_rows(inputs, remembered, active, allowed)

    return batched_pieces.run(
      pieces, self.spec, decode, self.segment_decoder, batch=batch, hop=hop, keep=keep, has_memory=has_memory
    )

  def warmup(self) -> float:
    """Compile what the first transcription would wait for; returns how long that took, s."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', DataWarning)  # it is silence
      self.transcribe(np.zeros(1, np.float32), self.sample_rate)
    return time.perf_counter() - begin

  @property
  def sample_rate(self) -> int:
    """The model's sample rate, Hz."""
    return self.spec.spectrogram.sample_rate

  def segment_decoder(self, keep_notes: bool = True) -> SegmentDecoder:
    """Return what turns the model's tokens into notes."""
    hold, rate = encoding_spec(self.spec.ties), self.spec.spectrogram.frame_rate
    return SegmentDecoder(self.codec, spec=hold, frames_per_second=rate, keep_notes=keep_notes)

  def padded(self, tokens: np.ndarray) -> np.ndarray:
    """Return a segment's tokens `[n]` with padding, int32 `[targets_length]`."""
    return pad_tokens(tokens, self.spec.targets_length)

  def decode_rows(
    self, inputs: np.ndarray, remembered: memory.Memory, active: np.ndarray, allowed: np.ndarray | None = None
  ) -> np.ndarray:
    """Decode segments greedily.

    Args:
      inputs: log-mel frames, float32 `[rows, frames, mel]`.
      remembered: of `rows` rows; ignored by a network without memory.
      active: bool `[rows]`; the others yield padding.
      allowed: bool `[vocab]`, the tokens that may be emitted, or None: all.

    Returns:
      int32 `[rows, length]` model ids: tokens, EOS, padding.
    """
    from mrmt3.decoding import greedy

    tokens = greedy.transcribe_segments(
      self.params,
      inputs,
      self.spec.network.encoder_context(remembered),
      active,
      allowed,
      self.weights,
      spec=self.spec,
      max_length=self._max_length,
    )
    return np.asarray(tokens)

  def decode(self, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Decode consecutive segments of one piece greedily.

    Args:
      inputs: log-mel frames `[rows, frames, mel]` each: one row for a model with memory, at most `segments_at_once` for
        others.

    Yields:
      int32 `[rows, length]` model ids for each item: tokens, EOS, padding.
    """
    remembered = memory.empty(self.spec, self.rows)
    for mel in inputs:
      rows = len(mel)
      padded = np.pad(mel, ((0, self.rows - rows), (0, 0), (0, 0)))
      tokens = self.decode_rows(padded, remembered, np.arange(self.rows) < rows)
      remembered = memory.after(remembered, tokens, self.spec)
      yield tokens[:rows]

  def _blocks(self, audio, sample_rate):
    if _is_path(audio):
      return audio_files.audio_blocks(audio, self.sample_rate)
    rate = arrays.checked_rate(sample_rate)
    mono = levels.watched(map(arrays.mono_piece, [audio], [rate]), 'audio')  # errors are those of this piece
    return audio_files.resampled(mono, rate, self.sample_rate)


def _is_path(audio):
  return isinstance(audio, (str, os.PathLike))
