"""Inference: audio to notes, for single files, batches and streams.

The public names of MT3's inference module and of `transcriber` are re-exported; seqio is imported only for the former.
"""

from mrmt3.utils.lazy_exports import lazy_exports

_MODULES = {
  'Transcriber': 'mrmt3.inference.transcriber',
  'Segment': 'mrmt3.inference.transcription',
  'Transcription': 'mrmt3.inference.transcription',
  'write_inferences_to_file': 'mrmt3.inference.write_inferences',
}
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
