"""Plots: piano rolls, log-mel spectrograms and charts."""
