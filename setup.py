"""Packaging: `pip install mrmt3` transcribes and evaluates; the extras train, render data, test and measure."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mrmt3' / 'version.py').read_text())[1]

# mrmt3/gin and mrmt3/tasks are links to the folders at the top, and folders in a source distribution. gin has no
# __init__.py (it would hide the gin package when started from here), so its subfolders are named one by one.
GIN_PACKAGES = [f'mrmt3.gin.{folder.parent.name}' for folder in sorted((ROOT / 'mrmt3' / 'gin').glob('*/__init__.py'))]
if not GIN_PACKAGES:
  raise SystemExit('setup.py: mrmt3/gin has no gin files; is it a link to the folder gin?')

TRAIN = [
  'gin-config>=0.5',
  'seqio>=0.0.20',
  'tensorflow>=2.19',
  'tensorflow-datasets>=4.9',
  'clu>=0.0.12',
  'note-seq>=0.0.5',
  'audioop-lts; python_version >= "3.13"',  # note-seq imports pydub, which needs what Python 3.13 removed
  'tensorboard',  # TensorFlow 2.21 no longer brings it
]
SYNTHESIZER = 'symusic==0.5.9'  # that of 0.6.0 raises TypeError
DATASET = [
  'music21>=9.1',
  'pyloudnorm>=0.1.1',
  SYNTHESIZER,
]
WEB = [
  'starlette>=0.40',
  'uvicorn>=0.30',
  'python-multipart>=0.0.18',
  SYNTHESIZER,
]
EXTRAS = {
  'train': TRAIN,
  'dataset': DATASET,
  # Beam needs an old protobuf, and with that seqio imports only with this sentencepiece: an environment of its own.
  'cache': [*TRAIN, 'apache-beam>=2.77', 'sentencepiece==0.2.1'],
  'm4a': ['av>=12'],
  'score': ['verovio>=4'],  # sheets as SVG; MusicXML needs nothing
  'web': WEB,  # mrmt3 serve
  # What a t5x checkout on PYTHONPATH needs; t5x itself is not on the package index.
  't5x': [*TRAIN, 'cached_property', 'chex', 'fiddle', 'jaxtyping', 'jestimator==0.3.3', 'orbax-checkpoint>=0.11'],
  'bench': [*TRAIN, *DATASET, 'psutil'],
  'demo': [*TRAIN, *DATASET],
  'test': [
    *TRAIN,
    *DATASET,
    *WEB,
    'httpx>=0.27',
    'playwright>=1.49',  # drives the browser that the system has
    'verovio>=4',
    'av>=12',
    'build>=1',
    'hypothesis>=6',
    'librosa>=0.10',
    'pytest>=8',
    'pytest-xdist',
    'ruff>=0.8',
  ],
}

setup(
  name='mrmt3',
  version=VERSION,
  description='MR-MT3 in JAX: multi-instrument music transcription with a memory of past segments',
  long_description=(ROOT / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11',
  packages=[*find_packages(include=['mrmt3', 'mrmt3.*']), *GIN_PACKAGES],
  package_data={
    'mrmt3': ['weights/framewise/*', 'weights/score/*'],
    'mrmt3.web': ['static/*'],
    **{f'mrmt3.{folder}': ['templates/*'] for folder in ('evaluation', 'plots', 'studies')},
    **{package: ['*.gin'] for package in GIN_PACKAGES},
  },
  install_requires=[
    'filelock>=4',
    'flax>=0.10',
    'google-crc32c>=1.6',  # the checksums of TFRecord files, without TensorFlow
    'jax>=0.5',
    'jinja2>=3.1',
    'matplotlib>=3.8',
    'mido>=1.3',
    'mir_eval>=0.8',
    'numpy>=2',
    'optax>=0.2',
    'orbax-checkpoint>=0.11',
    'pretty_midi>=0.2.10',
    'PyYAML>=6',
    'safetensors>=0.4.3',
    'scipy>=1.15',
    'soundfile>=0.13',
    'soxr>=0.3',
    'tqdm>=4.66',
  ],
  extras_require=EXTRAS,
  entry_points={'console_scripts': ['mrmt3=mrmt3.cli.main:main']},
)
