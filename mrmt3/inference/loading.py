"""Find and load a model by name."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mrmt3.errors import UserError

if TYPE_CHECKING:
  import numpy as np

  from mrmt3.inference.transcriber import Transcriber
  from mrmt3.inference.transcription import Transcription

NO_CHECKPOINT = (
  'no checkpoint given; add --checkpoint DIR (`mrmt3 demo` and `mrmt3 train` make one: the folder they trained in; '
  '`mrmt3 fetch` brings the published ones)'
)


def default_model() -> Path | None:
  """Return the default checkpoint folder, that of the bundled model; None where it is not installed."""
  from mrmt3.checkpoints import orbax as orbax_checkpoints

  return orbax_checkpoints.BUNDLED_FOLDER if orbax_checkpoints.BUNDLED_FOLDER.is_dir() else None


def introduce(folder: Path) -> str:
  """Return a line about a packed checkpoint: its name, training data and scores."""
  from mrmt3.checkpoints import packed

  about = packed.read_about(folder)
  return '; '.join(about[part] for part in ('name', 'trained_on', 'reaches') if isinstance(about.get(part), str))


def find_model(name: str | os.PathLike | None) -> Path:
  """Return the checkpoint folder for a name, the default model's for None. Raises UserError if there is none.

  Names of published checkpoints are known to `checkpoints.find_checkpoint`.
  """
  from mrmt3.checkpoints import orbax as orbax_checkpoints

  if name is None:
    name = default_model()
  if name is None:
    raise UserError(NO_CHECKPOINT)
  return orbax_checkpoints.find_checkpoint(name)


def load(name: str | os.PathLike | None = None) -> 'Transcriber':
  """Load a model, ready to transcribe.

  Args:
    name: a checkpoint folder, or a folder of which the newest is taken; None: the default model.

  Raises:
    UserError: there is none, or it is broken.
  """
  from mrmt3.inference.transcriber import Transcriber

  return Transcriber.load(find_model(name))


def transcribe(
  audio: 'np.ndarray | str | os.PathLike',
  sample_rate: int | None = None,
  *,
  checkpoint: str | os.PathLike | None = None,
  **options,
) -> 'Transcription':
  """Transcribe a piece with the default model, or that of a checkpoint; it is loaded once.

  Args:
    audio: the name of an audio file, or samples, see `Transcriber.transcribe`.
    sample_rate: of samples, Hz.
    checkpoint: as in `load`.
    **options: `hop`, `instruments` and `progress` of `Transcriber.transcribe`.

  Raises:
    UserError: what `load` and `Transcriber.transcribe` raise.
  """
  return _loaded(find_model(checkpoint)).transcribe(audio, sample_rate, **options)


@functools.lru_cache(maxsize=1)
def _loaded(folder):
  from mrmt3.inference.transcriber import Transcriber

  return Transcriber.load(folder)
