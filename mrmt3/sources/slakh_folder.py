import dataclasses

import numpy as np

from mrmt3 import audio_io, slakh
from mrmt3.pieces import PieceContent


@dataclasses.dataclass(frozen=True)
class SlakhFolder:
  data_dir: str
  def splits(self): return slakh.SPLITS
  def list_pieces(self, split): return [t.name for t in slakh.find_tracks(self.data_dir, split)]
  def fingerprint(self, split): return ' '.join(self.list_pieces(split))
  def read_piece(self, split, name, sample_rate, stems=False):
    import pathlib
    t = slakh.Track(pathlib.Path(self.data_dir)/split/name)
    if not stems:
      return PieceContent(audio_io.read_audio(t.audio_path, sample_rate), slakh.read_notes(t))
    st = slakh.read_stems(t)
    a=[audio_io.read_audio(s.audio_path, sample_rate) for s in st]
    n=[slakh.read_stem_notes(s) for s in st]
    return PieceContent(sum(a), np.concatenate(n), np.stack(a), np.repeat(np.arange(len(st)), [len(x) for x in n]).astype(np.int32))
