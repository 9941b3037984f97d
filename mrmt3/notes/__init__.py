"""Notes: arrays, instruments, MIDI files and other formats."""
