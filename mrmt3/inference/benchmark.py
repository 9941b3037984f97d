"""How fast a model transcribes on this machine, and where the time goes: log-mel, encoder, decoder."""

import dataclasses
import time

import numpy as np

from mrmt3.inference import memory, segments
from mrmt3.inference.transcriber import Transcriber


@dataclasses.dataclass(frozen=True)
class Timing:
  """What transcribing took.

  Attributes:
    audio: length of the audio, s.
    total: whole transcription, from samples to notes, s; compiling is not counted.
    log_mel: all segments' log-mel, s.
    encoder: all segments' encoder and memory, s.
    decoder: what decoding the tokens took, s: encoding and decoding less encoding alone.
    tokens: decoded.
  """

  audio: float
  total: float
  log_mel: float
  encoder: float
  decoder: float
  tokens: int

  @property
  def real_time_factor(self) -> float:
    """Seconds of audio per second: above 1 is faster than the music."""
    return self.audio / self.total

  def shares(self) -> dict[str, float]:
    """Return the parts' shares of the time, which sum to 1; the rest is from tokens to notes, and between the parts.

    The parts are measured one by one, so they may take longer than the whole, which overlaps them: then there is no
    rest, and the shares are those of the parts' sum.
    """
    parts = {name: getattr(self, name) for name in ('log_mel', 'encoder', 'decoder')}
    whole = max(self.total, sum(parts.values()))
    shares = {name: seconds / whole for name, seconds in parts.items()}
    return {**shares, 'rest': max(0.0, 1 - sum(shares.values()))}

  @property
  def tokens_per_second(self) -> float | None:
    """Tokens per second of decoding; None if decoding takes no time that can be measured."""
    return self.tokens / self.decoder if self.tokens and self.decoder else None


def measure(transcriber: Transcriber, samples: np.ndarray, runs: int = 3) -> Timing:
  """Transcribe samples `[n]` at the model's rate `runs` times and return the fastest of everything."""
  spec = transcriber.spec
  result = transcriber.transcribe(samples, transcriber.sample_rate)  # compiles
  cut = list(segments.cut([samples], spec))
  rows = transcriber.rows
  groups = [slice(first, first + rows) for first in range(0, len(cut), rows)]

  def log_mel():
    return [segments.log_mels(cut[group], spec) for group in groups]

  inputs = [np.pad(mel, ((0, rows - len(mel)), (0, 0), (0, 0))) for mel in log_mel()]
  remembered = memory.empty(transcriber.spec, rows)
  encode = _encoder(transcriber)

  def encoder():
    for mel in inputs:
      encode(transcriber.params, mel, remembered).block_until_ready()

  def coder():
    for _ in transcriber.decode(mel[: len(cut[group])] for mel, group in zip(inputs, groups, strict=True)):
      pass

  total = _fastest(lambda: transcriber.transcribe(samples, transcriber.sample_rate), runs)
  encoding = _fastest(encoder, runs)
  return Timing(
    audio=result.seconds,
    total=total,
    log_mel=_fastest(log_mel, runs),
    encoder=encoding,
    decoder=max(0.0, _fastest(coder, runs) - encoding),
    tokens=sum(len(segment.tokens) for segment in result.segments),
  )


def _encoder(transcriber):
  import jax

  spec = transcriber.spec
  network = spec.module()

  def encode(params, inputs, remembered):
    context = spec.network.encoder_context(remembered)
    return network.apply({'params': params}, inputs, enable_dropout=False, method=network.encode, **context)

  return jax.jit(encode)


def _fastest(function, runs):
  function()
  times = []
  for _ in range(runs):
    begin = time.perf_counter()
    function()
    times.append(time.perf_counter() - begin)
  return min(times)
