"""basic-pitch, run in a Python environment of its own: its requirements exclude ours."""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes import midi

_SECONDS = 600  # for one recording
_PROGRAM = """
import sys
from basic_pitch import ICASSP_2022_MODEL_PATH
from basic_pitch.inference import predict
_, midi, _ = predict(sys.argv[1], ICASSP_2022_MODEL_PATH)
midi.write(sys.argv[2])
"""


def transcribe(python: str, audio: Path) -> np.ndarray:
  """Return what basic-pitch finds in a recording, a note table of one instrument.

  Raises:
    UserError: it is not installed there, fails, or takes longer than ten minutes.
  """
  with tempfile.TemporaryDirectory(prefix='mrmt3-peer-') as folder:
    target = Path(folder) / 'notes.mid'
    try:
      done = subprocess.run(
        [python, '-c', _PROGRAM, str(audio), str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
      )
    except OSError as error:
      raise UserError(f'--peer-python {python}: {error.strerror}; name a Python with basic-pitch') from error
    except subprocess.TimeoutExpired as error:
      raise UserError(f'{audio}: basic-pitch took longer than {_SECONDS} s') from error
    if done.returncode or not target.is_file():
      reason = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1][:200]
      raise UserError(f'{audio}: basic-pitch failed ({reason}); is it installed in the environment of {python}?')
    return midi.read_midi(target)
