"""Licences of the music and sounds of a data set, and the choice of those that allow any use."""

from mrmt3.dataset_builder.sound_sources.source import PERMISSIVE

# By the beginning of a source's name (see sources.py).
MUSIC_LICENCES = {
  'music21/': ('LicenseRef-music21-corpus', "music21's corpus: the licences differ between its encodings"),
  'freedoom/': ('BSD-3-Clause', 'music of Freedoom, BSD-3-Clause'),
  'simutrans/': ('Artistic-1.0', 'music of Simutrans, Artistic 1.0'),
  'openttd/': ('GPL-2.0-only', 'OpenMSX music of OpenTTD, GPL-2'),
  'mma/': ('GPL-2.0-or-later', "generated with mma's grooves, GPL-2 or later"),
  'midi/': ('LicenseRef-user', 'MIDI files of the user'),
}


def music_licence(source: str) -> tuple[str, str]:
  """Return (SPDX identifier, attribution) of a source of music; ('NOASSERTION', its name) for an unknown one."""
  for prefix, entry in MUSIC_LICENCES.items():
    if source.startswith(prefix):
      return entry
  return 'NOASSERTION', source


def is_permissive(licence: str) -> bool:
  """Whether a licence allows any use with at most attribution."""
  return licence in PERMISSIVE
