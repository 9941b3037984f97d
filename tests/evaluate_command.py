"""A short piece, and `mrmt3 evaluate` in the tests' own process."""

import command_line

from mrmt3.cli import evaluate
from mrmt3.notes.note_array import as_notes


def piece(shift=0.0, program=0, pitches=(60, 62, 64, 65)):
  rows = [(i / 2 + shift, i / 2 + 0.4 + shift, pitch, 100, program, 0) for i, pitch in enumerate(pitches)]
  return as_notes([*rows, (0.2, 0.3, 38, 100, 0, 1)])


def run(*arguments):
  return command_line.run(evaluate, 'evaluate', *arguments)
