"""Makes the golden files: what the code at commit 2000f88 computes and leaves behind, for `tests/test_golden.py`.

Run it with the package of a checkout of that commit, in an environment with the extra `test`; other code would make
other files, and is refused:

    PYTHONPATH=CHECKOUT python tests/golden/make_golden.py            all of them
    PYTHONPATH=CHECKOUT python tests/golden/make_golden.py NAME ...   only these cases (patterns); needs the inputs

`golden_runs` describes what a case consists of. Inputs (`songs`, `slakh`, `midi`, `commu`) are made first, then the
runs to start from (`training`), then for every case what comes out (`expected`). A journal is made of an uninterrupted
run: what it left is cut down to what an interruption would have left, and the finished part is altered, so that a later
run which ignores the journal cannot come to the same end. What the old code makes of that is expected, and has to agree
with the uninterrupted run where nothing was altered.
"""

import datetime
import fnmatch
import hashlib
import importlib.metadata
import json
import lzma
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import golden_runs as runs

COMMIT = '2000f88'
OUT = runs.FOLDER
RATE = 16000
SEED = 20240310
EXCERPT = (10.0, 8.0)  # s: where it begins in a rendered piece, how long it is
STEP = 64  # of the samples of excerpts: FLAC packs them in half the bytes
SLAKH_STEP = 512  # of those of the data set
SLAKH_TRACKS = (('train', 1, 1.25), ('train', 2, 2.5), ('train', 3, 2.0), ('validation', 4, 1.5))  # split, number, s
TIMED = ['examples_per_second', 'input_wait_share']  # keys of train.jsonl that the clock decides
LARGEST_START = 500  # numbers; larger arrays of start weights are made coarse, which packs well
KIND = 'note_reader/kind'
KIND_COLUMNS = 32  # that are not 0 at the start
SENTINEL = {'kept_by_the_next_run': 1}

TRAIN_FILES = ('config.gin', 'operative_config.gin', 'model-info.txt', 'train.jsonl', 'training_eval.jsonl')
SIZES = ('emb_dim=4', 'num_heads=2', 'head_dim=2', 'mlp_dim=4', 'num_encoder_layers=1')
DECODER = ('num_decoder_layers=1',)


def gin(*bindings: str) -> list[str]:
  return [f'--gin.{binding}' for binding in bindings]


def gin_files(*names: str) -> list[str]:
  return [f'--gin_file={name}.gin' for name in names]


def network(*fields: str) -> list[str]:
  return gin(*(f'network.T5Config.{field}' for field in fields))


RUN = gin('DATA_DIR="slakh"', 'BATCH_SIZE=2', 'SAVE_PERIOD=3', 'EVAL_PERIOD=5', 'train.stats_period=2')
NO_EVALUATION = gin('train.train_eval_dataset_cfg=None')
MT3_SIZES = [
  *network(*SIZES, *DECODER, 'vocab_size=640'),
  *gin(
    'SEGMENT_FRAMES=64',
    'TARGETS_LENGTH=64',
    'vocabularies.VocabularyConfig.max_shift_seconds=1',
    'spectrograms.SpectrogramConfig.num_mel_bins=32',
  ),
]
BOX_SIZES = [
  *network(*SIZES, 'front_channels=(2, 3, 2, 1)', 'proposals=8'),
  *gin(
    'SEGMENT_FRAMES=32',
    'TARGETS_LENGTH=64',
    'spectrograms.SpectrogramConfig.num_mel_bins=128',
    'schedules.warmup_cosine.warmup_steps=2',
  ),
]
TRAININGS = {
  'mt3': [*gin_files('models/base', 'optimizers/mt3', 'runs/train'), *RUN, *NO_EVALUATION, *MT3_SIZES],
  'mr_mt3': [
    *gin_files('models/mr_mt3', 'optimizers/mr_mt3', 'runs/train', 'ablations/corrupted_prior'),
    *RUN,
    *MT3_SIZES,
    *network('memory_length=4'),
    *gin(*(f'schedules.warmup_cosine.{field}' for field in ('peak=0.01', 'warmup_steps=2', 'total_steps=8'))),
  ],
  'box': [
    *gin_files('runs/box'),
    *RUN,
    *NO_EVALUATION,
    *BOX_SIZES,
  ],
  'box_decoder': [
    *gin_files('runs/study'),
    *RUN,
    *BOX_SIZES,
    *network(*DECODER, 'memory_length=4'),
    *gin('train/example_config.ExampleConfig.length_block=4'),
  ],
}
QUICK_TRAININGS = ('mt3', 'mr_mt3')

CONTINUED = [*gin_files('runs/continued'), *gin('INIT_FROM="start"')]
# Large arrays whose size nothing decides; without gradients they and their optimizer state pack well.
FROZEN = gin(f'models.MemoryEncoderDecoderModel.frozen=("note_reader/class_of", "{KIND}")')
TO_THE_END = gin('MODEL_DIR="model"', 'TRAIN_STEPS=5')


def train_command(name: str, continued: bool = True) -> list[str]:
  frozen = FROZEN if name.startswith('box') else []
  return ['mrmt3.train', *TRAININGS[name], *TO_THE_END, *([*frozen, *CONTINUED] if continued else [])]


TOKENS = {
  'mt3': gin_files('models/mr_mt3') + gin('ExampleConfig.max_hop=3', 'ExampleConfig.prior_segments=2'),
  'mt3_grid': gin_files('models/mr_mt3') + gin('SEGMENT_FRAMES=64', 'ExampleConfig.sampling="grid"'),
  'shuffled': gin_files('models/mr_mt3') + gin('SEGMENT_FRAMES=100', 'ExampleConfig.shuffle_scope="paper"'),
  'shuffled_mr_mt3': gin_files('models/mr_mt3') + gin('SEGMENT_FRAMES=100', 'ExampleConfig.shuffle_scope="mr_mt3"'),
  'corrupted': gin_files('models/mr_mt3')
  + gin(
    'SEGMENT_FRAMES=64',
    'ExampleConfig.prior_drop=0.2',
    'ExampleConfig.prior_replace=0.2',
    'ExampleConfig.memory_dropout=0.2',
  ),
  'midi_class': gin_files('models/mr_mt3')
  + gin('SEGMENT_FRAMES=64', 'ExampleConfig.granularity="midi_class"', 'ExampleConfig.trim=False'),
  'box': gin_files('models/box') + gin('SEGMENT_FRAMES=40', 'ExampleConfig.rounded_order=True'),
  'box_composed': gin_files('models/box')
  + gin(
    'SEGMENT_FRAMES=40',
    'ExampleConfig.rounded_order=True',
    'ExampleConfig.stem_subset_rate=0.8',
    'ExampleConfig.max_pieces_per_mix=2',
    'ExampleConfig.max_transposition=3',
  ),
}


def token_commands() -> list[list[str]]:
  common = [
    'mrmt3',
    'inspect',
    'slakh',
    '--data',
    'slakh',
    '--split',
    'train',
    '--n',
    '10',
    '--examples',
    '10',
    '--seed',
    '7',
  ]
  return [[*common, '--json', f'tokens/{name}.json', *flags] for name, flags in TOKENS.items()]


MODEL_COMMANDS = [
  ['mrmt3', 'convert', *words.split()]
  for words in (
    'mr_mt3.npz numpy --num-heads 6 --l-agg 5 --positions mr_mt3 --front-end mr_mt3 --scaling unit '
    '--prior-layout start_token',
    'numpy x_context=5.ckpt',
    'x_context=5.ckpt lightning',
    'mt3.npz numpy_mt3 --num-heads 6 --l-agg 0',
    'numpy_mt3 mt3.pth',
    'mt3.pth torch',
    't5x_legacy/checkpoint_3 legacy --num-heads 2',
    't5x_orbax/checkpoint_6 orbax --num-heads 2',
    'box packed --to packed',
    'numpy t5x --to t5x',
  )
]
MAKE_MODEL = ['mrmt3', 'convert', 'box', 'model', '--to', 'packed']

STUDY_SIZES = [word.removeprefix('--gin.') for word in MT3_SIZES] + [
  'train.stats_period=1',
  'train.train_eval_dataset_cfg=None',
  'EVAL_PERIOD=5',
]
STUDY = [
  'mrmt3',
  'study',
  'memory-softmax',
  '-o',
  'study',
  '--data',
  'slakh',
  '--split',
  'validation',
  '--steps',
  '2',
  '--moments',
  '2',
  '--batch-size',
  '2',
  '--base',
  'models/base.gin',
  '--base',
  'optimizers/mt3.gin',
  '--base',
  'runs/train.gin',
  *(word for binding in STUDY_SIZES for word in ('--gin', binding)),
]
PREDICTIONS = {'files': 'scores/predictions-*.jsonl', 'kind': 'jsonl'}
SCORES = {'files': '*scores.json', 'kind': 'json', 'only': ['pieces', 'mean', 'made_of', 'problem', 'failed']}
TRANSCRIPTIONS = [{'files': 'out/*.json', 'kind': 'json'}, {'files': 'out/*.mid', 'kind': 'sha256'}]
EVALUATE = [
  'mrmt3',
  'evaluate',
  'songs',
  '--checkpoint',
  'model',
  '-o',
  'scores',
  '--json',
  'scores.json',
  '--batch-size',
  '1',
  '--workers',
  '1',
]
TRAINED = {'files': 'model/*.jsonl', 'kind': 'jsonl', 'without': TIMED}


def make_cases() -> dict[str, dict]:
  """Return all cases by name; those that have a function in `INTERRUPTIONS` are journals."""
  cases = {
    'notes_box': {
      'inputs': {'songs': 'songs'},
      'commands': [['mrmt3', 'transcribe', 'songs', '-o', 'out', '--checkpoint', 'box', '--json']],
      'outputs': TRANSCRIPTIONS,
    },
    'notes_box_no_memory': {
      'inputs': {'songs': 'songs'},
      'commands': [
        [
          'mrmt3',
          'evaluate',
          'songs',
          '--checkpoint',
          'box',
          '--memory',
          'none',
          '--pieces',
          '1',
          '-o',
          'scores',
          '--workers',
          '1',
          '--json',
          'scores.json',
        ],
      ],
      'outputs': [{**PREDICTIONS, 'without': ['checkpoint', 'changed']}, SCORES],
    },
    'tokens_box_no_memory': {
      'inputs': {'slakh': 'slakh'},
      'commands': [infer_command('none')],
      'outputs': [{'files': 'predictions/*-of-*', 'kind': 'jsonl'}],
    },
    'notes_trained': {
      'inputs': {
        'songs': 'songs',
        **{name: f'training/{name}/end.tar.xz' for name in ('mt3', 'mr_mt3', 'box_decoder')},
      },
      'commands': [
        [
          'mrmt3',
          'transcribe',
          'songs/song1.flac',
          '-o',
          f'out/{name}.mid',
          '--checkpoint',
          name,
          '--json',
          f'out/{name}.json',
        ]
        for name in ('mt3', 'mr_mt3', 'box_decoder')
      ],
      'outputs': TRANSCRIPTIONS,
    },
    'tokens': {
      'inputs': {'slakh': 'slakh'},
      'commands': token_commands(),
      'outputs': [
        {
          'files': 'tokens/*.json',
          'kind': 'json',
          'only': ['task', 'split', 'examples', 'features', 'shown', 'lengths'],
          'without': ['events'],
        }
      ],
    },
    'models': {
      'prepare': ['torch_names', 't5x'],
      'commands': MODEL_COMMANDS,
      'outputs': [
        {'files': f'{name}/*model.json', 'kind': 'json'}
        for name in ('lightning', 'torch', 'legacy', 'orbax', 'packed', 't5x')
      ],
    },
  }
  for name in TRAININGS:
    cases[f'training_{name}'] = {
      'inputs': {'slakh': 'slakh', 'model': f'training/{name}/half.tar.xz'},
      'commands': [train_command(name)],
      'outputs': [TRAINED],
      'checkpoint': {'model/checkpoint_5': f'training/{name}/end.tar.xz'},
      'slow': name not in QUICK_TRAININGS,
    }
    cases[f'fresh_{name}'] = {
      'inputs': {'slakh': 'slakh'},
      'commands': [train_command(name, continued=False)],
      'outputs': [TRAINED, {'files': 'model/checkpoint_5/model.json', 'kind': 'arrays'}],
      'slow': True,
    }
  journals = {
    'transcribe': {
      'inputs': {'songs': 'songs'},
      'commands': [['mrmt3', 'transcribe', 'songs', '-o', 'out', '--checkpoint', 'box', '--resume']],
      'outputs': [{'files': 'out/*', 'kind': 'sha256'}],
    },
    'evaluate': {
      'inputs': {'songs': 'songs'},
      'first': [MAKE_MODEL],
      'commands': [EVALUATE],
      'outputs': [PREDICTIONS, SCORES],
    },
    'infer': {
      'inputs': {'slakh': 'slakh'},
      'commands': [infer_command('predicted')],
      'outputs': [
        {'files': 'predictions/*-of-*', 'kind': 'jsonl'},
        {'files': 'predictions/*.COMPLETED', 'kind': 'sha256'},
      ],
    },
    'piece_store': {
      'inputs': {'slakh': 'slakh'},
      'commands': [['mrmt3', 'inspect', 'slakh', '--data', 'slakh', '--split', 'train', '--n', '0', '--examples', '1']],
      'outputs': [
        {'files': f'cache/pieces/*/{name}', 'kind': 'sha256'}
        for name in ('audio.bin', 'notes.bin', 'index.jsonl', 'complete.json')
      ],
    },
    'dataset_build': {
      'inputs': {'midi': 'midi'},
      'commands': [
        ['mrmt3', 'dataset', 'build', 'data', '--midi', 'midi', '--seconds', '4', '--seed', '3', '--workers', '1']
      ],
      'outputs': [
        {'files': 'data/dataset.json', 'kind': 'json'},
        {'files': 'data/*.mid', 'kind': 'sha256'},
        {'files': 'data/*.yaml', 'kind': 'sha256', 'by_packages': True},
        {'files': 'data/*.flac', 'kind': 'sha256', 'by_packages': True},
      ],
    },
    'commu': {
      'inputs': {'commu': 'commu'},
      'commands': [['mrmt3', 'dataset', 'commu', 'commu', '--workers', '1']],
      'outputs': [{'files': 'commu/commu_audio/*', 'kind': 'sha256', 'by_packages': True}],
    },
    'reproduce': {
      'inputs': {'slakh': 'slakh'},
      'first': [MAKE_MODEL],
      'commands': [
        ['mrmt3', 'reproduce', 'slakh', '--data', 'slakh', '--checkpoint', 'model', '--split', 'train', '-o', 'out']
      ],
      'outputs': [{'files': 'out/*.mid', 'kind': 'sha256'}, {'files': 'out/model/*.json', 'kind': 'json'}],
    },
    'study_probe': {
      'inputs': {'songs': 'songs'},
      'first': [MAKE_MODEL],
      'commands': [
        ['mrmt3', 'study', 'frontier', '-o', 'study', '--checkpoint', 'model', '--data', 'songs', '--pieces', '2']
      ],
      'outputs': [{'files': 'study/results.jsonl', 'kind': 'jsonl'}, {'files': 'study/study.md', 'kind': 'names'}],
    },
    'study_training': {
      'inputs': {'slakh': 'slakh'},
      'commands': [STUDY],
      'outputs': [
        {'files': 'study/results.jsonl', 'kind': 'jsonl', 'without': ['cost']},
        {'files': 'study/cells/*/train.jsonl', 'kind': 'jsonl', 'without': TIMED},
        {'files': 'study/study.md', 'kind': 'names'},
      ],
      'slow': True,
    },
  }
  for name, case in journals.items():
    cases[f'journal_{name}'] = {**case, 'before': f'journals/{name}'}
  return cases


def infer_command(memory: str) -> list[str]:
  bindings = (
    'CHECKPOINT_PATH="box"',
    'OUTPUT_DIR="predictions"',
    'DATA_DIR="slakh"',
    'SPLIT="train"',
    'PERIOD=1',
    f'MEMORY="{memory}"',
  )
  return ['mrmt3.infer', *gin_files('models/box', 'runs/infer'), *gin(*bindings)]


# Inputs


def make_songs(work: Path) -> None:
  """Render the demo's pieces, and write short excerpts of them with the notes that are played there."""
  from mrmt3 import audio_io, midi_io, slakh

  runs.run(
    [['mrmt3', 'dataset', 'build', 'demo', '--recipe', 'held-out', '--seed', '0', '--workers', '2']],
    work,
    code_folder(),
  )
  begin, length = EXCERPT
  folder = fresh(OUT / 'songs')
  for number, track in enumerate(slakh.find_tracks(work / 'demo', 'test'), 1):
    samples = audio_io.read_audio(track.audio_path, RATE)[round(begin * RATE) : round((begin + length) * RATE)]
    write_flac(folder / f'song{number}.flac', samples, STEP)
    notes = slakh.read_notes(track)
    notes = notes[(notes['onset'] >= begin) & (notes['onset'] < begin + length - 0.1)]
    notes['onset'] -= begin
    notes['offset'] = np.minimum(notes['offset'] - begin, length)
    midi_io.write_midi(notes, folder / f'song{number}.mid')


def make_slakh() -> None:
  """Write a data set of a few seconds in the Slakh layout: two pitched instruments and drums, as sines."""
  from mrmt3.dataset_builder import layout

  folder = fresh(OUT / 'slakh')
  for split, number, seconds in SLAKH_TRACKS:
    parts = [(0, False, 60), (33, False, 36), (0, True, 36)][: 2 if number == 1 else 3]
    stems = []
    for part, (program, is_drum, lowest) in enumerate(parts):
      notes = notes_of(10 * number + part, seconds, program, is_drum, lowest)
      stems.append(layout.Stem(program, is_drum, notes, sound_of(notes, seconds), plugin_name='golden'))
    layout.write_track(folder / split / f'Track{number:05d}', stems, sample_rate=RATE, uuid=f'golden-{number}')
  for path in folder.rglob('*.flac'):
    write_flac(path, soundfile.read(path, dtype='float32')[0], SLAKH_STEP)


def make_midi() -> None:
  """Write what a small data set is built of."""
  from mrmt3 import midi_io

  folder = fresh(OUT / 'midi')
  for number in range(3):
    parts = [
      notes_of(100 + 10 * number + k, 8.0, program, False, lowest)
      for k, (program, lowest) in enumerate([(0, 60), (40, 64), (33, 36)])
    ]
    midi_io.write_midi(np.sort(np.concatenate(parts), order='onset'), folder / f'tune{number}.mid')


def make_commu() -> None:
  """Write three clips in the layout of ComMU."""
  from mrmt3 import midi_io

  folder = fresh(OUT / 'commu')
  lines = [',audio_key,chord_progressions,bpm,inst,num_measures,split_data,id']
  for number, (split, instrument) in enumerate(
    [('train', 'acoustic_piano'), ('train', 'string_violin-1'), ('val', 'synth_bell')], 1
  ):
    name = f'commu{number:05d}'
    lines.append(f"{number - 1},aminor,\"[['Am', 'F']]\",120,{instrument},4,{split},{name}")
    path = folder / 'commu_midi' / split / 'raw' / f'{name}.mid'
    path.parent.mkdir(parents=True, exist_ok=True)
    midi_io.write_midi(notes_of(200 + number, 2.0, 3, False, 60), path)
  (folder / 'commu_meta.csv').write_text('\n'.join(lines) + '\n')


def notes_of(seed: int, seconds: float, program: int, is_drum: bool, lowest: int):
  """Return a note table: what begins together does so within some milliseconds, and some notes are long."""
  from mrmt3.notes import as_notes

  rng = np.random.default_rng([SEED, seed])
  count = int(4 * seconds)
  onsets = np.sort(rng.integers(1, int(8 * seconds) - 2, count)) / 8 + rng.uniform(-0.004, 0.004, count)
  rows = []
  for onset in onsets:
    length = float(rng.choice([0.1, 0.3, 0.9]))
    pitch = int(rng.choice([36, 38, 42])) if is_drum else lowest + int(rng.integers(0, 12))
    rows.append((onset, min(onset + length, seconds - 0.05), pitch, int(rng.integers(50, 110)), program, is_drum))
  return as_notes(rows)


def sound_of(notes, seconds: float):
  """Return decaying sines at the pitches of notes, float32 `[n]`."""
  time = np.arange(round(seconds * RATE)) / RATE
  samples = np.zeros(len(time))
  for note in notes:
    since = time - note['onset']
    end = note['onset'] + 0.06 if note['is_drum'] else note['offset']
    frequency = 440 * 2 ** ((note['pitch'] - 69) / 12)
    samples += (
      ((since >= 0) & (time < end)) * 0.08 * np.sin(2 * np.pi * frequency * since) * np.exp(-3 * np.maximum(since, 0))
    )
  return samples.astype(np.float32)


def write_flac(path: Path, samples: np.ndarray, step: int) -> None:
  whole = np.round(samples * 32768 / step) * step
  soundfile.write(
    path, whole.clip(-32768, 32768 - step).astype(np.int16), RATE, subtype='PCM_16', compression_level=1.0
  )


# Trainings


def make_training(name: str, work: Path) -> None:
  """Train five steps from start weights that pack well; keeps the run as it was after the third and the fifth step."""
  from mrmt3 import checkpoints

  runs.lay_out({'inputs': {'slakh': 'slakh'}}, work, code_folder())
  runs.run([['mrmt3.train', *TRAININGS[name], *gin('MODEL_DIR="first"', 'TRAIN_STEPS=1')]], work, code_folder())
  params, spec = checkpoints.restore_target(work / 'first')[0], checkpoints.read_spec(work / 'first')
  write_start(work / 'start', params, spec)
  runs.run([train_command(name)], work, code_folder())
  model, folder = work / 'model', fresh(OUT / 'training' / name)
  # As a run that was killed in its last step.
  lines = (model / 'train.jsonl').read_text().splitlines()
  lines[0] = json.dumps({**json.loads(lines[0]), **SENTINEL})
  (model / 'train.jsonl').write_text('\n'.join(lines[:-1]) + '\n')
  pack(folder / 'half.tar.xz', model, ['checkpoint_3', *TRAIN_FILES])
  pack(folder / 'end.tar.xz', model, ['checkpoint_5'])


def write_start(folder: Path, params, spec) -> None:
  import jax

  from mrmt3 import packed_checkpoints

  def coarse(path, x):
    x = np.asarray(x)
    if x.size < LARGEST_START:
      return x
    quantum = 2.0 ** np.ceil(np.log2(2 * np.std(x)))
    x = (np.round(x / quantum) * quantum).astype(np.float32)
    if jax.tree_util.keystr(path, simple=True, separator='/') == KIND:
      x[:, KIND_COLUMNS:] = 0
    return x

  packed_checkpoints.save(folder, jax.tree_util.tree_map_with_path(coarse, params), spec, dtype='float32')


def pack(path: Path, folder: Path, names: list[str]) -> None:
  """Pack files and folders, the same bytes from the same content."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with lzma.open(path, 'wb', preset=9) as file, tarfile.open(fileobj=file, mode='w') as archive:
    for each in sorted(
      found for name in names for found in [folder / name, *(folder / name).rglob('*')] if found.is_file()
    ):
      info = archive.gettarinfo(each, each.relative_to(folder).as_posix())
      info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode = runs.TIME, 0, 0, '', '', 0o644
      archive.addfile(info, each.open('rb'))


# Journals. Each function gets the folder of an uninterrupted run, cuts it down to what an interrupted run would have
# left, and alters what is finished in it; it returns the patterns of the files that the next run finds.


def interrupt_transcribe(work: Path) -> list[str]:
  """Of three songs one is finished, and the second has its first segment, altered: with tokens of the third song."""
  from mrmt3.resume import Journal, fingerprint
  from mrmt3.transcription import Segment

  import mrmt3

  model = mrmt3.load('box')
  runs.set_times(work / 'songs')
  name = fingerprint((model.params, model.weights), model.spec, {'hop': None, 'instruments': None})
  journal = Journal(work / 'out' / 'song2.mid', work / 'songs' / 'song2.flac', name)
  expected = json.loads((OUT / 'expected' / 'notes_box.json').read_text())
  tokens = expected['json:out/song3.json']['segments'][0]['tokens']
  journal.add([Segment(0.0, np.array(tokens, np.int32))])
  (work / 'out' / 'song1.mid').write_text('kept by the next run')
  return ['out/song1.mid', 'out/.song2.mid.resume']


def interrupt_evaluate(work: Path) -> list[str]:
  """One of three songs is transcribed and scored; its line gets a further field, and its score is another."""
  (predictions,), (scores,) = work.glob('scores/predictions-*.jsonl'), work.glob('scores/scores-*.jsonl')
  lines = [json.loads(line) for line in predictions.read_text().splitlines()[:2]]
  write_lines(predictions, [lines[0], {**lines[1], **SENTINEL}])
  line = json.loads(scores.read_text().splitlines()[0])
  line['result']['scores']['onset_f1'] = 0.125
  write_lines(scores, [line])
  return ['scores/*.jsonl']


def interrupt_infer(work: Path) -> list[str]:
  """The first of three chunks is there, with a further field."""
  (whole,) = work.glob('predictions/*-of-*[0-9]')
  line = json.loads(whole.read_text().splitlines()[0])
  chunk = Path(f'{whole}-chunks') / 'chunk00000'
  chunk.parent.mkdir()
  write_lines(chunk, [{**line, **SENTINEL}])
  return ['predictions/*-chunks/*']


def interrupt_piece_store(work: Path) -> list[str]:
  """The first of three pieces is there, of the second half of the samples; the first sample of the first is another."""
  (folder,) = (path for path in work.glob('cache/pieces/*') if path.is_dir())
  first, second = (json.loads(line) for line in (folder / 'index.jsonl').read_text().splitlines()[:2])
  write_lines(folder / 'index.jsonl', [first])
  audio = bytearray((folder / 'audio.bin').read_bytes()[: second['audio_offset'] + 100])
  audio[:2] = (12345).to_bytes(2, 'little')
  (folder / 'audio.bin').write_bytes(audio)
  (folder / 'complete.json').unlink()
  return [f'cache/pieces/*/{name}' for name in ('index.jsonl', 'skipped.jsonl', 'audio.bin', 'notes.bin')]


def interrupt_dataset_build(work: Path) -> list[str]:
  """One of the tracks is finished, with a further line in its metadata and silent audio files; another is begun."""
  first, second, *_ = sorted(path for path in work.glob('data/*/Track*'))
  (first / 'metadata.yaml').write_text((first / 'metadata.yaml').read_text() + '# kept by the next run\n')
  for path in first.rglob('*.flac'):
    soundfile.write(path, np.zeros(soundfile.info(path).frames, np.int16), RATE)
  begun = second.with_name(f'.{second.name}.begun')
  begun.mkdir()
  (begun / 'metadata.yaml').write_text('UUID: begun\n')
  return ['data/dataset.json', f'{first.relative_to(work)}/*', f'{begun.relative_to(work)}/*']


def interrupt_commu(work: Path) -> list[str]:
  """The first of three clips is rendered, with other content."""
  (work / 'commu' / 'commu_audio' / 'commu00001.flac').write_text('kept by the next run')
  return ['commu/commu_audio/commu00001.flac']


def interrupt_reproduce(work: Path) -> list[str]:
  """One of three tracks is transcribed: as its own reference."""
  shutil.copyfile(work / 'slakh' / 'train' / 'Track00001' / 'all_src.mid', work / 'out' / 'model' / 'Track00001.mid')
  return ['out/model/Track00001.mid', 'out/model/run.json']


def interrupt_study_probe(work: Path) -> list[str]:
  """Two of seven results are there, with another score."""
  for name in ('share_0', 'share_0.01'):
    path = work / 'study' / 'results' / f'{name}.json'
    known = json.loads(path.read_text())
    next(iter(known['result'].values()))['onset_f1'] = 0.125
    path.write_text(json.dumps(known) + '\n')
  return ['study/results/share_0.json', 'study/results/share_0.01.json']


def interrupt_study_training(work: Path) -> list[str]:
  """The first of three networks is trained and scored, the second is saved at the first of its two moments."""
  study = work / 'study'
  result = study / 'results' / 'baseline_0.json'
  known = json.loads(result.read_text())
  next(iter(known['result']['scores']['2']['multi-instrument'].values()))['onset_f1'] = 0.125
  result.write_text(json.dumps(known) + '\n')
  model = next(study.glob('cells/one_softmax-0/model'))
  lines = [json.loads(line) for line in (model / 'train.jsonl').read_text().splitlines()]
  write_lines(model / 'train.jsonl', [{**lines[0], **SENTINEL}, *lines[1:]])
  return [
    'study/made_by.json',
    'study/results/baseline_0.json',
    *(f'{model.relative_to(work)}/{name}' for name in ('train.jsonl', 'config.gin', 'checkpoint_1/*')),
  ]


INTERRUPTIONS = {
  name.removeprefix('interrupt_'): value for name, value in globals().items() if name.startswith('interrupt_')
}


def write_lines(path: Path, lines: list) -> None:
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def make_journal(name: str, case: dict, work: Path) -> dict:
  """Make a journal's folder; return what the uninterrupted run gave."""
  runs.lay_out({key: value for key, value in case.items() if key != 'before'}, work, code_folder())
  runs.run(case['commands'], work, code_folder())
  whole = runs.read_outputs(case['outputs'], work)
  patterns = INTERRUPTIONS[name](work)
  target = fresh(OUT / case['before'])
  for path in runs.files_below(work):
    place = path.relative_to(work)
    if any(fnmatch.fnmatchcase(place.as_posix(), pattern) for pattern in patterns):
      runs.copy(path, target / place)
      if path.suffix in runs.TEXT_SUFFIXES:
        (target / place).write_text(path.read_text().replace(str(work), runs.ROOT_MARK))
  return whole


def make_download(work: Path) -> None:
  """Keep what has arrived of a file when the connection was cut for good; its first bytes are altered."""
  from mrmt3.download import Unreachable, download
  from mrmt3.published import RemoteFile

  with runs.serving(runs.DOWNLOAD, most=1500) as (url, _):
    try:
      download(RemoteFile('file', url, len(runs.DOWNLOAD)), work / 'file')
      raise AssertionError('the download ended')
    except Unreachable:
      pass
  part = work / 'file.part'
  part.write_bytes(b'altered' + part.read_bytes()[len(b'altered') :])
  runs.copy(work, fresh(OUT / 'journals' / 'download'))
  with runs.serving(runs.DOWNLOAD) as (url, _):
    download(RemoteFile('file', url, len(runs.DOWNLOAD)), work / 'file')
  write_expected('journal_download', {'sha256': hashlib.sha256((work / 'file').read_bytes()).hexdigest()})


# All together


def code_folder() -> Path:
  import mrmt3

  return Path(mrmt3.__file__).resolve().parent.parent


def check_code() -> None:
  """Stop unless the package imported is that of the commit, unchanged."""
  folder = code_folder()
  git = ['git', '-C', str(folder)]
  changed = subprocess.run([*git, 'diff', '--quiet', COMMIT, '--', 'mrmt3', 'gin', 'tasks'], check=False).returncode
  if changed:
    sys.exit(f'{folder} does not hold the code of {COMMIT}')


def fresh(folder: Path) -> Path:
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  return folder


def make_case(name: str, case: dict, work: Path) -> None:
  """Record what comes out of a case."""
  whole = make_journal(name.removeprefix('journal_'), case, work / 'whole') if 'before' in case else None
  runs.lay_out(case, work / 'case', code_folder())
  runs.run(case['commands'], work / 'case', code_folder())
  found = runs.read_outputs(case['outputs'], work / 'case')
  write_expected(name, found)
  for checkpoint, end in case.get('checkpoint', {}).items():
    runs.copy(OUT / end, work / 'end')
    pair = (
      runs.checkpoint_arrays(folder) for folder in (work / 'case' / checkpoint, work / 'end' / Path(checkpoint).name)
    )
    lines = runs.array_differences(*pair, rtol=0)
    assert not lines, f'{name}: the run that was taken up ends otherwise: {lines}'
  if whole is not None:
    write_expected(f'{name}_uninterrupted', whole)
    lines = runs.differences(found, whole, 0)
    print(f'  altered and so different: {len(lines)} places')
    assert lines, f'{name}: nothing tells the altered journal from an uninterrupted run'


def write_expected(name: str, found: dict) -> None:
  path = OUT / 'expected' / f'{name}.json'
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(found, separators=(',', ':'), sort_keys=True) + '\n')


def write_manifest(cases: dict) -> None:
  packages = (
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax-checkpoint',
    'numpy',
    'scipy',
    'tensorflow',
    'seqio',
    'note-seq',
    'symusic',
    'soundfile',
    'pretty_midi',
    'music21',
  )
  path = OUT / 'manifest.json'
  skipped = ('manifest.json', Path(__file__).name)
  manifest = {
    'commit': COMMIT,
    'made': datetime.date.today().isoformat(),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in packages},
    'machine': runs.machine(),
    'environment': runs.ENVIRONMENT,
    'seeds': {'inputs': SEED, 'trainings': 0, 'tokens': 7, 'demo': 0, 'dataset_build': 3},
    'trainings': {name: train_command(name) for name in TRAININGS},
    'cases': cases,
    'sha256': {
      file.relative_to(OUT).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
      for file in runs.files_below(OUT)
      if file.name not in skipped and '__pycache__' not in file.parts
    },
  }
  path.write_text(json.dumps(manifest, indent=1) + '\n')


def main(patterns: list[str]) -> None:
  check_code()
  cases = make_cases()
  with tempfile.TemporaryDirectory(prefix='golden-') as folder:
    folder = Path(folder).resolve()

    def wanted(name):
      return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    def work_for(name):
      print(name, flush=True)
      return fresh(folder / name)

    for name, make in {'slakh': make_slakh, 'midi': make_midi, 'commu': make_commu}.items():
      if wanted(name):
        make()
    if wanted('songs'):
      make_songs(work_for('songs'))
    if wanted('journal_download'):
      make_download(work_for('journal_download'))
    for name in TRAININGS:
      if wanted(f'start_{name}'):
        make_training(name, work_for(f'start_{name}'))
    for name, case in cases.items():
      if wanted(name):
        make_case(name, case, work_for(name))
  write_manifest(cases)


if __name__ == '__main__':
  main(sys.argv[1:])
