"""MT3's metric function for its seqio tasks: scores and summaries (imports seqio and note_seq).

The scores are computed by `evaluation.note_scores`.
"""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from mrmt3 import metrics_utils, note_sequences, summaries
from mrmt3.evaluation import note_scores
from mrmt3.event_codec import Codec
from mrmt3.metrics_utils import Scores
from mrmt3.notes.note_sequence_protos import TrackSpec, note_sequence_to_notes
from mrmt3.spectrograms import SpectrogramConfig


def transcription_metrics(
  targets: Sequence[Mapping[str, Any]],
  predictions: Sequence[Mapping[str, Any]],
  codec: Codec,
  spectrogram_config: SpectrogramConfig,
  onsets_only: bool,
  use_ties: bool,
  track_specs: Sequence[TrackSpec] | None = None,
  num_summary_examples: int = 5,
  frame_fps: float = 62.5,
  frame_velocity_threshold: int = 30,
  lengthened_sweep: bool = False,
) -> dict[str, Any]:
  """Return MT3's scores under MT3's names, their histograms over pieces, and summaries of some pieces.

  Args:
    targets: unique_id and ref_ns of each segment; ref_ns is the piece's NoteSequence in one of its segments, and None
      in the others.
    predictions: unique_id, start_time (s), est_tokens (regular ids) and raw_inputs (samples) of each segment.
    codec: the codec of the tokens.
    spectrogram_config: has the sample rate of the summaries' audio.
    onsets_only: whether the tokens encode onsets only.
    use_ties: whether segments begin with a tie section.
    track_specs: tracks with scores of their own, prefixed with the track's name: 'bass/Onset F1'.
    num_summary_examples: number of pieces in the summaries.
    frame_fps: frames per second of the frame scores.
    frame_velocity_threshold: reference frames up to this velocity are not scored.
    lengthened_sweep: whether the tolerance sweep lengthens notes to at least 50 ms, as MT3's program does by accident.

  Raises:
    ValueError: both onsets_only and use_ties are set, or the pieces of targets and predictions differ.
  """
  spec = note_sequences.encoding_spec(onsets_only=onsets_only, ties=use_ties)
  references = {target['unique_id']: target['ref_ns'] for target in targets if target['ref_ns']}
  estimates = metrics_utils.predicted_pieces(predictions, references, codec, spec)
  pieces = [(references[name], estimates[name]) for name in sorted(references)]

  scores = collections.defaultdict(list)
  rolls = collections.defaultdict(list)
  for ref_ns, prediction in pieces:
    reference, estimate = (_scored_notes(ns) for ns in (ref_ns, prediction['est_ns']))
    named = {'Invalid events': prediction['est_invalid_events'], 'Dropped events': prediction['est_dropped_events']}
    for track, ref, est, drums in _tracks(reference, estimate, track_specs or ()):
      ref_roll, est_roll = (
        metrics_utils.table_pianoroll(x, frame_fps, is_drum=drums or not len(ref)) for x in (ref, est)
      )
      rolls[track].append((est_roll, ref_roll))
      frame = metrics_utils.frame_metrics(ref_roll, est_roll, frame_velocity_threshold)
      track_scores = {**_note_scores(ref, est, drums, onsets_only), **_named('Frame', frame, title=True)}
      named |= {f'{track}/{name}' if track else name: score for name, score in track_scores.items()}
    named |= _program_scores(reference, estimate)
    for tolerance, (_, both) in note_scores.tolerance_sweep(reference, estimate, lengthened=lengthened_sweep).items():
      named |= _named('Onset + offset', both, f' ({tolerance})')
    for name, score in named.items():
      scores[name].append(score)

  shown = pieces[:num_summary_examples]
  shown_targets = [{'ref_ns': ref_ns} for ref_ns, _ in shown]
  shown_predictions = [prediction for _, prediction in shown]
  return {
    **{name: np.mean(values) for name, values in scores.items()},
    **{f'{name} (hist)': seqio.metrics.Histogram(np.array(values)) for name, values in scores.items()},
    **summaries.audio_summaries(shown_targets, shown_predictions, spectrogram_config),
    **summaries.transcription_summaries(
      shown_targets, shown_predictions, spectrogram_config, ns_feature_suffix='ns', track_specs=track_specs
    ),
    **summaries.prettymidi_pianoroll({k: x[:num_summary_examples] for k, x in rolls.items()}, fps=frame_fps),
  }


def _scored_notes(ns) -> np.ndarray:
  notes = note_sequence_to_notes(ns)
  return notes[notes['offset'] != notes['onset']]  # mir_eval rejects notes of zero duration


def _tracks(reference, estimate, track_specs):
  """Yield (name, reference, estimate, is_drum): all pitched notes under the name '', then each track."""
  yield '', reference[~reference['is_drum']], estimate[~estimate['is_drum']], False
  for spec in track_specs:
    program = 0 if spec.is_drum else spec.program
    chosen = [x[(x['is_drum'] == spec.is_drum) & (x['program'] == program)] for x in (reference, estimate)]
    yield spec.name, *chosen, spec.is_drum


def _note_scores(reference, estimate, drums, onsets_only) -> dict[str, float]:
  named = _named('Onset', note_scores.onset_scores(reference, estimate))
  if onsets_only:
    return named
  velocity = functools.partial(note_scores.velocity_scores, reference, estimate, drums=True)
  named |= _named('Onset + velocity', velocity())
  if not drums:
    named |= _named('Onset + offset', note_scores.onset_offset_scores(reference, estimate))
    named |= _named('Onset + offset + velocity', velocity(offsets=True))
  return named


def _program_scores(reference, estimate) -> dict[str, float]:
  drums, programs = note_scores.mt3_program_scores(reference, estimate)
  named = {}
  for granularity, (every, pitched) in programs.items():
    suffix = f' ({granularity})'
    named |= _named('Onset + offset + program', every, suffix) | _named('Drum onset', drums, suffix)
    named |= _named('Nondrum onset + offset + program', pitched, suffix)
  return named


def _named(name: str, scores: Scores, suffix: str = '', title: bool = False) -> dict[str, float]:
  parts = ('Precision', 'Recall', 'F1') if title else ('precision', 'recall', 'F1')
  return {f'{name} {part}{suffix}': float(score) for part, score in zip(parts, scores, strict=True)}
