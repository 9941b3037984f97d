"""Inspection of training examples: statistics and listings."""
