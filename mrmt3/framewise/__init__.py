"""The bundled frame-level model: its network, heads, losses and token writer."""
