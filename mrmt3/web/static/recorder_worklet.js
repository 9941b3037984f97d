// Runs in the audio thread: hands the first channel's samples on.
class KeepSamples extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) this.port.postMessage(channels[0].slice());
    return true;
  }
}
registerProcessor('keep-samples', KeepSamples);
