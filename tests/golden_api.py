"""What the golden test takes from the project's modules, and nothing else does: the one file to edit when modules move."""

from pathlib import Path

import mrmt3
from mrmt3.config import ModelSpec
from mrmt3.download import download
from mrmt3.published import RemoteFile

CODE = Path(mrmt3.__file__).resolve().parent.parent  # the folder in which the package lies


def load_box():
  """Returns the model in the package, ready to transcribe."""
  return mrmt3.load('box')


def read_model_json(text: str) -> dict:
  """Returns what a model.json says, as the code of today would write it."""
  import json

  return json.loads(ModelSpec.from_json(text).to_json())


def fetch(url: str, size: int, path: Path) -> None:
  """Downloads a file of a known size to `path`, going on with what an earlier run has left."""
  download(RemoteFile(path.name, url, size), path)
