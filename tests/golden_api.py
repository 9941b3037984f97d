"""What the golden tests need of the project's modules: the one file to edit when modules move."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import mrmt3
from mrmt3.checkpoints import orbax, packed, spec_json
from mrmt3.checkpoints.download import download
from mrmt3.checkpoints.published import RemoteFile
from mrmt3.decoding.options import DecodingConfig
from mrmt3.inference.transcriber import Transcriber

CODE = Path(mrmt3.__file__).resolve().parent.parent  # the folder in which the package lies


BOX = 'box'  # the bundled model's name in the commands of 2000f88
_GIN_FILES = ('--gin_file=models/framewise.gin', '--gin_file=runs/framewise.gin')
_GIN_BINDINGS = (
  '--gin.options.DecodingConfig.context_frames=0',
  '--gin.options.DecodingConfig.normalize_level=False',
)


def load_bundled():
  """Return the bundled model, ready to transcribe as in 2000f88."""
  params, spec, _ = orbax.restore_params(BOX)
  return Transcriber(params, dataclasses.replace(spec, decoding=DecodingConfig()))


def copy_bundled(work: Path) -> None:
  """Put the bundled model into a working folder, under the name that commands know, with the decoding of 2000f88."""
  folder = work / BOX
  shutil.copytree(orbax.BUNDLED_FOLDER, folder)
  spec = dataclasses.replace(orbax.read_spec(orbax.BUNDLED_FOLDER), decoding=DecodingConfig())
  (folder / packed.SPEC_NAME).write_text(spec_json.to_json(spec))


def commands_of(commands: list[list[str]]) -> list[list[str]]:
  """Return commands whose gin files declare the decoding of 2000f88."""
  return [[*words, *(_GIN_BINDINGS if set(words) & set(_GIN_FILES) else ())] for words in commands]


# The name of the store of pieces in 2000f88, and today's. MIDI files are read otherwise since then, so stores and
# scores of that time are not used any more (`piece_cache.FORMAT`, `score_pieces._VERSION`); those of the golden data
# are right.
_STORE = 'SlakhFolder-train-00d977bf07658760', 'SlakhFolder-train-0758a60f80cce7b3'
_SCORES = '{"key": "[2, ', '{"key": "[3, '


def carry_over(work: Path) -> None:
  """Give stores of pieces and scores that 2000f88 has left in a working folder the versions of today."""
  for folder in work.rglob(_STORE[0]):
    folder.rename(folder.with_name(_STORE[1]))
  for path in work.rglob('scores-*.jsonl'):
    status = path.stat()
    path.write_text(path.read_text().replace(*_SCORES))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def with_todays_names(outputs: dict) -> dict:
  """Return expected outputs under the names of today."""
  return {key.replace(*_STORE): value for key, value in outputs.items()}


def flat_model_json(text: str) -> dict:
  """Return a model.json, whoever wrote it, in the form that 2000f88 wrote: one flat configuration for all networks."""
  return json.loads(spec_json.fingerprint_text(spec_json.from_json(text)))


def fetch(url: str, size: int, path: Path) -> None:
  """Download a file of a known size to `path`; continues what an earlier run has left there."""
  download(RemoteFile(path.name, url, size), path)
