"""What the golden tests need of the project's modules: the one file to edit when modules move."""

import json
from pathlib import Path

import mrmt3
from mrmt3.checkpoints import spec_json
from mrmt3.checkpoints.download import download
from mrmt3.checkpoints.published import RemoteFile

CODE = Path(mrmt3.__file__).resolve().parent.parent  # the folder in which the package lies


def load_bundled():
  """Return the bundled model, ready to transcribe."""
  return mrmt3.load('box')


def flat_model_json(text: str) -> dict:
  """Return a model.json, whoever wrote it, in the form that 2000f88 wrote: one flat configuration for all networks."""
  return json.loads(spec_json.fingerprint_text(spec_json.from_json(text)))


def fetch(url: str, size: int, path: Path) -> None:
  """Download a file of a known size to `path`; continues what an earlier run has left there."""
  download(RemoteFile(path.name, url, size), path)
