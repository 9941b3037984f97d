"""Send requests of all kinds to `mrmt3 serve` with schemathesis; fails if one is answered with a 5xx status.

`mrmt3` and `st` must be on PATH.
"""

import io
import json
import math
import struct
import subprocess
import sys
import tempfile
import urllib.request
import wave
from pathlib import Path

CHECKS = 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance'


def song() -> bytes:
  """Return a second of a tone as the bytes of a wav file."""
  data = io.BytesIO()
  with wave.open(data, 'wb') as file:
    file.setparams((1, 2, 16000, 0, 'NONE', ''))
    values = [int(8000 * math.sin(0.2 * index)) for index in range(16000)]
    file.writeframes(struct.pack(f'<{len(values)}h', *values))
  return data.getvalue()


def finished_job(base: str) -> str:
  """Transcribe the song, and return the id of the job."""
  with urllib.request.urlopen(urllib.request.Request(f'{base}/api/jobs', song(), method='POST')) as answer:
    job = json.load(answer)['id']
  with urllib.request.urlopen(f'{base}/api/jobs/{job}/events') as answer:
    assert b'"state": "done"' in answer.read()
  return job


def main() -> int:
  """Start a server, run schemathesis twice, and return the first exit code that is not 0."""
  examples = sys.argv[1] if len(sys.argv) > 1 else '30'
  command = ['mrmt3', 'serve', '--no-browser', '--port', '0', '--max-megabytes', '1', '--keep', '1000']
  with tempfile.TemporaryDirectory() as folder, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    try:
      base = server.stdout.readline().split()[2].rstrip('/')
      job = finished_job(base)
      known, unknown = Path(folder) / 'known.toml', Path(folder) / 'unknown.toml'
      known.write_text(f'[parameters]\n"path.id" = "{job}"\n')
      unknown.write_text('')
      codes = []
      for config, more in ((known, ['--exclude-method', 'DELETE']), (unknown, [])):
        arguments = ['run', f'{base}/api/openapi.json', '--url', base, '--checks', CHECKS]
        arguments += ['--max-examples', examples, '--seed', '1', '--request-timeout', '60', *more]
        codes.append(subprocess.run(['st', '--config-file', config, *arguments], cwd=folder, check=False).returncode)
      return next(filter(None, codes), 0)
    finally:
      server.terminate()


if __name__ == '__main__':
  sys.exit(main())
