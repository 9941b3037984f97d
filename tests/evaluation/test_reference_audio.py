"""Audio next to references: every format that `mrmt3 transcribe` takes."""

import odd_audio
import pytest

from mrmt3.errors import DataWarning
from mrmt3.evaluation.references import find_references
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes


@pytest.mark.parametrize('suffix', ['.m4a', '.webm', '.3gp', '.aiff'])
def test_formats_of_transcribe(tmp_path, suffix):
  pytest.importorskip('av')
  write_midi(as_notes([(0.1, 0.5, 64, 90, 30, 0)]), tmp_path / 'song.mid')
  path = tmp_path / f'song{suffix}'
  if suffix in odd_audio.CONTAINERS:
    odd_audio.encode(path, odd_audio.tone(peak=1e-3), suffix)
  else:
    odd_audio.write(path, odd_audio.tone(peak=1e-3))
  (reference,) = find_references(tmp_path).values()
  with pytest.warns(DataWarning, match=r'very quiet \(peak -\d+ dB\)'):
    assert len(reference.audio(16000)) == pytest.approx(32000, abs=1600)
