"""Audio in and out: files, standard input, resampling, soundfonts and synthesis."""
