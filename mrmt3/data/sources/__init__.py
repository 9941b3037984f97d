"""Data sources: each module has one or more implementations of `piece_source.PieceSource`."""
