"""The frame-level encoder with MR-MT3's decoder and memory behind it, for studies of the memory on a CPU.

Composed of `mrmt3.network` and `mrmt3.framewise`, neither of which knows of it.
"""
