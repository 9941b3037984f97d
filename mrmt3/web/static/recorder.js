// Records the microphone as a wav file, which the server reads without further packages.

const CHUNK_PLACE = 44; // bytes of a wav header

export class Recorder {
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule('static/recorder_worklet.js');
    this.chunks = [];
    this.node = new AudioWorkletNode(this.context, 'keep-samples', { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.chunks.push(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.began = performance.now();
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  // Stop and return the wav file.
  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
    return wavFile(this.chunks, this.context.sampleRate);
  }
}

export function wavFile(chunks, rate) {
  const count = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const view = new DataView(new ArrayBuffer(CHUNK_PLACE + 2 * count));
  const text = (at, value) => [...value].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, 36 + 2 * count, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, 'data');
  view.setUint32(40, 2 * count, true);
  let at = CHUNK_PLACE;
  for (const chunk of chunks) {
    for (const sample of chunk) {
      view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view.buffer], { type: 'audio/wav' });
}
