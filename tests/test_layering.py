"""The architecture of mrmt3: which part of it may import which.

Files and folders form no cycles, and a layer imports only itself and the layers below it. Imports inside functions
count as well: they put off the cost of an import, not the dependency. Registries (`model_registry`, the catalogue of
data sets) name the modules of upper layers by strings, and import one when it is asked for; only
`test_transcription_imports_no_training_libraries` follows these.
"""

import ast
import functools
import graphlib
import itertools
import subprocess
import sys

from paths import ROOT

# Bottom first. A name is a module of mrmt3/ itself or a folder, without its subfolders; `tasks` is mrmt3.tasks.
LAYERS = (
  ('errors', 'version', 'special_tokens', 'utils', 'model_registry'),
  ('notes',),  # note arrays and MIDI
  ('score',),  # beats, bars, keys and notation of notes
  ('audio', 'audio.effects'),  # sound in and out, synthesis
  # Tokens: the codec, pieces to tokens, tokens to notes.
  (
    'event_codec',
    'run_length_encoding',
    'vocabularies',
    'seqio_vocabulary',
    'tokens',
    'note_sequences',
    'metrics_utils',
  ),
  ('spectrograms', 'spectral_ops'),
  ('plots',),
  # The networks. decoding/ knows none of them.
  ('nn', 'layers'),
  ('decoding',),
  ('network',),
  ('config',),
  # Data: pieces, where they come from, examples.
  ('data', 'data.records'),
  ('data.sources', 'datasets', 'preprocessors', 'mixing'),
  ('data.convert', 'data.tfds_slakh'),
  # Models: networks with losses, for training and prediction.
  ('engine',),
  ('framewise',),
  ('harmonic_conv',),
  ('hybrid',),
  ('models',),
  # What uses a trained model.
  ('checkpoints',),
  ('inference',),
  ('evaluation', 'metrics', 'summaries'),
  # A task puts together data and the metrics for it; training reads tasks through seqio alone.
  ('tasks',),
  ('training',),
  ('train', 'eval', 'infer'),
  # What people run. The command line only wires.
  ('dataset_builder.sound_sources',),  # recordings, soundfonts and synthesizers, without what is made of them
  ('dataset_builder',),
  ('inspection',),
  ('studies',),
  ('demo',),
  ('web',),
  ('cli', '__main__', '__init__'),
)

# Imported inside a function that transcription never calls.
NOT_FOR_TRANSCRIPTION = {
  'mrmt3.seqio_vocabulary',  # by vocabularies.vocabulary_from_codec, which tasks call
}


def _find_modules():
  """Return {name: path} of all modules and packages. mrmt3/tasks is a link to tasks/."""
  modules = {}
  for folder in (ROOT / 'mrmt3', ROOT / 'tasks'):
    for path in folder.rglob('*.py'):
      parts = path.relative_to(ROOT).with_suffix('').parts
      parts = ('mrmt3', *parts) if parts[0] == 'tasks' else parts
      modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return modules


def _imports(source):
  """Yield (dotted name, whether inside a function) of all imports, those for type checkers included."""
  waiting = [(ast.parse(source), False)]
  while waiting:
    node, lazy = waiting.pop()
    if isinstance(node, ast.Import):
      yield from ((alias.name, lazy) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, 'relative import'
      yield from ((f'{node.module}.{alias.name}', lazy) for alias in node.names)
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    waiting += [(child, lazy) for child in ast.iter_child_nodes(node)]


def _named_modules(source):
  """Return the modules that a string names, alone or as 'module:name': a registry imports them later."""
  strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
  return {name for string in strings if (name := str(string).partition(':')[0]) in MODULES}


@functools.cache
def _import_graph():
  """Return {(importer, imported): whether inside functions only}."""
  graph = {}
  for importer, path in MODULES.items():
    for name, lazy in _imports(path.read_text(encoding='utf-8')):
      while name and name not in MODULES:  # a name in a module, or not ours
        name = name.rpartition('.')[0]
      if name and name != importer:
        graph[importer, name] = graph.get((importer, name), True) and lazy
  return graph


def _unit(module):
  """Return the name in LAYERS that a module belongs to."""
  path = MODULES[module]
  folder = module if path.name == '__init__.py' else module.rpartition('.')[0]
  if folder == 'mrmt3':
    return path.stem
  return folder.removeprefix('mrmt3.')


def _find_cycle(edges):
  """Return the nodes of a cycle, the first one again at the end; None without cycles."""
  sorter = graphlib.TopologicalSorter()
  for importer, imported in edges:
    sorter.add(importer, imported)
  try:
    sorter.prepare()
  except graphlib.CycleError as error:
    return error.args[1][::-1]
  return None


MODULES = _find_modules()


def test_imports_are_found():
  source = '\n'.join(
    [
      'import mrmt3.errors',
      'from mrmt3 import network as other',
      'if TYPE_CHECKING:',
      '  from mrmt3.config import ModelSpec',
      'class A:',
      '  def f(self):',
      '    from mrmt3.tokens.shuffling import Shuffle',
    ]
  )
  assert set(_imports(source)) == {
    ('mrmt3.errors', False),
    ('mrmt3.network', False),
    ('mrmt3.config.ModelSpec', False),
    ('mrmt3.tokens.shuffling.Shuffle', True),
  }
  assert _named_modules("A = ['mrmt3.network:T5Config', 'mrmt3.errors', 'network']") == {
    'mrmt3.network',
    'mrmt3.errors',
  }
  assert _find_cycle([('a', 'b'), ('b', 'c'), ('a', 'c')]) is None
  assert set(_find_cycle([('a', 'b'), ('b', 'c'), ('c', 'b')])) == {'b', 'c'}
  assert _import_graph()['mrmt3.cli.commands', 'mrmt3.cli.transcribe'] is False
  assert _import_graph()['mrmt3.vocabularies', 'mrmt3.seqio_vocabulary'] is True


def test_no_cycle_of_files():
  assert _find_cycle(_import_graph()) is None


def test_no_cycle_of_folders():
  """Of modules of the root each is a node of its own: they belong to several layers."""
  edges = {(_unit(importer), _unit(imported)) for importer, imported in _import_graph()}
  assert _find_cycle(edge for edge in edges if edge[0] != edge[1]) is None


def test_every_module_has_a_layer():
  units = list(itertools.chain(*LAYERS))
  assert len(units) == len(set(units))
  assert set(units) == {_unit(module) for module in MODULES}


def test_lower_layers_never_import_upper_ones():
  heights = {unit: height for height, layer in enumerate(LAYERS) for unit in layer}
  upward = {edge for edge in _import_graph() if heights[_unit(edge[0])] < heights[_unit(edge[1])]}
  assert not upward


def test_exceptions_are_in_use():
  assert MODULES.keys() >= NOT_FOR_TRANSCRIPTION


def test_transcription_imports_no_training_libraries():
  """Import what `mrmt3 transcribe` may reach, even inside functions; tests/cli/test_transcribe.py runs the command."""
  start = {'mrmt3.cli.main', 'mrmt3.cli.transcribe'}
  reached, waiting = set(), list(start)
  while waiting:
    module = waiting.pop()
    if module in reached | NOT_FOR_TRANSCRIPTION:
      continue
    reached.add(module)
    # The other commands are imported for their options; what they import inside functions is for running them.
    runs = _unit(module) != 'cli' or module in start
    waiting += [
      imported for (importer, imported), lazy in _import_graph().items() if importer == module and (runs or not lazy)
    ]
    waiting += _named_modules(MODULES[module].read_text(encoding='utf-8')) if runs else ()
  assert reached >= {'mrmt3.inference.transcriber', 'mrmt3.decoding.greedy', 'mrmt3.notes.midi'}
  code = f'import importlib, sys\nfor name in {sorted(reached)}:\n  importlib.import_module(name)\nprint(*sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
  assert not {'tensorflow', 'seqio', 'note_seq'} & set(done.stdout.split())
