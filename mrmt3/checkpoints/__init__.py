"""Checkpoints: Orbax, t5x legacy, PyTorch and packed formats; conversion and download.

The public names of `orbax` are re-exported; TensorFlow is not imported.
"""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {
  'BUNDLED': 'mrmt3.checkpoints.orbax',
  'SPEC_NAME': 'mrmt3.checkpoints.orbax',
  'check_shapes': 'mrmt3.checkpoints.orbax',
  'checkpoint_folder': 'mrmt3.checkpoints.orbax',
  'checkpoint_steps': 'mrmt3.checkpoints.orbax',
  'find_checkpoint': 'mrmt3.checkpoints.orbax',
  'latest_step': 'mrmt3.checkpoints.orbax',
  'read_spec': 'mrmt3.checkpoints.orbax',
  'restore_params': 'mrmt3.checkpoints.orbax',
  'restore_state': 'mrmt3.checkpoints.orbax',
  'restore_target': 'mrmt3.checkpoints.orbax',
  'save_checkpoint': 'mrmt3.checkpoints.orbax',
}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
