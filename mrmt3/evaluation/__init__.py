"""Scores of transcriptions, their statistics and their reports."""
