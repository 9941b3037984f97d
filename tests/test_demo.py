"""The folders of the demo; `make demo` runs it as a whole."""

import shutil

import pytest
from evaluate_command import run

from mrmt3 import demo


def test_transcriptions_are_matched_with_the_references_and_with_the_data(small_data, tmp_path, capsys):
  tracks = demo.lay_out_tracks(small_data, tmp_path, ['train', 'test'])
  assert list(tracks) == ['train/Track00000', 'train/Track00001', 'train/Track00002', 'test/Track00000']
  assert all((tmp_path / 'audio' / f'{name}.flac').is_file() for name in tracks)
  shutil.copytree(tmp_path / 'reference', tmp_path / 'transcription')  # `mrmt3 transcribe` keeps the audio's paths
  for reference in (tmp_path / 'reference', small_data):
    assert run(reference, tmp_path / 'transcription') == 0
    shown = capsys.readouterr()
    assert shown.err == '' and 'mean of 4 pieces' in shown.out and '(empty)' not in shown.out


def test_scores_of_learnt_songs():
  pieces = {'train/Track00000': 0.5, 'train/Track00001': 1.0, 'test/Track00000': 0.0}
  assert demo.learnt_onset_f1({'pieces': {name: {'onset_f1': f1} for name, f1 in pieces.items()}}) == pytest.approx(
    0.75
  )
