"""Evaluation of transcriptions: scores, statistics and reports."""
