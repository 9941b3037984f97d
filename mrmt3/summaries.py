"""TensorBoard summaries of transcriptions: audio and piano rolls (as in MT3; imports seqio and note_seq).

Piano rolls are images `[pieces, pitches, frames, 3]`: segment starts are red, the reference green, the estimate blue.
Notes are synthesized with `audio.sonify` and pretty_midi's soundfont (MT3 uses fluidsynth).
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from mrmt3.audio import sonify
from mrmt3.errors import UserError
from mrmt3.notes import note_sequence_protos
from mrmt3.notes.note_sequence_protos import TrackSpec
from mrmt3.spectrograms import SpectrogramConfig
from mrmt3.vocabularies import MAX_PITCH, MAX_VELOCITY, MIN_PITCH

_AUDIO_SECONDS = 30.0
_PIANOROLL_FRAMES_PER_SECOND = 15
_PITCHES = MAX_PITCH - MIN_PITCH + 1


def prettymidi_pianoroll(
  track_pianorolls: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
  fps: float,
  num_seconds: float = _AUDIO_SECONDS,
) -> dict[str, seqio.metrics.MetricValue]:
  """Return an image summary per track, with the estimate in blue and the reference in green.

  Args:
    track_pianorolls: name ('' for all instruments) -> (estimate, reference) of each piece, velocities `[128, frames]`.
    fps: frames per second.
    num_seconds: length shown, s.
  """
  length = int(num_seconds * fps)
  images = {}
  for name, rolls in track_pianorolls.items():
    image = np.zeros((len(rolls), 128, length, 3))
    for index, (estimate, reference) in enumerate(rolls):
      for channel, roll in ((2, estimate), (1, reference)):
        shown = roll[:, :length]
        image[index, :, : shown.shape[1], channel] = shown
    label = f'{name or "all instruments"} pretty_midi pianoroll'
    images[label] = seqio.metrics.Image(image=image, max_outputs=len(rolls))
  return images


def audio_summaries(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
  spectrogram_config: SpectrogramConfig,
  num_seconds: float = _AUDIO_SECONDS,
) -> dict[str, seqio.metrics.MetricValue]:
  """Return the summary 'audio': the predictions' raw_inputs, truncated or padded to `num_seconds`."""
  del targets
  rate = spectrogram_config.sample_rate
  samples = _audio(predictions, rate, num_seconds)
  return {'audio': seqio.metrics.Audio(audiodata=samples[:, :, None], sample_rate=rate, max_outputs=len(samples))}


def transcription_summaries(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
  spectrogram_config: SpectrogramConfig,
  ns_feature_suffix: str | None = None,
  note_onset_feature_suffix: str | None = None,
  note_offset_feature_suffix: str | None = None,
  note_frequency_feature_suffix: str | None = None,
  note_confidence_feature_suffix: str | None = None,
  track_specs: Sequence[TrackSpec] | None = None,
  num_seconds: float = _AUDIO_SECONDS,
  pianoroll_frames_per_second: float = _PIANOROLL_FRAMES_PER_SECOND,
) -> dict[str, seqio.metrics.MetricValue]:
  """Return the summaries 'input_with_transcription' (audio left, notes right), 'pianoroll' and 'onset_pianoroll'.

  Notes are features of the targets ('ref_' and a suffix) and of the predictions ('est_' and a suffix): a NoteSequence,
  or onsets (s) and frequencies (Hz) with optional offsets (s) and confidences (0 to 1).

  Args:
    targets: the reference of each piece.
    predictions: the estimate, raw_inputs (samples) and start_times (s) of the segments of each piece.
    spectrogram_config: has the sample rate.
    ns_feature_suffix: suffix of the NoteSequence, or None.
    note_onset_feature_suffix: suffix of onsets, or None.
    note_offset_feature_suffix: suffix of offsets, or None.
    note_frequency_feature_suffix: suffix of frequencies, or None.
    note_confidence_feature_suffix: suffix of confidences, or None.
    track_specs: tracks to show one above another; None shows all notes together.
    num_seconds: length shown, s.
    pianoroll_frames_per_second: frame rate of the piano rolls.

  Raises:
    ValueError: both or neither of ns_feature_suffix and note_onset_feature_suffix are given.
  """
  if (ns_feature_suffix is None) == (note_onset_feature_suffix is None):
    raise ValueError('give exactly one of ns_feature_suffix and note_onset_feature_suffix')
  suffixes = (
    ns_feature_suffix,
    note_onset_feature_suffix,
    note_offset_feature_suffix,
    note_frequency_feature_suffix,
    note_confidence_feature_suffix,
  )
  read = functools.partial(_note_sequence, suffixes=suffixes, num_seconds=num_seconds)
  references, estimates = [read(x, 'ref_') for x in targets], [read(x, 'est_') for x in predictions]

  rate = spectrogram_config.sample_rate
  played = np.stack([_played(ns, rate, num_seconds) for ns in estimates])
  sound = np.stack([_audio(predictions, rate, num_seconds), played], axis=2)
  images = [
    _images(ref, est, prediction['start_times'], track_specs, num_seconds, pianoroll_frames_per_second)
    for ref, est, prediction in zip(references, estimates, predictions, strict=True)
  ]
  onsets, full = (np.stack(part) for part in zip(*images, strict=True))
  return {
    'input_with_transcription': seqio.metrics.Audio(audiodata=sound, sample_rate=rate, max_outputs=len(sound)),
    'pianoroll': seqio.metrics.Image(image=full, max_outputs=len(full)),
    'onset_pianoroll': seqio.metrics.Image(image=onsets, max_outputs=len(onsets)),
  }


def _audio(examples, sample_rate, num_seconds) -> np.ndarray:
  """Return the first seconds of each example's raw_inputs, float64 `[examples, samples]`."""
  samples = np.zeros((len(examples), round(num_seconds * sample_rate)))
  for row, example in zip(samples, examples, strict=True):
    own = example['raw_inputs'][: len(row)]
    row[: len(own)] = own
  return samples


def _note_sequence(example, prefix, suffixes, num_seconds):
  """Return the notes of an example's first seconds as a NoteSequence."""
  from note_seq import sequences_lib

  ns, onsets, offsets, frequencies, confidences = (example[prefix + suffix] if suffix else None for suffix in suffixes)
  if ns is None:
    pitches = np.rint(69 + 12 * np.log2(np.asarray(frequencies) / 440)).astype(int)
    velocities = None if confidences is None else np.ceil(MAX_VELOCITY * np.asarray(confidences)).astype(int)
    ns = note_sequence_protos.note_arrays_to_note_sequence(onsets, pitches, offsets, velocities)
  return sequences_lib.trim_note_sequence(ns, 0, num_seconds)


def _played(ns, sample_rate, num_seconds) -> np.ndarray:
  """Return the synthesized notes, float `[samples]`; silence, with a warning, if they cannot be synthesized."""
  try:
    return sonify.play_notes(note_sequence_protos.note_sequence_to_notes(ns), num_seconds, sample_rate)
  except (ModuleNotFoundError, UserError) as error:
    logging.warning('summaries have no audio of the notes: %s', error)
    return np.zeros(round(num_seconds * sample_rate))


def _images(reference, estimate, start_times, track_specs, num_seconds, frames_per_second):
  """Return piano rolls of onsets and of active notes, `[height, frames, 3]` each, highest pitch first."""
  from note_seq import sequences_lib

  def rolls(ns):
    roll = sequences_lib.sequence_to_pianoroll(
      ns, frames_per_second, min_pitch=MIN_PITCH, max_pitch=MAX_PITCH, onset_mode='length_ms'
    )
    return roll.onsets[:num_frames].T, roll.active[:num_frames].T

  num_frames = round(num_seconds * frames_per_second)
  tracks = [None] if track_specs is None else track_specs[::-1]
  height = len(tracks) * (_PITCHES + 1) - 1
  onset_image, full_image = np.zeros((2, height, num_frames, 3))
  # Draw segment starts as notes of all pitches, so that they are rounded to frames as notes are.
  starts = type(reference)()
  starts.CopyFrom(reference)
  del starts.notes[:]
  for start in start_times:
    if start < reference.total_time:
      for pitch in range(MIN_PITCH, MAX_PITCH + 1):
        starts.notes.add(pitch=pitch, velocity=100, start_time=start, end_time=start + 1 / frames_per_second)
  start_onsets, _ = rolls(starts)
  for index, spec in enumerate(tracks):
    first = index * (_PITCHES + 1)
    rows = slice(first, first + _PITCHES)
    for image in (onset_image, full_image):
      image[rows, : start_onsets.shape[1], 0] = start_onsets
      image[first - 1 : first, :, 0] = 1  # a line between tracks
    for channel, ns in ((1, reference), (2, estimate)):
      track = ns if spec is None else note_sequence_protos.extract_track(ns, spec.program, spec.is_drum)
      onsets, active = rolls(track)
      onset_image[rows, : onsets.shape[1], channel] = onsets
      full_image[rows, : active.shape[1], channel] = active
  return onset_image[::-1], full_image[::-1]
