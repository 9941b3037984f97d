"""Sound sources: sample sets, soundfonts and synthesizers, each of which is one line in registry.py."""
