"""All sound sources, one declaration each. A new source is one line here and, if its format is new, one reader."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from mrmt3.dataset_builder.sound_sources.source import RECORDED, SOUNDFONT, SYNTHESISED, SoundSource, SourceSpec
from mrmt3.errors import UserError

_HERE = 'mrmt3.dataset_builder.sound_sources'
_GENERAL_MIDI = tuple(range(128))
_TONEJS = 'samples of tonejs-instruments (VSCO2 CE, Karoryfer, University of Iowa, Freesound), CC BY 3.0'
_SALAMANDER = 'Salamander Grand Piano V3 by Alexander Holm, CC BY 3.0'


def _font(name, licence, attribution, package, path, **more):
  more = {'programs': _GENERAL_MIDI, 'drum_kits': 1, **more}
  return SourceSpec(name, SOUNDFONT, licence, attribution, package, path, 'soundfont:open_font', **more)


def _tonejs(name, program, version, form='mp3'):
  package = f'npm:tonejs-instrument-{name}-{form}@{version}'
  return SourceSpec(
    f'tonejs-{name}',
    RECORDED,
    'CC-BY-3.0',
    _TONEJS,
    package,
    'package',
    'sample_folder:open_samples',
    (('program', program),),
    (program,),
  )


def _salamander(*layers):
  """The layers (number, MIDI velocity) are packages of their own."""
  return SourceSpec(
    'salamander',
    RECORDED,
    'CC-BY-3.0',
    _SALAMANDER,
    ' '.join(f'npm:@audio-samples/piano-velocity{layer}@1.0.5' for layer, _ in layers),
    'package/audio',
    'sample_folder:open_samples',
    (('program', 0), ('velocities', tuple(velocity for _, velocity in layers))),
    (0,),
  )


def _mda(plugin, **programs):
  """A plugin of mda-lv2; `programs` are the labels of presets by program, as in `p4=('Default',)`."""
  labels = tuple((label, int(key[1:])) for key, names in programs.items() for label in names)
  return SourceSpec(
    f'mda-{plugin.lower()}',
    SYNTHESISED,
    'GPL-3.0-or-later',
    'mda-lv2 by Paul Kellett and David Robillard, GPL-3+',
    'deb:mda-lv2',
    'usr/lib/lv2/mda.lv2',
    'lv2:open_synthesizer',
    (('plugin', plugin), ('programs', labels)),
    tuple(dict.fromkeys(program for _, program in labels)),
  )


def _kit(name, licence, package='deb:hydrogen-drumkits'):
  return SourceSpec(
    f'hydrogen-{name.replace(" ", "-").lower()}',
    RECORDED,
    licence,
    f'drum kit {name} of Hydrogen, {licence}',
    package,
    f'usr/share/hydrogen/data/drumkits/{name}',
    'hydrogen:open_kit',
    drum_kits=1,
  )


SOURCES = (
  # Soundfonts.
  _font('sonivox', 'Apache-2.0', 'Sonivox EAS soundfont, Apache-2.0', 'npm:@coderline/alphatab@1.8.4',
        'package/dist/soundfont/sonivox.sf2'),
  _font('timgm6mb', 'GPL-2.0-or-later', 'TimGM6mb by Tim Brechbill, GPL-2+', 'python:pretty_midi', 'TimGM6mb.sf2'),
  _font('fluidr3', 'MIT', 'FluidR3 GM by Frank Wen, MIT', 'deb:fluid-soundfont-gm',
        'usr/share/sounds/sf2/FluidR3_GM.sf2'),
  _font('musescore-general', 'MIT', 'MuseScore_General by S. Christian Collins, based on FluidR3 by Frank Wen, MIT',
        'deb:musescore-general-soundfont-small', 'usr/share/sounds/sf3/MuseScore_General_Lite.sf3'),
  _font('opl3-fm', 'CC-BY-SA-4.0', 'OPL-3_FM_128M by Zandro Reveille, CC BY-SA 4.0', 'deb:opl3-soundfont',
        'usr/share/sounds/sf2/OPL-3_FM_128M.sf2'),
  _font('a320u', 'GPL-2.0-only', 'A320U of Denemo, GPL-2', 'deb:denemo-data', 'usr/share/sounds/sf2/A320U.sf2',
        exclude=(4, 46, 77, 80, 100)),
  # Recordings of single instruments.
  _tonejs('piano', 0, '1.1.0', 'ogg'),
  _salamander((3, 30), (7, 65), (10, 90), (14, 115)),
  _tonejs('xylophone', 13, '1.1.2'),
  _tonejs('organ', 19, '1.1.1'),
  _tonejs('harmonium', 20, '1.1.1'),
  _tonejs('guitar-nylon', 24, '1.1.1'),
  _tonejs('guitar-acoustic', 25, '1.1.2'),
  _tonejs('guitar-electric', 27, '1.1.1'),
  _tonejs('bass-electric', 33, '1.1.2'),
  _tonejs('violin', 40, '1.1.1'),
  _tonejs('cello', 42, '1.1.1'),
  _tonejs('contrabass', 43, '1.1.2'),
  _tonejs('harp', 46, '1.1.1'),
  _tonejs('trumpet', 56, '1.1.2'),
  _tonejs('trombone', 57, '1.1.2'),
  _tonejs('tuba', 58, '1.1.2'),
  _tonejs('french-horn', 60, '1.1.2'),
  _tonejs('saxophone', 65, '1.1.2'),
  _tonejs('bassoon', 70, '1.1.2'),
  _tonejs('clarinet', 71, '1.1.2'),
  _tonejs('flute', 73, '1.1.2'),
  # Drum kits.
  _kit('GMRockKit', 'GPL-2.0-or-later', 'deb:hydrogen-data'),
  _kit('TR808EmulationKit', 'GPL-2.0-or-later', 'deb:hydrogen-data'),
  _kit('Audiophob', 'CC0-1.0'),
  _kit('BJA_Pacific', 'CC-BY-SA-3.0'),
  _kit('ColomboAcousticDrumkit', 'GPL-2.0-only'),
  _kit('ElectricEmpireKit', 'GPL-2.0-or-later'),
  _kit('ForzeeStereo', 'GPL-2.0-only'),
  _kit('Gimme A Hand 1.0', 'GPL-2.0-or-later'),
  _kit('HardElectro1', 'GPL-2.0-or-later'),
  _kit('Millo-Drums_v.1', 'GPL-2.0-or-later'),
  _kit('Millo_MultiLayered2', 'GPL-2.0-or-later'),
  _kit('Millo_MultiLayered3', 'GPL-2.0-or-later'),
  _kit('The Black Pearl 1.0', 'GPL-2.0-or-later'),
  _kit('VariBreaks', 'GPL-2.0-or-later'),
  _kit('rumpf_kit_z01_h2', 'CC-BY-3.0'),
  # Synthesizers.
  _mda('Piano', p0=('Plain Piano', 'Concert Piano', 'Dark Piano')),
  _mda('EPiano', p4=('Default', 'Bright', 'Mellow')),
  _mda('JX10', p4=('Soft E.Piano',), p16=('Leslie Organ', 'Click Organ', 'Hard Organ'),
       p38=('Analog Bass', 'Analog Bass 2', 'Soft Pick Bass'), p50=('Synth Strings', 'Synth Strings 2'),
       p56=('Trumpet',), p60=('Soft Horn',), p62=('Brass Section', 'Synth Brass'),
       p81=('Hard Lead [SA]', 'Monosynth', 'Moogcury Lite'), p89=('Very Soft Pad', 'Power PWM', 'Ghost [SA]')),
  _mda('DX10', p5=('Bright E.Piano', 'Jazz E.Piano', 'Fuzzy E.Piano'), p16=('Chiff Organ',), p26=('Jazz Guitar',),
       p32=('Upright Bass 1', 'Upright Bass 2'), p33=('E.Bass', 'Thick Bass', 'Chunky Bass'), p40=('Violin',),
       p46=('Harp',), p56=('Trumpet',), p60=('Horn',), p68=('Reed 1', 'Reed 2'), p90=('Space Pad',)),
  # Kept for the tests.
  _font('generaluser', 'GeneralUser-GS', 'GeneralUser GS by S. Christian Collins', 'deb:minuet-data',
        'usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2', held_out='generaluser'),
  SourceSpec('freepats', RECORDED, 'GPL-2.0-or-later', 'Freepats, GPL-2+ with exception', 'deb:freepats',
             'usr/share/midi/freepats', 'gus:open_patches', (('config', 'etc/timidity/freepats.cfg'),),
             held_out='freepats', drum_kits=1),
)  # fmt: skip


def find_spec(name: str) -> SourceSpec:
  """Return a declared source; UserError for an unknown name."""
  for spec in SOURCES:
    if spec.name == name:
      return spec
  raise UserError(f'no such sound source: {name!r}; `mrmt3 dataset sounds` lists them')


def held_out_specs() -> list[SourceSpec]:
  """Return the sources that are kept for tests."""
  return [spec for spec in SOURCES if spec.held_out]


def training_specs(permissive: bool = False) -> list[SourceSpec]:
  """Return the sources to train on; with `permissive` those that allow any use with at most attribution."""
  return [spec for spec in SOURCES if not spec.held_out and (spec.is_permissive or not permissive)]


def packages() -> Iterator[str]:
  """Yield each package of `SOURCES` once."""
  yield from dict.fromkeys(package for spec in SOURCES for package in spec.package.split())


def open_source(spec: SourceSpec, path: Path | list[Path]) -> SoundSource:
  """Open a source whose files are at `path`, a list if it has several packages; UserError if they are broken."""
  module, function = spec.reader.split(':')
  try:
    return getattr(importlib.import_module(f'{_HERE}.{module}'), function)(path, **dict(spec.options))
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from error
