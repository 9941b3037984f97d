"""mrmt3: MR-MT3 in JAX. Audio in, multi-track MIDI out, with a memory of past segments.

    import mrmt3
    mrmt3.load('model').transcribe('song.wav').midi()

Importing it is cheap; the modules bring in jax, tensorflow and the like when they are used.
"""

from mrmt3.inference.loading import load
from mrmt3.version import __version__

__all__ = ['__version__', 'load']
