"""Odd levels: samples in the range of integers, channels that cancel each other, near silence."""

from collections.abc import Iterable, Iterator

import numpy as np

from mrmt3.errors import UserError
from mrmt3.utils import warning_lines

HIGHEST_PEAK = 32.0  # of samples with full scale -1..1: 30 dB above it
QUIET_PEAK = 10 ** (-30 / 20)
_LOUD = 8.0
_AUDIBLE = 1e-3
_LOUD_SHARE = 0.01  # of the audible samples, in a recording in the range of integers
_INTEGER_SCALES = {16: 2.0**15, 24: 2.0**23, 32: 2.0**31}  # by bits
_OVERSHOOT = 1.5  # above full scale, after resampling
_CANCELLED = 0.02  # power of the mean times channels / power of the channels: 1 for independent ones
_SHORTEST = 0.1  # s; fewer samples can cancel by chance
_STREAM_WINDOW = 1.0  # s


def warn(message: str) -> None:
  """Issue an `DataWarning`."""
  warning_lines.warn(message)


class Scale:
  """What brings samples to full scale -1..1, found from the whole recording."""

  def __init__(self, blocks: Iterable[np.ndarray], name: str):
    """Take the blocks of a recording, floats of any shape; warns of integer range and of single loud samples.

    Raises:
      UserError: the samples exceed the range of 32-bit integers.
    """
    peak, loud, count = 0.0, 0, 0
    for block in blocks:
      size = np.abs(block)
      peak = max(peak, float(np.max(size, initial=0, where=np.isfinite(size))))
      loud += int((size > _LOUD).sum())
      count += int((size > _AUDIBLE).sum())
    self.divisor, self._clip = 1.0, False
    if peak <= HIGHEST_PEAK:
      return
    if loud < _LOUD_SHARE * count:
      self._clip = True
      warn(f'{name}: {loud} samples far above full scale (up to {peak:.3g}) are clipped')
      return
    bits = next((bits for bits, scale in _INTEGER_SCALES.items() if peak <= _OVERSHOOT * scale), None)
    if bits is None:
      raise UserError(f'{name}: samples reach {peak:.3g}; full scale is -1..1, so export the recording again')
    self.divisor = _INTEGER_SCALES[bits]
    warn(
      f'{name}: float samples reach {peak:.6g} instead of 1; they are taken as {bits}-bit integers and divided by '
      f'2**{bits - 1}'
    )

  def apply(self, block: np.ndarray) -> np.ndarray:
    """Return a block of the recording with full scale -1..1."""
    if self._clip:
      return np.clip(block, -1, 1)
    return block if self.divisor == 1 else block / np.float32(self.divisor)


def check_scale(block: np.ndarray, name: str) -> None:
  """Raise UserError if a block of a live stream, whose rest is not known, is not in the range -1..1."""
  peak = float(np.max(np.abs(block), initial=0))
  if peak > HIGHEST_PEAK:
    raise UserError(
      f'{name}: samples reach {peak:.6g}; full scale is -1..1, so divide 16-bit integers by 32768 and check the format'
    )


class Downmix:
  """Mean of the channels; where they cancel each other (opposite polarity), the loudest channel alone."""

  def __init__(self, name: str, sample_rate: int):
    """Start a recording; `name` is for the warning."""
    self._name, self._shortest = name, _SHORTEST * sample_rate
    self._channel, self._warned = None, False

  def block(self, block: np.ndarray) -> np.ndarray:
    """Return the mono samples `[n]` of a large block `[n, channels]`, judged by itself."""
    if block.shape[1] == 1:
      return block[:, 0]
    mono = _mean(block)
    if len(block) >= self._shortest:
      self._judge(*_powers(block, mono))
    return mono if self._channel is None else block[:, self._channel]

  def _judge(self, mono_power, powers):
    cancelled = mono_power * len(powers) < _CANCELLED * powers.mean()
    self._channel = int(powers.argmax()) if cancelled else None
    if cancelled and not self._warned:
      self._warned = True
      warn(f'{self._name}: its channels cancel each other (opposite polarity); channel {self._channel + 1} is used')


class StreamDownmix(Downmix):
  """Downmix of a live stream, whose blocks may be short: judged by the past, at every full second.

  The result does not depend on where the stream is cut into blocks.
  """

  def __init__(self, name: str, sample_rate: int):
    """Start a stream."""
    super().__init__(name, sample_rate)
    self._window = max(1, round(_STREAM_WINDOW * sample_rate))
    self._left = self._window
    self._mono_power, self._powers = 0.0, 0.0

  def block(self, block: np.ndarray) -> np.ndarray:
    """Return the mono samples `[n]` of a block `[n, channels]`."""
    if block.shape[1] == 1:
      return block[:, 0]
    parts = []
    while len(block):
      part, block = block[: self._left], block[self._left :]
      mono = _mean(part)
      parts.append(mono if self._channel is None else part[:, self._channel])
      mono_power, powers = _powers(part, mono)
      self._mono_power += mono_power
      self._powers = self._powers + powers
      self._left -= len(part)
      if not self._left:
        self._left = self._window
        self._judge(self._mono_power, self._powers)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _mean(block):
  with np.errstate(all='ignore'):  # NaN and infinity are reported by the caller
    return block.mean(axis=1)


def _powers(block, mono):
  """Return (sum of squares of the mono samples, those of each channel `[channels]`)."""
  with np.errstate(all='ignore'):
    return np.vdot(mono, mono), np.einsum('nc,nc->c', block, block)


def watched(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
  """Yield mono blocks `[n]` unchanged, and warn at the end if all of them were silent or nearly so."""
  peak, count = 0.0, 0
  for block in blocks:
    peak = max(peak, float(np.max(np.abs(block), initial=0)))
    count += len(block)
    yield block
  if count:
    check_peak(peak, name)


def check_peak(peak: float, name: str) -> None:
  """Warn if the peak of a whole recording is that of silence or near it."""
  if peak >= QUIET_PEAK:
    return
  if peak == 0:
    warn(f'{name} is silent: all samples are 0')
  else:
    warn(f'{name} is very quiet (peak {20 * np.log10(peak):.0f} dB); if notes are missing, make it louder')
