"""Where pieces come from: each module is one `pieces.PieceSource`."""
