"""Musical time and notation: beats, bars, key, quantised notes, MusicXML."""
