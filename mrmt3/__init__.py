"""mrmt3: MR-MT3 in JAX. Audio in, multi-track MIDI out, with a memory of past segments.

    import mrmt3
    mrmt3.transcribe('song.wav').save('song.mid')

Importing mrmt3 is cheap: its modules import JAX, TensorFlow and the like only when they are used.
"""

from mrmt3.inference.loading import load, transcribe
from mrmt3.version import __version__

__all__ = ['__version__', 'load', 'transcribe']
