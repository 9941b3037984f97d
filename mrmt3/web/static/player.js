// Plays the original and the sound of each instrument in step, from buffers that all begin at time 0.

const RATE = 44100;

export class Player {
  constructor() {
    this.context = null;
    this.original = null;
    this.tracks = new Map(); // key -> {buffer, gain, source, volume}
    this.fade = 0.5;
    this.loop = null;
    this.seconds = 0;
    this.isPlaying = false;
    this.offset = 0;
    this.ended = () => {};
  }

  // Browsers let audio begin only after the user has done something.
  _open() {
    if (this.context) return;
    this.context = new AudioContext({ sampleRate: RATE });
    this.originalGain = this.context.createGain();
    this.mixGain = this.context.createGain();
    const limiter = this.context.createDynamicsCompressor();
    limiter.threshold.value = -6;
    limiter.knee.value = 6;
    limiter.ratio.value = 12;
    limiter.attack.value = 0.002;
    this.originalGain.connect(limiter);
    this.mixGain.connect(limiter);
    limiter.connect(this.context.destination);
    this.setFade(this.fade);
  }

  async decode(data) {
    this._open();
    return this.context.decodeAudioData(data);
  }

  setOriginal(buffer) {
    this._open();
    this._stopSource(this);
    this.original = buffer;
    if (this.isPlaying) this._startOriginal(this.position);
  }

  // Set an instrument's sound, or remove it with null.
  setTrack(key, buffer) {
    this._open();
    const track = this.tracks.get(key);
    if (track) this._stopSource(track);
    if (!buffer) {
      if (track) track.gain.disconnect();
      this.tracks.delete(key);
      return;
    }
    const own = track || { gain: this.context.createGain(), source: null, volume: 1 };
    if (!track) own.gain.connect(this.mixGain);
    own.buffer = buffer;
    own.gain.gain.value = own.volume;
    this.tracks.set(key, own);
    if (this.isPlaying) this._startSource(own, own.gain, this.position);
  }

  setVolume(key, volume) {
    const track = this.tracks.get(key);
    if (!track) return;
    track.volume = volume;
    track.gain.gain.setTargetAtTime(volume, this.context.currentTime, 0.01);
  }

  // 0 is the original alone, 1 the transcription alone; equal power between.
  setFade(fade) {
    this.fade = fade;
    if (!this.context) return;
    const now = this.context.currentTime;
    this.originalGain.gain.setTargetAtTime(Math.cos((fade * Math.PI) / 2), now, 0.01);
    this.mixGain.gain.setTargetAtTime(Math.sin((fade * Math.PI) / 2), now, 0.01);
  }

  setLoop(loop) {
    const position = this.position;
    this.loop = loop && loop.end - loop.start >= 0.05 ? loop : null;
    if (this.isPlaying) this.play(position);
  }

  get position() {
    if (!this.isPlaying) return this.offset;
    const position = this.offset + Math.max(0, this.context.currentTime - this.began);
    const { loop } = this;
    if (!loop || position < loop.end || this.offset >= loop.end) return position;
    return loop.start + ((position - loop.start) % (loop.end - loop.start));
  }

  play(from = this.offset) {
    this._open();
    this.context.resume();
    this._stopAll();
    this.offset = Math.max(0, from >= this.seconds ? 0 : from);
    if (this.loop && this.offset >= this.loop.end) this.offset = this.loop.start;
    this.began = this.context.currentTime + 0.03;
    this.isPlaying = true;
    this._startOriginal(this.offset, this.began);
    for (const track of this.tracks.values()) this._startSource(track, track.gain, this.offset, this.began);
  }

  pause() {
    if (!this.isPlaying) return;
    const { position } = this;
    this._stopAll();
    this.isPlaying = false;
    this.offset = position;
  }

  seek(seconds) {
    const target = Math.min(Math.max(0, seconds), this.seconds);
    if (this.isPlaying) this.play(target);
    else this.offset = target;
  }

  // Call in each frame: ends at the end of the song.
  tick() {
    if (!this.isPlaying || this.loop || this.position < this.seconds) return;
    this.pause();
    this.offset = this.seconds;
    this.ended();
  }

  _startOriginal(from, when) {
    if (this.original) this._startSource(this, this.originalGain, from, when, this.original);
  }

  _startSource(holder, target, from, when = this.context.currentTime, buffer = holder.buffer) {
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(target);
    if (this.loop) {
      source.loopStart = this.loop.start;
      source.loopEnd = this.loop.end;
      source.loop = this.loop.end <= buffer.duration;
    }
    if (from < buffer.duration) source.start(when, from);
    holder.source = source;
  }

  _stopAll() {
    this._stopSource(this);
    for (const track of this.tracks.values()) this._stopSource(track);
  }

  _stopSource(holder) {
    if (!holder.source) return;
    holder.source.disconnect();
    holder.source.buffer = null;
    holder.source = null;
  }
}
