"""Writes one track of a data set in Slakh2100's layout.

A track folder has `mix.flac`, `stems/SNN.flac`, `MIDI/SNN.mid`, `all_src.mid`, and `metadata.yaml` with Slakh2100's
fields. As in Slakh2100, every stem is normalized to one loudness (ITU-R BS.1770-4), then one gain is applied to all so
that the mix peaks at `TARGET_PEAK`. The audio is 16-bit, and the mix is the sample-exact sum of its stems.
"""

import dataclasses
import io
import os
import secrets
import shutil
import tempfile
import uuid as uuid_module
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrmt3.errors import UserError
from mrmt3.notes.instruments import slakh_class_name
from mrmt3.utils.files import make_folder

STEM_LOUDNESS = -13.0  # LUFS: `normalization_factor` of metadata.yaml
TARGET_PEAK = -1.0  # dBFS, of the mix
AUDIBLE_LOUDNESS = -70.0  # LUFS: the absolute gate of BS.1770; below it a stem counts as silent
DRUM_PROGRAM_NUM = 128  # `program_num` of drums in metadata.yaml
MAX_STEMS = 100  # S00 .. S99
_MIN_LOUDNESS_SECONDS = 0.4  # one gating block
_FULL_SCALE = 2**15 - 1

_FAMILIES = (
  'Piano',
  'Chromatic Percussion',
  'Organ',
  'Guitar',
  'Bass',
  'Strings',
  'Strings (continued)',
  'Brass',
  'Reed',
  'Pipe',
  'Synth Lead',
  'Synth Pad',
  'Synth Effects',
  'Ethnic',
  'Percussive',
  'Sound Effects',
)


@dataclasses.dataclass(frozen=True)
class Stem:
  """One instrument of a track.

  Attributes:
    program: MIDI program 0..127; ignored for drums.
    is_drum: whether it is a drum kit.
    notes: note table (times in s); its program and is_drum columns are replaced by the stem's.
    audio: float32 `[n]` at the track's sample rate, or None for a stem that is listed but not rendered.
    plugin_name: the synthesizer or soundfont, for metadata.yaml.
    gain_db: level in the mix relative to the other stems, dB.
    loudness: `integrated_loudness` of the audio if it is already known.
    licence, attribution: of the sounds, for metadata.yaml; not written if empty.
  """

  program: int
  is_drum: bool
  notes: np.ndarray
  audio: np.ndarray | None
  plugin_name: str = ''
  gain_db: float = 0.0
  loudness: float | None = None
  licence: str = ''
  attribution: str = ''

  @property
  def inst_class(self) -> str:
    """The instrument family, as in metadata.yaml."""
    return 'Drums' if self.is_drum else _FAMILIES[self.program // 8]

  @property
  def midi_program_name(self) -> str:
    """The General MIDI name of the program."""
    import pretty_midi

    return 'Drums' if self.is_drum else pretty_midi.program_to_instrument_name(self.program)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Stems at their level in the mix.

  Attributes:
    stems: int16 `[n]` per stem, all of one length; None for a stem without audible audio.
    mix: int16 `[n]`, the sum of the stems.
    loudness: integrated loudness of each stem as rendered, LUFS; None for a stem without audible audio.
    overall_gain: factor on all (loudness-normalized) stems.
  """

  stems: list[np.ndarray | None]
  mix: np.ndarray
  loudness: list[float | None]
  overall_gain: float


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float | None:
  """Return the loudness of float audio `[n]` in LUFS (ITU-R BS.1770-4), None if it is below -70 LUFS."""
  import pyloudnorm

  if not len(audio) or not np.any(audio):
    return None
  missing = int(_MIN_LOUDNESS_SECONDS * sample_rate) + 1 - len(audio)
  audio = np.pad(np.asarray(audio, np.float64), (0, max(0, missing)))
  with np.errstate(divide='ignore'):
    loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(audio))
  return loudness if loudness > AUDIBLE_LOUDNESS else None


def mix_stems(
  audios: Sequence[np.ndarray | None],
  sample_rate: int,
  *,
  known_loudness: Sequence[float | None] = (),
  gains_db: Sequence[float] = (),
) -> Mixture:
  """Normalize stems (float `[n]` each, or None) to one loudness and mix them with a peak at `TARGET_PEAK`.

  Args:
    audios: shorter ones are padded with silence.
    sample_rate: Hz.
    known_loudness: `integrated_loudness` of each stem; measured here if None or not given.
    gains_db: level of each stem relative to the common loudness.

  Raises:
    UserError: no stem is audible, or one has NaN or infinite samples.
  """
  known_loudness = list(known_loudness) or [None] * len(audios)
  gains_db = list(gains_db) or [0.0] * len(audios)
  for index, audio in enumerate(audios):
    if audio is not None and not np.isfinite(audio).all():
      raise UserError(f'stem S{index:02d} has NaN or infinite samples; render it again')
  loudness = [
    None if audio is None else integrated_loudness(audio, sample_rate) if known is None else known
    for audio, known in zip(audios, known_loudness, strict=True)
  ]
  if all(level is None for level in loudness):
    raise UserError('no stem of the track is audible; give it at least one with sound')

  length = max(len(audio) for audio in audios if audio is not None)
  leveled = [
    None if level is None else np.pad(audio * 10 ** ((STEM_LOUDNESS + gain - level) / 20), (0, length - len(audio)))
    for audio, level, gain in zip(audios, loudness, gains_db, strict=True)
  ]
  audible = [audio for audio in leveled if audio is not None]
  # A stem can peak higher than the mix if others cancel it; it must not clip either.
  peak = max(float(np.abs(audio).max()) for audio in [*audible, np.sum(audible, axis=0)])
  overall = 10 ** (TARGET_PEAK / 20) / peak
  stems = [None if audio is None else np.rint(audio * overall * _FULL_SCALE).astype(np.int16) for audio in leveled]
  mix = np.sum([stem for stem in stems if stem is not None], axis=0, dtype=np.int32).astype(np.int16)
  return Mixture(stems, mix, loudness, overall)


def write_track(
  folder: str | os.PathLike,
  stems: Sequence[Stem],
  *,
  sample_rate: int = 16000,
  uuid: str | None = None,
  source: str = '',
  extras: bool = False,
  music_licence: tuple[str, str] | None = None,
) -> Path:
  """Write a track folder atomically: under a temporary name in the parent folder, then renamed.

  Args:
    folder: the track's folder, e.g. `train/Track00001`; an existing one is replaced.
    stems: at most `MAX_STEMS`, numbered S00, S01, ... in order. A stem without audible audio keeps its MIDI file and
      gets `audio_rendered: false` in the metadata, so that readers skip it.
    sample_rate: of all audio, Hz.
    uuid: identifier of the piece in the metadata; by default derived from `folder` and `source`.
    source: origin of the music (`lmd_midi_dir` in the metadata).
    music_licence: (licence, attribution) of the music, for metadata.yaml; None to leave them out.
    extras: also write the files that MR-MT3's and MT3-style loaders read: mix_16k.wav, inst_names.json, all_src_v2.mid.

  Returns:
    The folder.

  Raises:
    UserError: no stem is audible, there are too many stems, a program is invalid, or the folder cannot be written.
  """
  folder = Path(folder)
  _check_stems(stems, folder)
  make_folder(folder.parent)
  mixture = mix_stems(
    [stem.audio for stem in stems],
    sample_rate,
    known_loudness=[stem.loudness for stem in stems],
    gains_db=[stem.gain_db for stem in stems],
  )
  if uuid is None:
    uuid = uuid_module.uuid5(uuid_module.NAMESPACE_URL, f'{source}#{folder.name}').hex
  metadata = _metadata(stems, mixture, uuid, source)
  if music_licence is not None:
    metadata |= {'music_licence': music_licence[0], 'music_attribution': music_licence[1]}
  try:
    temporary = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
      _write_files(temporary, stems, mixture, metadata, sample_rate)
      if extras:
        _write_extras(temporary, stems, mixture, sample_rate)
      temporary.chmod(folder.parent.stat().st_mode & 0o777)
      if folder.exists():
        remove_folder(folder)
      temporary.rename(folder)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  except OSError as error:
    raise UserError(f'cannot write the track {folder}: {error.strerror or error}') from error
  return folder


def _check_stems(stems, folder):
  if not 0 < len(stems) <= MAX_STEMS:
    raise UserError(f'cannot write the track {folder}: it has {len(stems)} stems; give it 1 to {MAX_STEMS}')
  for index, stem in enumerate(stems):
    if not stem.is_drum and not 0 <= stem.program < 128:
      raise UserError(f'cannot write the track {folder}: stem S{index:02d} has program {stem.program}; use 0 to 127')


def _metadata(stems, mixture, uuid, source):
  entries = {}
  for index, (stem, level) in enumerate(zip(stems, mixture.loudness, strict=True)):
    entries[f'S{index:02d}'] = {
      'audio_rendered': level is not None,
      'inst_class': stem.inst_class,
      'is_drum': bool(stem.is_drum),
      'midi_program_name': stem.midi_program_name,
      'midi_saved': True,
      'plugin_name': stem.plugin_name,
      'program_num': DRUM_PROGRAM_NUM if stem.is_drum else int(stem.program),
    }
    if stem.licence:
      entries[f'S{index:02d}'] |= {'licence': stem.licence, 'attribution': stem.attribution}
    if level is not None:
      entries[f'S{index:02d}']['integrated_loudness'] = level
  return {
    'UUID': uuid,
    'audio_dir': 'stems',
    'lmd_midi_dir': source,
    'midi_dir': 'MIDI',
    'normalization_factor': STEM_LOUDNESS,
    'normalized': True,
    'overall_gain': mixture.overall_gain,
    'stems': entries,
    'target_peak': TARGET_PEAK,
  }


def remove_folder(folder: Path) -> None:
  """Remove a track folder atomically, by renaming it first. Raises OSError."""
  doomed = folder.with_name(f'.{folder.name}.{secrets.token_hex(4)}.old')
  folder.rename(doomed)
  shutil.rmtree(doomed)


def _write_files(folder, stems, mixture, metadata, sample_rate):
  import yaml

  from mrmt3.notes.midi import write_midi

  (folder / 'stems').mkdir()
  (folder / 'MIDI').mkdir()
  tables = [_stem_notes(stem) for stem in stems]
  for index, (notes, samples) in enumerate(zip(tables, mixture.stems, strict=True)):
    write_midi(notes, folder / 'MIDI' / f'S{index:02d}.mid')
    if samples is not None:
      _write_audio(folder / 'stems' / f'S{index:02d}.flac', samples, sample_rate)
  _write_audio(folder / 'mix.flac', mixture.mix, sample_rate)
  write_midi(np.concatenate(tables), folder / 'all_src.mid')
  dumper = getattr(yaml, 'CSafeDumper', yaml.SafeDumper)
  text = yaml.dump(metadata, Dumper=dumper, sort_keys=True)
  (folder / 'metadata.yaml').write_text(text, encoding='utf-8')


def _write_extras(folder, stems, mixture, sample_rate):
  """Write the mix as 16 kHz wav, the class names of audible stems, and the MIDI file of all audible stems."""
  import json

  from mrmt3.audio.files import SAMPLE_RATE, resample
  from mrmt3.notes.midi import write_midi

  mix = mixture.mix
  if sample_rate != SAMPLE_RATE:
    mix = np.clip(np.rint(resample(mix.astype(np.float32), sample_rate, SAMPLE_RATE)), -_FULL_SCALE, _FULL_SCALE)
  _write_audio(folder / 'mix_16k.wav', mix.astype(np.int16), SAMPLE_RATE)
  audible = {f'S{index:02d}': stem for index, stem in enumerate(stems) if mixture.stems[index] is not None}
  names = {name: 'Drums' if stem.is_drum else slakh_class_name(stem.program) for name, stem in audible.items()}
  (folder / 'inst_names.json').write_text(json.dumps(names) + '\n', encoding='utf-8')
  write_midi(np.concatenate([_stem_notes(stem) for stem in audible.values()]), folder / 'all_src_v2.mid')


def _write_audio(path, samples, sample_rate):
  """Write int16 samples through memory, because libsndfile does not report a full disk."""
  import soundfile

  memory = io.BytesIO()
  audio_format = {'.flac': 'FLAC', '.wav': 'WAV'}[path.suffix]
  soundfile.write(memory, samples, sample_rate, subtype='PCM_16', format=audio_format)
  path.write_bytes(memory.getbuffer())


def _stem_notes(stem):
  notes = stem.notes.copy()
  notes['program'] = 0 if stem.is_drum else stem.program
  notes['is_drum'] = stem.is_drum
  return notes
