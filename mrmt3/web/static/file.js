// The single file: one song with its sound inside, and no server.

import { SongView } from './view.js';

const byId = (id) => document.getElementById(id);
const FIELDS = ['onset', 'offset', 'pitch', 'velocity', 'program', 'is_drum'];

function bytes(id) {
  const holder = byId(id);
  if (!holder) return null;
  return Uint8Array.from(atob(holder.textContent.trim()), (letter) => letter.charCodeAt(0)).buffer;
}

function startFile() {
  const song = JSON.parse(byId('song-data').textContent);
  const notes = song.notes.map(([onset, offset, pitch, velocity, program, drum, confidence]) => ({
    onset,
    offset,
    pitch,
    velocity,
    program,
    is_drum: Boolean(drum),
    confidence: typeof confidence === 'number' ? confidence : null,
    instrument: song.names[drum ? 'drums' : program],
  }));
  let isHidden = false;
  const source = {
    async original(decode) {
      const data = bytes('sound-original');
      return data && decode(data);
    },
    async sound(key, played, seconds, decode) {
      // The sound inside is that of all notes.
      isHidden = played.length < notes.filter((note) => (note.is_drum ? 'drums' : String(note.program)) === key).length;
      const data = isHidden ? null : bytes(`sound-${key}`);
      return data && decode(data);
    },
    async exportAs(kind, shown) {
      if (kind === 'midi') return { data: new Blob([bytes('midi')], { type: 'audio/midi' }), suffix: '.mid' };
      if (kind === 'json') return { data: new Blob([JSON.stringify({ notes: shown })], { type: 'application/json' }), suffix: '.json' };
      const rows = shown.map((note) => FIELDS.map((field) => Number(note[field])).join());
      return { data: new Blob([`${[FIELDS.join(), ...rows].join('\n')}\n`], { type: 'text/csv' }), suffix: '.csv' };
    },
  };
  for (const kind of ['musicxml', 'sound']) document.querySelector(`[data-kind="${kind}"]`).hidden = true;
  for (const id of ['sheet-button', 'edit-panel', 'memory-label']) byId(id).hidden = true;
  document.querySelector('#export-panel .faint').textContent = 'MIDI has all notes; CSV and JSON have those that are shown.';
  byId('show-keys').addEventListener('click', () => byId('keys').showModal());
  document.addEventListener('keydown', (event) => event.key === '?' && byId('keys').showModal());
  const say = (text) => (byId('status').textContent = text);
  const view = new SongView(byId('song'), source, say);
  view.open({ id: 'file', name: song.name, seconds: song.seconds });
  view.finish(notes, song.seconds, song.warnings);
  window.mrmt3 = { view }; // for tests
}

startFile();
