"""Configuration and registry of effects: one field of `EffectsConfig` for each, in the order of application.

A new effect is one module in this folder and one field with `_effect('MODULE')`. What a module has depends on its
stage:

| stage | function | applied to |
|---|---|---|
| 'mix' | `random_effect(samples, sample_rate, rng, config)` returns samples of the same length | the mixed example |
| 'stem' | the same, and `PROGRAMS`, `RESULT`: classes it applies to, and the class that they become | single stems |
| 'speed' | `random_semitones(rng)` returns a deviation from the pitch, semitones | each piece, by its speed |
| 'common_speed' | the same | all pieces of an example alike |

Samples are mono float32 `[n]`, full scale -1..1. An effect may not move onsets by more than 1 ms. Effects that change
the speed move the times of labels as well (see `data.examples`).
"""

import dataclasses

from mrmt3.errors import UserError

MIX, STEM, SPEED, COMMON_SPEED = 'mix', 'stem', 'speed', 'common_speed'


def _effect(module, stage=MIX):
  return dataclasses.field(default=0.0, metadata={'module': module, 'stage': stage})


@dataclasses.dataclass(frozen=True)
class EffectsConfig:
  """Probability of each effect, 0 to 1; 0 switches it off. Bound by gin as `effects.EffectsConfig.NAME`.

  Attributes:
    detune: each piece of an example is out of tune by up to 0.3 semitone.
    tape_speed: all pieces play up to 1 % faster or slower.
    amplifier: clean or distorted electric guitars go through a distorting amplifier; the notes are labelled distorted.
    stereo_downmix: comb filter, as where stereo channels with delays or opposite polarity were mixed to mono.
    equalizer: shelving and peaking filters, up to 12 dB.
    compressor: dynamic range compression.
    reverb: convolution with a room's impulse response.
    wow: slow and fast changes of the speed, as of tapes and records.
    pink_noise: noise with 10 to 50 dB of signal-to-noise ratio.
    hum: mains hum of 50 or 60 Hz and its harmonics, 20 to 50 dB below the signal.
    crowd: voices of many people, 10 to 40 dB below the signal.
    band_limit: a low-pass filter from 1.5 to 7 kHz, a high-pass filter up to 400 Hz, or both.
    clipping: a level of up to 12 dB beyond full scale, cut off there.
    codec: MP3, Vorbis or Opus at a low bit rate.
    gain: a level lower by up to 40 dB.
    rooms_dir: folder of impulse responses (.wav) for half of the reverbs; None: computed ones only.
    cabinets_dir: folder of impulse responses of guitar cabinets (.wav) for half of the amplifiers; None: filters only.

  Raises:
    UserError: a probability is out of range.
  """

  detune: float = _effect('detune', SPEED)
  tape_speed: float = _effect('tape_speed', COMMON_SPEED)
  amplifier: float = _effect('amplifier', STEM)
  stereo_downmix: float = _effect('stereo_downmix')
  equalizer: float = _effect('equalizer')
  compressor: float = _effect('compressor')
  reverb: float = _effect('reverb')
  wow: float = _effect('wow')
  pink_noise: float = _effect('pink_noise')
  hum: float = _effect('hum')
  crowd: float = _effect('crowd')
  band_limit: float = _effect('band_limit')
  clipping: float = _effect('clipping')
  codec: float = _effect('codec')
  gain: float = _effect('gain')
  rooms_dir: str | None = None
  cabinets_dir: str | None = None

  def __post_init__(self):
    for name in effect_names():
      value = getattr(self, name)
      if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise UserError(f'EffectsConfig.{name} is {value!r}; it must be a probability, 0 to 1')

  def active(self, stage: str) -> tuple[str, ...]:
    """Return the names of a stage's effects whose probability is not 0, in order of application."""
    return tuple(name for name in effect_names(stage) if getattr(self, name))


def effect_names(stage: str | None = None) -> tuple[str, ...]:
  """Return the names of all effects, or of a stage's, in order of application."""
  fields = [field for field in dataclasses.fields(EffectsConfig) if field.metadata]
  return tuple(field.name for field in fields if stage in (None, field.metadata['stage']))


def effect_module(name: str) -> str:
  """Return the dotted name of the module that implements an effect."""
  return f'mrmt3.audio.effects.{EffectsConfig.__dataclass_fields__[name].metadata["module"]}'
