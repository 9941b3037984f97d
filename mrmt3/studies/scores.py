"""The scores that studies compare, and how they are taken from an evaluation."""

from mrmt3.evaluation import summary
from mrmt3.inference import transcription

SCORES = {
  'onset_f1': 'onset F1',
  'onset_program_f1': 'onset + program F1',
  'leakage_ratio': 'leakage ratio (1 is right)',
  'leaked_note_ratio': 'leaked notes (less is better)',
  'track_switches_per_minute': 'track switches a minute (less is better)',
  'instrument_detection_f1': 'instrument F1',
  'instrument_detection_recall': 'instrument recall',
}
HEADLINE = 'onset_program_f1'


def pieces_of(found: summary.Summary) -> dict[str, dict[str, float]]:
  """Return each piece's scores of `SCORES`: {piece: {score: value}}."""
  return {piece.name: {score: float(piece.scores[score]) for score in SCORES} for piece in found.pieces}


def scores_of(transcriber, pieces, tokens) -> dict[str, dict[str, float]]:
  """Return `pieces_of` of what a network predicted.

  Args:
    transcriber: inference.transcriber.Transcriber.
    pieces: probe_pieces.Piece each.
    tokens: {piece: tokens of its segments}.
  """
  results = []
  for piece in pieces:
    notes, _ = transcription.decode_segments(tokens[piece.name], transcriber.spec)
    results.append(summary.score_piece(piece.name, piece.notes, notes))
  return pieces_of(summary.Summary(results))
