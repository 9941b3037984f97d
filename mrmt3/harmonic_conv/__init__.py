"""A frame-level model of harmonic convolutions between all blocks, over a log-frequency spectrogram."""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {'HarmonicConvConfig': 'mrmt3.harmonic_conv.config'}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
