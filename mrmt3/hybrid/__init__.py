"""The frame-level encoder with MR-MT3's decoder and memory behind it, for studies of the memory on a CPU.

Composed of `mrmt3.network` and `mrmt3.framewise`, neither of which imports it.
"""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {
  'HybridConfig': 'mrmt3.hybrid.config',
  'HybridTransformer': 'mrmt3.hybrid.network',
}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
