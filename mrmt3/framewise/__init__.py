"""The frame-level model, which is the bundled one: harmonic encoder, note heads and note candidates, no decoder."""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {
  'FrameObjective': 'mrmt3.framewise.objective',
  'FramewiseConfig': 'mrmt3.framewise.config',
  'FramewiseTransformer': 'mrmt3.framewise.network',
}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
