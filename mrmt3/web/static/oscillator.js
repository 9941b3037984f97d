// A simple synthesizer for servers without a soundfont: one oscillator a note, noise for drums.

const RATE = 44100;
const LEVEL = 0.12;

// Wave form and envelope of a General MIDI family of eight programs: [wave, decays to, seconds of decay].
const FAMILIES = [
  ['triangle', 0.05, 1.2], ['sine', 0.02, 0.5], ['square', 0.7, 0.1], ['triangle', 0.03, 0.9],
  ['triangle', 0.2, 0.8], ['sawtooth', 0.7, 0.2], ['sawtooth', 0.7, 0.3], ['sawtooth', 0.6, 0.2],
  ['square', 0.6, 0.2], ['sine', 0.7, 0.1], ['sawtooth', 0.6, 0.3], ['triangle', 0.7, 0.5],
  ['sawtooth', 0.4, 0.5], ['triangle', 0.05, 0.7], ['sine', 0.03, 0.3], ['square', 0.3, 0.3],
];

// The sound of one instrument's notes: AudioBuffer of `seconds`, mono.
export async function oscillate(notes, seconds) {
  const context = new OfflineAudioContext(1, Math.max(1, Math.ceil(seconds * RATE)), RATE);
  const noise = context.createBuffer(1, RATE / 4, RATE);
  const samples = noise.getChannelData(0);
  let state = 1;
  for (let index = 0; index < samples.length; index += 1) {
    state = (state * 48271) % 2147483647; // the same noise each time
    samples[index] = ((state / 1073741823.5) - 1) * Math.exp((-8 * index) / samples.length);
  }
  for (const note of notes) {
    if (note.onset >= seconds) continue;
    const level = context.createGain();
    level.connect(context.destination);
    const peak = (LEVEL * note.velocity) / 127;
    if (note.is_drum) {
      const source = context.createBufferSource();
      source.buffer = noise;
      source.playbackRate.value = note.pitch < 38 ? 0.25 : note.pitch < 41 ? 0.8 : 2;
      level.gain.value = 2 * peak;
      source.connect(level);
      source.start(note.onset);
      continue;
    }
    const [wave, rest, decay] = FAMILIES[note.program >> 3];
    const source = context.createOscillator();
    source.type = wave;
    source.frequency.value = 440 * 2 ** ((note.pitch - 69) / 12);
    const loud = wave === 'sine' || wave === 'triangle' ? peak : peak / 2;
    level.gain.setValueAtTime(0, note.onset);
    level.gain.linearRampToValueAtTime(loud, note.onset + 0.008);
    level.gain.setTargetAtTime(loud * rest, note.onset + 0.008, decay);
    level.gain.setTargetAtTime(0, note.offset, 0.03);
    source.connect(level);
    source.start(note.onset);
    source.stop(note.offset + 0.2);
  }
  return context.startRendering();
}
