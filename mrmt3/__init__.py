"""mrmt3: MR-MT3 in JAX. Audio in, multi-track MIDI out, with a memory of past segments.

Importing it is cheap; the modules bring in jax, tensorflow and the like when they are used.
"""

from mrmt3.version import __version__

__all__ = ['__version__']
