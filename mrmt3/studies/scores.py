"""The scores that studies compare."""

from mrmt3.evaluation import summary
from mrmt3.inference import transcription

SCORES = {
  'onset_f1': 'onset F1',
  'onset_program_f1': 'onset + program F1',
  'leakage_ratio': 'leakage ratio (1 is ideal)',
  'leaked_note_ratio': 'leaked notes (lower is better)',
  'track_switches_per_minute': 'track switches per minute (lower is better)',
  'instrument_detection_f1': 'instrument F1',
  'instrument_detection_recall': 'instrument recall',
}
HEADLINE = 'onset_program_f1'


def pieces_of(found: summary.Summary) -> dict[str, dict[str, float]]:
  """Return each piece's scores of `SCORES`: {piece: {score: value}}."""
  return {piece.name: {score: float(piece.scores[score]) for score in SCORES} for piece in found.pieces}


def scores_of(transcriber, pieces, tokens) -> dict[str, dict[str, float]]:
  """Return the scores of predicted tokens, as in `pieces_of`.

  Args:
    transcriber: the inference.transcriber.Transcriber.
    pieces: the pieces, each a probe_pieces.ProbePiece.
    tokens: {piece: tokens of its segments}.
  """
  results = []
  for piece in pieces:
    notes, _ = transcription.decode_segments(tokens[piece.name], transcriber.spec)
    results.append(summary.score_piece(piece.name, piece.notes, notes))
  return pieces_of(summary.Summary(results))
