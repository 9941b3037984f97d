"""Decoding: the greedy loop, the cached decoder and logits processors.

The public names of `greedy` are re-exported.
"""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {
  'decode_encoded': 'mrmt3.decoding.greedy',
  'greedy_decode': 'mrmt3.decoding.greedy',
  'pack': 'mrmt3.decoding.greedy',
  'transcribe_segments': 'mrmt3.decoding.greedy',
}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
