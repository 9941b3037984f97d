"""From pieces of music to seqio examples: sources, record formats, segment sampling, features."""
