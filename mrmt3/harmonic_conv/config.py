"""Configuration of the model of harmonic convolutions."""

import dataclasses
from typing import ClassVar

from mrmt3.errors import UserError
from mrmt3.framewise.config import FramewiseConfig
from mrmt3.nn.config_checks import check_sizes
from mrmt3.spectrograms import SEMITONES

_MAX_BLOCKS = 32


@dataclasses.dataclass(frozen=True)
class HarmonicConvConfig(FramewiseConfig):
  """The fields of the frame-level model, and those of the convolutions.

  Attributes:
    narrow: width of what a pitch shows its harmonics and neighbours, see `blocks.HarmonicConvolution`.
    dilations: of each convolution, encoder frames.
  """

  kind: ClassVar[str] = 'harmonic_conv'

  narrow: int = 8
  dilations: tuple[int, ...] = (1, 2, 4, 8)

  def __post_init__(self):
    super().__post_init__()
    check_sizes(self, ('narrow',))
    dilations = self.dilations
    whole = isinstance(dilations, (list, tuple)) and all(
      isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 1024 for n in dilations
    )
    if not whole or len(dilations) > _MAX_BLOCKS:
      raise UserError(f'network: dilations are {dilations!r:.80}; give up to {_MAX_BLOCKS} whole numbers in 1 .. 1024')
    object.__setattr__(self, 'dilations', tuple(dilations))

  def encoder(self, remat: bool = False):
    """Return the encoder."""
    from mrmt3.harmonic_conv.encoder import HarmonicConvEncoder

    return HarmonicConvEncoder(self, remat)

  def check_inputs(self, spec) -> None:
    """Raise UserError unless the spectrogram is the one that the network reads."""
    front = spec.spectrogram
    if (front.front_end, front.scaling) != (SEMITONES, 'none'):
      raise UserError(
        f"model: a harmonic_conv network reads spectrograms of front_end 'semitones' that are not scaled; these are "
        f'{front.front_end!r}, scaling {front.scaling!r}'
      )

  def describe(self) -> str:
    """Return a line about sizes."""
    return f'{len(self.dilations)} harmonic convolutions of {self.front_channels[2]}, {super().describe()}'
