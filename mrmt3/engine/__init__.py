"""mrmt3's own implementation of the part of t5x that MT3-style gin files use, on jax, optax, Orbax and seqio.

Modules, classes and arguments carry t5x's names (`utils.DatasetConfig`, `trainer.Trainer`, ...), so a gin file says
`from t5x import utils`; `names` decides which engine answers to that.
"""
