"""Pictures: piano rolls, spectrograms, charts."""
