"""mrmt3's own implementation of the part of t5x that MT3-style gin files use, on jax, optax, Orbax and seqio.

Modules, classes and arguments have t5x's names (`utils.DatasetConfig`, `trainer.Trainer`, ...), so gin files use
`from t5x import utils`. The module `names` decides whether that imports this engine or the real t5x.
"""
