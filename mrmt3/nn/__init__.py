"""Layers and attention that the networks share."""
