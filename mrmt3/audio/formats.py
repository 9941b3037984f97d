"""Which files are audio: suffixes, and the first bytes of common formats."""

from pathlib import Path

# What libsndfile reads, in order of preference where a piece has several files.
_LIBSNDFILE = (
  *('.wav', '.flac', '.ogg', '.mp3', '.oga', '.opus', '.aiff', '.aif', '.aifc', '.au', '.snd', '.w64', '.rf64', '.caf'),
  *('.wave', '.bwf', '.mp2', '.mpga', '.spx', '.voc', '.sph', '.nist'),
)
# What FFmpeg reads besides, with the soundtracks of videos.
_FFMPEG = (
  *('.m4a', '.m4b', '.m4r', '.mp4', '.m4v', '.aac', '.adts', '.wma', '.asf', '.wmv', '.webm', '.weba', '.mka', '.mkv'),
  *('.mov', '.qt', '.3gp', '.3g2', '.avi', '.flv', '.f4v', '.f4a', '.ts', '.mts', '.m2ts', '.mpg', '.mpeg', '.vob'),
  *('.ogv', '.ogx', '.ac3', '.eac3', '.dts', '.amr', '.awb', '.wv', '.ape', '.tta', '.tak', '.mpc', '.ra', '.rm'),
  *('.mxf', '.dsf', '.dff'),
)
AUDIO_SUFFIXES = _LIBSNDFILE + _FFMPEG
# (offset, bytes) that only audio files have there
_SIGNATURES = (
  *((8, b'WAVE'), (0, b'fLaC'), (0, b'OggS'), (0, b'ID3'), (8, b'AIFF'), (8, b'AIFC'), (0, b'caff'), (0, b'.snd')),
  *((8, b'M4A '), (8, b'M4B '), (0, b'#!AMR'), (0, b'wvpk'), (0, b'MAC ')),
)


def has_audio_suffix(path: Path) -> bool:
  """Return whether a file's suffix, in upper or lower case, is that of an audio or video format."""
  return path.suffix.lower() in AUDIO_SUFFIXES


def begins_like_audio(path: Path) -> bool:
  """Return whether a file begins like a common audio format; False if it cannot be read."""
  try:
    with open(path, 'rb') as file:
      start = file.read(12)
  except OSError:
    return False
  return any(start[place:].startswith(signature) for place, signature in _SIGNATURES)
