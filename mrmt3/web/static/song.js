// A song's notes and the edits made to them. Edits are small records, so that they can be kept, undone and replayed.

import { GM_NAMES } from './instruments.js';

const MIN_SECONDS = 0.01;

export function trackKey(note) {
  return note.is_drum ? 'drums' : String(note.program);
}

export function trackOfKey(key) {
  return key === 'drums' ? { program: 0, is_drum: true } : { program: Number(key), is_drum: false };
}

export function trackName(key, names) {
  return key === 'drums' ? 'Drums' : (names && names.get(key)) || GM_NAMES[Number(key)];
}

// Notes [n] with the edit applied; `notes` is not changed. Ids are places in the list that the server sent.
function applyEdit(notes, edit) {
  const chosen = edit.ids ? new Set(edit.ids) : null;
  const isChosen = (note) => (chosen ? chosen.has(note.id) : trackKey(note) === edit.track);
  if (edit.kind === 'delete') return notes.filter((note) => !isChosen(note));
  return notes.map((note) => {
    if (!isChosen(note)) return note;
    if (edit.kind === 'relabel') return { ...note, ...trackOfKey(edit.to), instrument: undefined };
    const seconds = Math.max(edit.seconds || 0, -note.onset);
    return {
      ...note,
      onset: note.onset + seconds,
      offset: Math.max(note.offset + seconds, note.onset + seconds + MIN_SECONDS),
      pitch: Math.min(127, Math.max(0, note.pitch + (edit.pitch || 0))),
    };
  });
}

function byTime(a, b) {
  return a.onset - b.onset || a.is_drum - b.is_drum || a.program - b.program || a.pitch - b.pitch || a.offset - b.offset;
}

export class Song {
  // `edits` are those kept from an earlier visit; `changed` is called after each edit.
  constructor(notes = [], edits = [], changed = () => {}) {
    this.names = new Map();
    this.changed = changed;
    this.undone = [];
    this.reset(notes, edits);
  }

  reset(notes, edits = []) {
    this.base = [];
    this.edits = [];
    this.notes = [];
    this.append(notes);
    for (const edit of edits) {
      this.notes = applyEdit(this.notes, edit);
      this.edits.push(edit);
    }
    this.notes.sort(byTime);
  }

  append(notes) {
    for (const note of notes) {
      const own = { ...note, id: this.base.length };
      if (note.instrument) this.names.set(trackKey(note), note.instrument);
      this.base.push(own);
      this.notes.push(own);
    }
    this.notes.sort(byTime);
  }

  edit(edit) {
    this.notes = applyEdit(this.notes, edit).sort(byTime);
    this.edits.push(edit);
    this.undone = [];
    this.changed();
  }

  undo() {
    if (!this.edits.length) return;
    this.undone.push(this.edits.pop());
    this._replay();
  }

  redo() {
    if (!this.undone.length) return;
    this.edits.push(this.undone.pop());
    this._replay();
  }

  revert() {
    this.undone = [];
    this.edits = [];
    this._replay();
  }

  _replay() {
    this.notes = this.edits.reduce(applyEdit, this.base).slice().sort(byTime);
    this.changed();
  }

  get hasConfidence() {
    return this.base.some((note) => typeof note.confidence === 'number');
  }
}

// [{key, name, notes}] of a list of notes, drums last.
export function tracksOf(notes, names) {
  const found = new Map();
  for (const note of notes) {
    const key = trackKey(note);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(note);
  }
  const order = (key) => (key === 'drums' ? 1000 : Number(key));
  return [...found.keys()]
    .sort((a, b) => order(a) - order(b))
    .map((key) => ({ key, name: trackName(key, names), notes: found.get(key) }));
}

// Ids of the notes in `notes` that the other transcription has at the same time and pitch, on another instrument.
export function changedHands(notes, others, tolerance = 0.05) {
  const byPitch = new Map();
  for (const note of others) {
    if (!byPitch.has(note.pitch)) byPitch.set(note.pitch, []);
    byPitch.get(note.pitch).push(note);
  }
  const changed = new Set();
  for (const note of notes) {
    const near = (byPitch.get(note.pitch) || []).filter((other) => Math.abs(other.onset - note.onset) <= tolerance);
    if (near.length && !near.some((other) => trackKey(other) === trackKey(note))) changed.add(note.id);
  }
  return changed;
}

// What the server needs of notes, for exports and sound.
export function plainNotes(notes) {
  return notes.map(({ onset, offset, pitch, velocity, program, is_drum, confidence }) => {
    const plain = { onset, offset, pitch, velocity, program, is_drum };
    return typeof confidence === 'number' ? { ...plain, confidence } : plain;
  });
}

// A number that differs, all but surely, between two lists of notes that sound different.
export function fingerprint(notes) {
  let state = notes.length;
  const take = (value) => {
    state = (Math.imul(state ^ (value | 0), 0x5bd1e995) ^ (state >>> 13)) | 0;
  };
  for (const note of notes) {
    take(note.onset * 1e5);
    take(note.offset * 1e5);
    take((note.pitch << 16) | (note.velocity << 8) | note.program);
  }
  return `${notes.length} ${state}`;
}
