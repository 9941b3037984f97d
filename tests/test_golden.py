"""What commit 2000f88 computed and left behind: the code of today computes the same, reads it, and continues it.

The files in golden/ were made by `golden/make_golden.py`. On the machine that they were made on (`golden_runs.machine`)
floats are equal bit for bit. Elsewhere notes and tokens are equal, floats are within 1e-6, and the state of a training
after 5 steps is within 1e-5: the optimizer divides by small numbers (between two processors 3.3e-6 were measured).
Journals hold altered results in their finished part, so code that ignores a journal, and computes all of it anew, does
not reach the expected end.
"""

import hashlib
import importlib.metadata
import json

import golden_api
import golden_runs
import numpy as np
import pytest
import soundfile

GOLDEN = golden_runs.FOLDER
MANIFEST = json.loads((GOLDEN / 'manifest.json').read_text())
SAME_MACHINE = golden_runs.machine() == MANIFEST['machine']
RTOL = 0 if SAME_MACHINE else 1e-6
TRAINED_RTOL = 0 if SAME_MACHINE else 1e-5
SOUND_PACKAGES = ('symusic', 'soundfile', 'pretty_midi', 'numpy', 'scipy')


def expected(name):
  return json.loads((GOLDEN / 'expected' / f'{name}.json').read_text())


def same_packages(names):
  return all(importlib.metadata.version(name) == MANIFEST['versions'][name] for name in names)


def comparable(found):
  """Return outputs without what other machines may have otherwise: digests of arrays."""
  if SAME_MACHINE:
    return found
  return {key: golden_runs.without(x, ['sha256']) if key.startswith('arrays:') else x for key, x in found.items()}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] if case.get('slow') else []) for name, case in MANIFEST['cases'].items()
  ],
)
def test_case(name, tmp_path):
  case = MANIFEST['cases'][name]
  work = tmp_path.resolve() / 'work'
  if any(golden_api.BOX in ' '.join(words) for words in [*case.get('first', ()), *case['commands']]):
    golden_api.copy_bundled(work)
  golden_runs.lay_out(case, work, golden_api.CODE)
  golden_api.carry_over(work)
  output_text = golden_runs.run(golden_api.commands_of(case['commands']), work, golden_api.CODE)
  outputs = [output for output in case['outputs'] if not output.get('by_packages') or same_packages(SOUND_PACKAGES)]
  kinds = {f'{output["kind"]}:' for output in outputs}
  found, wanted = golden_runs.read_outputs(outputs, work), golden_api.with_todays_names(expected(name))
  for key in [key for key in found if key.startswith('json:') and key.endswith('model.json')]:
    found[key] = golden_api.flat_model_json(json.dumps(found[key]))
  if len(outputs) < len(case['outputs']):  # sound that other packages render otherwise
    wanted = {key: x for key, x in wanted.items() if key in found}
  assert kinds and wanted
  lines = golden_runs.differences(comparable(found), comparable(wanted), RTOL)
  assert not lines, '\n'.join([*lines[:20], output_text[-2000:]])
  for checkpoint, end in case.get('checkpoint', {}).items():
    golden_runs.copy(GOLDEN / end, tmp_path / 'end')
    folders = work / checkpoint, tmp_path / 'end' / checkpoint.rpartition('/')[2]
    lines = golden_runs.array_differences(*map(golden_runs.checkpoint_arrays, folders), TRAINED_RTOL)
    assert not lines, '\n'.join(lines)


def test_the_files_are_those_that_were_made():
  for name, digest in MANIFEST['sha256'].items():
    assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == digest, name


def test_old_model_json_is_read_as_what_is_written_today():
  """Of every converter, and of the model in the package (whose file is in the case `models` as it was copied)."""
  found = {key: text for key, text in expected('models').items() if key.endswith('model.json')}
  assert len(found) == 6
  for key, old in found.items():
    assert not golden_runs.differences(golden_api.flat_model_json(json.dumps(old)), old, 0), key


def test_the_api_transcribes_the_same_notes():
  samples, rate = soundfile.read(GOLDEN / 'songs' / 'song1.flac', dtype='float32')
  result = golden_api.load_bundled().transcribe(samples, rate)
  wanted = expected('notes_box')['json:out/song1.json']
  assert [segment.tokens.tolist() for segment in result.segments] == [
    segment['tokens'] for segment in wanted['segments']
  ]
  for field in ('onset', 'offset', 'pitch', 'velocity', 'program', 'is_drum'):
    np.testing.assert_array_equal(result.notes[field], [note[field] for note in wanted['notes']])


def test_journal_download(tmp_path):
  """What an old run had of a file is not asked for again, and is what it was."""
  golden_runs.copy(GOLDEN / 'journals' / 'download', tmp_path)
  there = (tmp_path / 'file.part').stat().st_size
  content = golden_runs.DOWNLOAD
  with golden_runs.serving(content) as (url, asked):
    golden_api.fetch(url, len(content), tmp_path / 'file')
  found = (tmp_path / 'file').read_bytes()
  assert asked == [f'bytes={there}-']
  assert (
    found[there:] == content[there:] and hashlib.sha256(found).hexdigest() == expected('journal_download')['sha256']
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == ['file']
