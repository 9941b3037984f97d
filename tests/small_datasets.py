"""Small data sets in the layouts of the published ones, with a few seconds of music each."""

import csv
import json
from pathlib import Path

import numpy as np
import soundfile

from mrmt3.data.records.messages import serialize_example, serialize_notes
from mrmt3.data.records.tfrecord import framed
from mrmt3.data.sources.mt3_records import PUBLISHED
from mrmt3.notes.midi import write_midi
from mrmt3.notes.note_array import as_notes

RATE = 16000
SECONDS = 3.0
MUSICNET_IDS = {
  '1727': 'train',
  '1728': 'train',
  '1733': 'validation',
  '1729': 'test',
  '1819': 'train',
}  # 1819 is in test_data
MAESTRO_SPLITS = ('train', 'train', 'validation', 'test')
NSYNTH = {  # name: (family, pitch, velocity)
  'bass_synthetic_033-022-050': ('bass', 22, 50),
  'flute_acoustic_002-077-100': ('flute', 77, 100),
  'mallet_acoustic_062-060-127': ('mallet', 60, 127),
  'vocal_synthetic_003-050-025': ('vocal', 50, 25),
}
NSYNTH_FAMILIES = (
  'bass',
  'brass',
  'flute',
  'guitar',
  'keyboard',
  'mallet',
  'organ',
  'reed',
  'string',
  'synth_lead',
  'vocal',
)


def notes_of(seed: int, program: int = 0, count: int = 6):
  """Return a note table of consecutive notes."""
  rng = np.random.default_rng(seed)
  onsets = np.round(np.linspace(0.25, SECONDS - 0.75, count), 2)
  return as_notes(
    [(onset, onset + 0.25, int(rng.integers(50, 70)), int(rng.integers(40, 120)), program, 0) for onset in onsets]
  )


def sound_of(notes, rate: int = RATE, seconds: float = SECONDS):
  """Return sines at the pitches of notes, float32 `[n]`."""
  time = np.arange(round(seconds * rate)) / rate
  samples = np.zeros(len(time))
  for note in notes:
    active = (time >= note['onset']) & (time < note['offset'])
    samples += active * 0.2 * np.sin(2 * np.pi * 440 * 2 ** ((note['pitch'] - 69) / 12) * time)
  return samples.astype(np.float32)


def write_wav(path: Path, samples, rate: int = RATE, channels: int = 1) -> None:
  """Write a 16-bit wav file, the same samples in every channel."""
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate, subtype='PCM_16')


def write_commu(root: Path, clips: int = 20, audio: bool = True) -> Path:
  """Write ComMU: the table, the MIDI files in the two folders of their publication, and (not published) audio."""
  instruments = ('acoustic_piano', 'string_violin-1', 'synth_bell', 'bell')
  columns = ['', 'audio_key', 'chord_progressions', 'bpm', 'inst', 'num_measures', 'split_data', 'id']
  root.mkdir(parents=True)
  with open(root / 'commu_meta.csv', 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(columns)
    for number in range(1, clips + 1):
      split, name, inst = (
        ('val' if number % 7 == 0 else 'train'),
        f'commu{number:05d}',
        instruments[number % 3 if number % 9 else 3],
      )
      table.writerow([number - 1, 'aminor', "[['Am', 'F']]", 120, inst, 4, split, name])
      notes = notes_of(number, program=3)  # the files' own programs are not those that are rendered
      path = root / 'commu_midi' / split / 'raw' / f'{name}.mid'
      path.parent.mkdir(parents=True, exist_ok=True)
      write_midi(notes, path)
      if audio:
        write_wav(root / 'commu_audio' / f'{name}.wav', sound_of(notes))
  return root


def write_nsynth(root: Path, split: str = 'valid') -> Path:
  """Write a split of NSynth: nsynth-<split>/examples.json and audio/*.wav, four seconds each."""
  folder = root / f'nsynth-{split}'
  table = {}
  for number, (name, (family, pitch, velocity)) in enumerate(NSYNTH.items()):
    table[name] = {
      'note': number,
      'note_str': name,
      'instrument': number,
      'instrument_str': name.rsplit('-', 2)[0],
      'pitch': pitch,
      'velocity': velocity,
      'sample_rate': RATE,
      'qualities': [0] * 10,
      'qualities_str': [],
      'instrument_source': 2,
      'instrument_family': NSYNTH_FAMILIES.index(family),
      'instrument_family_str': family,
      'instrument_source_str': 'synthetic',
    }
    write_wav(folder / 'audio' / f'{name}.wav', nsynth_sound(pitch))
  (folder / 'examples.json').write_text(json.dumps(table, indent=4))
  return root


def nsynth_sound(pitch: int):
  """Return the four seconds of a note of NSynth, float32 `[64000]`."""
  return sound_of(as_notes([(0.0, 3.5, pitch, 100, 0, 0)]), seconds=4.0)


def write_tfds_nsynth(root: Path, split: str = 'valid') -> Path:
  """Write the same notes as TFDS does, with the features of its builder; return the folder of the records."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.datasets.nsynth.nsynth_dataset_builder import Builder

  class Recorder:  # the attributes that _info needs
    builder_config = Builder.BUILDER_CONFIGS[0]
    dataset_info_from_configs = staticmethod(lambda features, **_: features)

  features = Builder._info(Recorder())
  with tfds.core.registered.skip_registration():

    class Nsynth(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version('2.3.3')
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='full')]

      def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=features)

      def _split_generators(self, dl_manager):
        return {split: self._generate_examples()}

      def _generate_examples(self):
        features['instrument']['label'].names = [f'i{number}' for number in range(1006)]
        for name, (family, pitch, velocity) in NSYNTH.items():
          yield (
            name,
            {
              'id': name,
              'audio': nsynth_sound(pitch),
              'pitch': pitch,
              'velocity': velocity,
              'instrument': {'label': 'i0', 'family': family, 'source': 'synthetic'},
              'qualities': dict.fromkeys(features['qualities'], False),
            },
          )

  builder = Nsynth(data_dir=str(root), config='full')
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  return Path(builder.data_dir)


def write_maestro(root: Path, version: str = '3.0.0') -> Path:
  """Write MAESTRO: the table and, in a folder a year, stereo wav files at 44.1 kHz and MIDI files with the pedal."""
  columns = ['canonical_composer', 'canonical_title', 'split', 'year', 'midi_filename', 'audio_filename', 'duration']
  ending = 'midi'
  (root / '2018').mkdir(parents=True)
  with open(root / f'maestro-v{version}.csv', 'w', newline='') as file:
    table = csv.writer(file)
    table.writerow(columns)
    for number, split in enumerate(MAESTRO_SPLITS):
      name = f'2018/MIDI-Unprocessed_Chamber{number}_MID--AUDIO_{number:02d}'
      table.writerow(['Frédéric Chopin', 'Étude, Op. 10', split, 2018, f'{name}.{ending}', f'{name}.wav', SECONDS])
      notes = notes_of(number)
      _write_performance(root / f'{name}.{ending}', notes)
      write_wav(root / f'{name}.wav', sound_of(notes, 44100), 44100, channels=2)
  return root


def _write_performance(path, notes):
  import pretty_midi

  midi = pretty_midi.PrettyMIDI()
  piano = pretty_midi.Instrument(0)
  piano.notes = [
    pretty_midi.Note(*(note[name].item() for name in ('velocity', 'pitch', 'onset', 'offset'))) for note in notes
  ]
  moves = [(0.1, 0), (0.4, 100), (1.3, 20), (1.6, 64), (2.9, 0)]
  piano.control_changes = [pretty_midi.ControlChange(64, value, time) for time, value in moves]
  midi.instruments.append(piano)
  midi.write(str(path))


GUITARSET = ('00_BN1-129-Eb_comp', '00_Jazz2-110-Bb_solo', '03_SS3-84-Bb_comp')


def write_guitarset(root: Path) -> Path:
  """Write GuitarSet: JAMS files with the notes of six strings, and the two recordings of each piece in mono."""
  (root / 'annotation').mkdir(parents=True)
  for number, name in enumerate(GUITARSET):
    notes = notes_of(number)
    annotations = [{'namespace': 'tempo', 'data': [{'time': 0, 'duration': SECONDS, 'value': 129, 'confidence': 1.0}]}]
    for string in range(6):
      data = [
        {
          'time': note['onset'].item(),
          'duration': (note['offset'] - note['onset']).item(),
          'value': note['pitch'] + 0.13,
          'confidence': None,
        }
        for note in notes[string::6]
      ]
      annotations.append(
        {'namespace': 'pitch_contour', 'data': {'time': [], 'duration': [], 'value': [], 'confidence': []}}
      )
      annotations.append({'namespace': 'note_midi', 'data': data, 'annotation_metadata': {'data_source': str(string)}})
    (root / 'annotation' / f'{name}.jams').write_text(
      json.dumps({'annotations': annotations, 'file_metadata': {}, 'sandbox': {}})
    )
    for kind, folder in (('mic', 'audio_mono-mic'), ('mix', 'audio_mono-pickup_mix')):
      write_wav(root / folder / f'{name}_{kind}.wav', sound_of(notes, 44100), 44100)
  return root


def write_musicnet(root: Path) -> Path:
  """Write MusicNet: wav files of 32-bit floats at 44.1 kHz and tables with times in samples, and EM's MIDI files."""
  for name in MUSICNET_IDS:
    part = 'test' if name == '1819' else 'train'
    notes = notes_of(int(name), program=41)
    for folder in ('data', 'labels'):
      (root / f'{part}_{folder}').mkdir(parents=True, exist_ok=True)
    soundfile.write(root / f'{part}_data' / f'{name}.wav', sound_of(notes, 44100), 44100, subtype='FLOAT')
    with open(root / f'{part}_labels' / f'{name}.csv', 'w', newline='') as file:
      table = csv.writer(file)
      table.writerow(['start_time', 'end_time', 'instrument', 'note', 'start_beat', 'end_beat', 'note_value'])
      for note in notes:
        start, end = (round(note[field] * 44100) for field in ('onset', 'offset'))
        table.writerow([start, end, 42, note['pitch'], 1.0, 0.5, 'Eighth'])
    if name != '1728':  # EM has not all of them
      (root / 'musicnet_em').mkdir(exist_ok=True)
      write_midi(notes_of(int(name) + 1, program=41), root / 'musicnet_em' / f'{name}.mid')
  return root


def _record(layout, number):
  """Return a record of two tracks in a layout that nothing is converted to here."""
  names = {'urmp': [b'vn', b'fl'], 'cerberus4': [b'bass', b'drums', b'guitar', b'piano']}[layout]
  tables = [notes_of(number + track) for track in range(len(names))]
  sequences = [serialize_notes(table, 'x', SECONDS) for table in tables]
  samples = sum(map(sound_of, tables))
  if layout == 'urmp':
    import io

    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format='WAV', subtype='PCM_16')
    return {
      'id': b'u%d' % number,
      'tracks': np.arange(len(names)),
      'inst_names': names,
      'audio': file.getvalue(),
      'sequence': sequences[0],
      'instrument_sequences': sequences,
    }
  return {
    'audio_sample_rate': np.array([RATE]),
    'inst_names': names,
    'midi_class': np.arange(4),
    'mix': samples,
    'note_sequences': sequences,
    'plugin_name': np.arange(4),
    'program_num': np.array([32, 128, 24, 0]),
    'slakh_class': np.arange(4),
    'src_ids': names,
    'stems': np.zeros(0, np.float32),
    'stems_shape': np.array([0, 0]),
    'target_type': b'multi',
    'track_id': b'Track%05d' % number,
  }


def write_published(root: Path, name: str) -> Path:
  """Write `root/<name>`: two records of URMP or Cerberus4 in the first file of each published split."""
  layout, paths = PUBLISHED[name]
  for split, pattern in paths.items():
    path = root / name / pattern.replace('?????', '00000').replace('0000?', '00000')
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b''.join(framed(serialize_example(_record(layout, number))) for number in range(2)))
    assert path.exists(), split
  return root / name


def write_originals(root: Path) -> dict[str, Path]:
  """Write all data sets that can be converted, and return their folders by the names they are converted under."""
  maestro, musicnet = root / 'maestro', write_musicnet(root / 'musicnet')
  write_maestro(maestro / 'v3')
  return {
    'maestrov3': maestro / 'v3',
    'maestrov1': write_maestro(maestro / 'v1', '1.0.0'),
    'guitarset': write_guitarset(root / 'guitarset'),
    'musicnet': musicnet,
    'musicnet_em': musicnet,
  }


def write_records(root: Path, slakh: Path | None = None) -> Path:
  """Write MT3's data sets into `root`, the folder of each; those that can be converted from their original folders.

  Args:
    root: the folder of records.
    slakh: a folder in the Slakh2100 layout; None: twin-instrument pieces.
  """
  import shutil

  from mrmt3.data.convert.write_records import Options, convert
  from mrmt3.studies import twin_instruments

  originals = write_originals(root.parent / f'{root.name}_originals')
  if slakh is None:
    slakh = root.parent / f'{root.name}_slakh'
    twin_instruments.write_dataset(slakh, seed=1, train_pieces=2, test_pieces=1, segment_seconds=0.5, pairs=2)
    shutil.copytree(slakh / 'test', slakh / 'validation')
  for name, folder in {**originals, 'slakh': slakh}.items():
    labels = str(folder / 'musicnet_em') if name == 'musicnet_em' else None
    convert(name, folder, root, Options(labels=labels), workers=1, progress=False, strict=True)
  for name in ('urmp', 'cerberus4'):
    write_published(root, name)
  return root
