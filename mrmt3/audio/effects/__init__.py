"""Audio effects for training examples: rooms, noise, levels, equipment. See `config.EffectsConfig`."""

from mrmt3.audio.effects.config import EffectsConfig

__all__ = ['EffectsConfig']
