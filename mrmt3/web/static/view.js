// One song on the page: piano roll, player, instruments, edits and exports. The single file uses it as well.

import { GM_NAMES } from './instruments.js';
import { oscillate } from './oscillator.js';
import { Player } from './player.js';
import { Roll, clock, pitchName } from './roll.js';
import { Song, changedHands, fingerprint, plainNotes, trackName, tracksOf } from './song.js';

const SOUND_DELAY = 300; // ms from an edit to its sound
const HUES = [215, 25, 145, 285, 345, 185, 50, 255, 110, 315, 5, 200];

function colorOf(number) {
  const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
  const turn = Math.floor(number / HUES.length);
  return `hsl(${HUES[number % HUES.length]} ${70 - 15 * (turn % 3)}% ${(isDark ? 66 : 42) + (turn % 2 ? 10 : 0)}%)`;
}

export class SongView {
  // `source` loads, renders and exports: of the server, or of the single file. `say` shows a line to the user.
  constructor(root, source, say) {
    this.root = root;
    this.source = source;
    this.say = say;
    this.byId = (id) => root.querySelector(`#${id}`);
    this.player = new Player();
    this.player.ended = () => this._showPlaying();
    this.song = new Song();
    this.other = null; // the same song decoded without memory
    this.selected = new Set();
    this.muted = new Set();
    this.soloed = new Set();
    this.volumes = new Map();
    this.sounds = new Map(); // key -> signature of the notes that its buffer plays
    this.colors = new Map();
    this.threshold = 0;
    this.loop = null;
    this.isDone = false;
    this.roll = new Roll(root, {
      seek: (seconds) => this.seek(seconds),
      loop: (start, end) => this.setLoop({ start, end }, true),
      select: (ids, add) => this.select(ids, add),
      hover: (note) => this._describe(note),
    });
    this._listen();
    this._fillRelabel();
    const frame = () => {
      if (this.player.isPlaying) {
        this.player.tick();
        this._showTime(true);
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.refresh());
  }

  // Begin with a song: `edits` are kept ones, `keep` keeps them.
  open({ id, name, seconds, edits = [], keep = () => {}, usesMemory = true }) {
    this.player.pause();
    for (const key of [...this.player.tracks.keys()]) this.player.setTrack(key, null);
    if (this.player.original) this.player.setOriginal(null);
    this.player.offset = 0;
    Object.assign(this, { id, name, other: null, isDone: false, keptEdits: edits, keep, loop: null, threshold: 0 });
    for (const set of [this.selected, this.muted, this.soloed, this.volumes, this.sounds, this.colors]) set.clear();
    this.song = new Song([], [], () => this._edited());
    this.root.hidden = false;
    this.byId('song-name').textContent = name;
    this.byId('sheet').hidden = true;
    this.byId('sheet-button').setAttribute('aria-expanded', 'false');
    this.byId('memory').checked = false;
    this.byId('memory').disabled = true;
    this.byId('memory-text').textContent = usesMemory ? '' : 'This model has no memory.';
    this.usesMemory = usesMemory;
    this.byId('loop').checked = false;
    this.byId('sound-state').textContent = '';
    for (const panel of ['edit-panel', 'export-panel']) this.byId(panel).disabled = true;
    this.byId('play').disabled = true;
    this._showWarnings([]);
    this.setLoop(null);
    this.setLength(seconds || 10);
    this.roll.scroller.scrollLeft = 0;
    this._showPlaying();
    this.refresh();
  }

  setLength(seconds) {
    this.player.seconds = seconds;
    this.roll.setLength(seconds);
    this._showTime(false);
  }

  // Notes that have just been decoded.
  append(notes, decoded) {
    this.song.append(notes);
    this.roll.decoded = decoded;
    this.refresh();
  }

  showProgress(done, total) {
    const bar = this.byId('song-progress');
    bar.hidden = this.isDone;
    if (total) bar.value = Math.min(1, done / total);
    else bar.removeAttribute('value');
    this.roll.decoded = this.isDone ? null : done;
    this.roll.redraw();
  }

  // All notes are there: edits, sound and exports begin.
  async finish(notes, seconds, warnings = []) {
    this.isDone = true;
    this.song = new Song(notes, this.keptEdits, () => this._edited());
    this.setLength(seconds || 1);
    this.byId('song-progress').hidden = true;
    this.roll.decoded = null;
    this._showWarnings(warnings);
    const slider = this.byId('confidence');
    slider.disabled = !this.song.hasConfidence;
    slider.value = 0;
    this.byId('confidence-value').textContent = '0';
    this.byId('confidence-reason').hidden = this.song.hasConfidence;
    this.byId('memory').disabled = !this.usesMemory || !this.source.decodeWithoutMemory;
    this.byId('edit-panel').disabled = false;
    this.byId('export-panel').disabled = false;
    this.byId('play').disabled = false;
    this.refresh();
    await this._loadSounds();
  }

  // The notes that are shown: of the song, or without memory; without unsure ones.
  get shown() {
    const notes = this.other && this.byId('memory').checked ? this.other : this.song.notes;
    if (!this.threshold) return notes;
    return notes.filter((note) => typeof note.confidence !== 'number' || note.confidence >= this.threshold);
  }

  get isCompared() {
    return Boolean(this.other) && this.byId('memory').checked;
  }

  refresh() {
    const notes = this.shown;
    const tracks = tracksOf(notes, this.song.names);
    const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
    if (isDark !== this.isDark) this.order = [...this.colors.keys()];
    for (const key of isDark !== this.isDark ? this.order : []) this.colors.set(key, colorOf(this.order.indexOf(key)));
    this.isDark = isDark;
    for (const { key } of tracks) if (!this.colors.has(key)) this.colors.set(key, colorOf(this.colors.size));
    const known = new Set(notes.map((note) => note.id));
    for (const id of [...this.selected]) if (!known.has(id)) this.selected.delete(id);
    Object.assign(this.roll, { colors: this.colors, selected: this.selected });
    this.roll.marked = this.isCompared ? this.changed : new Set();
    this._showTracks(tracks);
    this._setVolumes();
    this.roll.show(notes);
    this.byId('song-facts').textContent =
      `${notes.length} notes, ${tracks.length} instrument${tracks.length === 1 ? '' : 's'}, ${clock(this.player.seconds)}`;
    this._showSelection();
    this.byId('undo').disabled = !this.song.edits.length;
    this.byId('revert').disabled = !this.song.edits.length;
    this.byId('redo').disabled = !this.song.undone.length;
  }

  _showTracks(tracks) {
    const list = this.byId('tracks');
    const now = tracks.map(({ key }) => key).join();
    if (list.dataset.keys !== now) {
      const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.id : null;
      list.replaceChildren(...tracks.map((track, number) => this._trackRow(track, number)));
      list.dataset.keys = now;
      if (focus) list.querySelector(`[data-id="${CSS.escape(focus)}"]`)?.focus();
    }
    for (const [number, { key, name, notes }] of tracks.entries()) {
      const row = list.children[number];
      row.querySelector('.swatch').style.background = this.colors.get(key);
      row.querySelector('.count').textContent = `${notes.length} note${notes.length === 1 ? '' : 's'}`;
      row.querySelector('.count').setAttribute('aria-label', `Select the ${notes.length} notes of ${name}`);
      row.querySelector('select').value = key;
      row.querySelector('select').disabled = !this.isDone || this.isCompared;
      row.querySelector('.mute').setAttribute('aria-pressed', this.muted.has(key));
      row.querySelector('.solo').setAttribute('aria-pressed', this.soloed.has(key));
    }
  }

  _trackRow({ key, name }, number) {
    const row = document.createElement('li');
    row.dataset.key = key;
    const add = (tag, className, properties = {}) => {
      const element = document.createElement(tag);
      element.className = className;
      if (className) element.dataset.id = `${className} ${key}`;
      Object.assign(element, properties);
      row.append(element);
      return element;
    };
    add('span', 'swatch');
    const select = add('select', 'name', { title: 'Choose another instrument; one that is there already is merged with' });
    select.setAttribute('aria-label', `Instrument ${number + 1}: ${name}; choose another to relabel or merge`);
    this._fillInstruments(select);
    select.addEventListener('change', () => {
      const to = select.value;
      if (to === key) return;
      this.song.edit({ kind: 'relabel', track: key, to });
      this.byId('tracks').querySelector(`[data-id="name ${to}"]`)?.focus();
    });
    const mute = add('button', 'mute', { type: 'button', textContent: 'M', title: 'Mute' });
    mute.setAttribute('aria-label', `Mute ${name}`);
    mute.addEventListener('click', () => this.toggle(this.muted, key));
    const solo = add('button', 'solo', { type: 'button', textContent: 'S', title: 'Solo' });
    solo.setAttribute('aria-label', `Solo ${name}`);
    solo.addEventListener('click', () => this.toggle(this.soloed, key));
    const count = add('button', 'count', { type: 'button', title: 'Select these notes' });
    count.addEventListener('click', (event) => {
      this.select(this.shown.filter((note) => (note.is_drum ? 'drums' : String(note.program)) === key).map((n) => n.id), event.shiftKey);
    });
    const volume = add('input', 'volume', { type: 'range', min: 0, max: 2, step: 0.05, value: this.volumes.get(key) ?? 1 });
    volume.setAttribute('aria-label', `Volume of ${name}`);
    volume.addEventListener('input', () => {
      this.volumes.set(key, Number(volume.value));
      this._setVolumes();
    });
    return row;
  }

  _fillInstruments(select) {
    const named = (program) => trackName(String(program), this.song.names);
    const options = GM_NAMES.map((name, program) => new Option(`${named(program)} (${program + 1})`, program));
    select.append(...options, new Option('Drums', 'drums'));
  }

  _fillRelabel() {
    const select = this.byId('relabel');
    this._fillInstruments(select);
  }

  toggle(set, key) {
    if (!set.delete(key)) set.add(key);
    this.refresh();
  }

  _setVolumes() {
    this.roll.silent = new Set();
    for (const key of this.colors.keys()) {
      const isHeard = this.soloed.size ? this.soloed.has(key) : !this.muted.has(key);
      if (!isHeard) this.roll.silent.add(key);
      this.player.setVolume(key, isHeard ? (this.volumes.get(key) ?? 1) : 0);
    }
    this.roll.redraw();
  }

  async _loadSounds() {
    const { id } = this;
    const state = this.byId('sound-state');
    try {
      state.textContent = 'Loading the original ...';
      const buffer = await this.source.original((data) => this.player.decode(data));
      if (id !== this.id) return;
      this.player.setOriginal(buffer);
      this.player.seconds = Math.max(this.player.seconds, buffer ? buffer.duration : 0);
      state.textContent = '';
    } catch (error) {
      if (id === this.id) this.say(`The original cannot be played: ${error.message}`);
    }
    await this._updateSounds();
  }

  // Render the instruments whose notes are other than those that their buffers play.
  async _updateSounds() {
    const { id } = this;
    const state = this.byId('sound-state');
    const isStale = () => id !== this.id || !this.isDone;
    this.soundRun = (this.soundRun || 0) + 1;
    const run = this.soundRun;
    const tracks = tracksOf(this.shown, this.song.names);
    const keys = new Set(tracks.map(({ key }) => key));
    for (const key of [...this.player.tracks.keys()]) {
      if (keys.has(key)) continue;
      this.player.setTrack(key, null);
      this.sounds.delete(key);
    }
    for (const { key, name, notes } of tracks) {
      const signature = fingerprint(notes);
      if (this.sounds.get(key) === signature) continue;
      state.textContent = `Synthesizing ${name} ...`;
      try {
        const buffer = await this._sound(key, notes);
        if (isStale() || run !== this.soundRun) return;
        this.player.setTrack(key, buffer);
        this.sounds.set(key, signature);
        this._setVolumes();
      } catch (error) {
        if (isStale()) return;
        this.say(`${name} cannot be played: ${error.message}`);
      }
    }
    state.textContent = this.isOscillated ? 'Played with simple tones: the server has no synthesizer.' : '';
    this.root.dataset.sound = 'ready';
  }

  async _sound(key, notes) {
    const rendered = await this.source.sound(key, plainNotes(notes), this.player.seconds, (data) => this.player.decode(data));
    this.isOscillated = rendered === null;
    return rendered === null ? oscillate(notes, this.player.seconds) : rendered;
  }

  _soundsLater() {
    clearTimeout(this.soundTimer);
    this.root.dataset.sound = 'waiting';
    this.soundTimer = setTimeout(() => this._updateSounds(), SOUND_DELAY);
  }

  _edited() {
    const { edits } = this.song;
    setTimeout(() => this.keep(edits)); // writing many ids takes a while
    this.refresh();
    this._soundsLater();
  }

  select(ids, add = false) {
    if (!add) this.selected.clear();
    for (const id of ids) this.selected.add(id);
    this._showSelection();
    this.roll.redraw();
  }

  _showSelection() {
    const count = this.selected.size;
    const text = count ? `${count} note${count === 1 ? '' : 's'} selected.` : 'No notes selected.';
    if (this.byId('selection').textContent !== text) this.byId('selection').textContent = text;
    for (const id of ['apply', 'delete']) this.byId(id).disabled = !count || this.isCompared;
  }

  edit(edit) {
    if (!this.isDone || this.isCompared || !this.selected.size) return;
    this.song.edit({ ...edit, ids: [...this.selected] });
  }

  // Select the note after or before the one that is selected, or the position of the player.
  step(direction) {
    const notes = this.shown;
    if (!notes.length) return;
    let index = notes.findIndex((note) => this.selected.has(note.id));
    if (index < 0) {
      index = notes.findIndex((note) => note.onset >= this.player.position - 1e-6);
      index = index < 0 ? notes.length - 1 : index;
    } else index = Math.min(notes.length - 1, Math.max(0, index + direction));
    this.select([notes[index].id]);
    this.seek(notes[index].onset);
    this._describe(notes[index]);
  }

  seek(seconds) {
    this.player.seek(seconds);
    this._showTime(true);
  }

  setLoop(loop, isOn = this.byId('loop').checked) {
    this.loop = loop;
    this.byId('loop').checked = isOn && Boolean(loop);
    this.byId('loop-range').textContent = loop ? `${clock(loop.start)} to ${clock(loop.end)}` : '(drag on the ruler)';
    this.roll.loop = loop;
    this.player.setLoop(this.byId('loop').checked ? loop : null);
    this.roll.redraw();
  }

  // Let the loop begin at the position of the player.
  loopFrom() {
    const start = Math.min(this.player.position, this.player.seconds - 0.1);
    const end = this.loop && this.loop.end > start + 0.1 ? this.loop.end : this.player.seconds;
    this.setLoop({ start, end }, true);
  }

  // Let the loop end at the position of the player.
  loopTo() {
    const end = Math.max(this.player.position, 0.1);
    const start = this.loop && this.loop.start < end - 0.1 ? this.loop.start : 0;
    this.setLoop({ start, end }, true);
  }

  playOrPause() {
    if (this.byId('play').disabled) return;
    if (this.player.isPlaying) this.player.pause();
    else this.player.play();
    this._showPlaying();
  }

  _showPlaying() {
    this.byId('play').textContent = this.player.isPlaying ? 'Pause' : 'Play';
    this._showTime(false);
  }

  _showTime(follow) {
    const { position } = this.player;
    this.byId('time').textContent = `${clock(position)} / ${clock(this.player.seconds)}`;
    this.roll.movePlayhead(position, follow);
  }

  _describe(note) {
    this.byId('roll-info').textContent = note
      ? `${note.is_drum ? `drum ${note.pitch}` : pitchName(note.pitch)}, ${trackName(note.is_drum ? 'drums' : String(note.program), this.song.names)}, ` +
        `${note.onset.toFixed(2)} to ${note.offset.toFixed(2)} s` +
        (typeof note.confidence === 'number' ? `, confidence ${note.confidence.toFixed(2)}` : '')
      : '';
  }

  _showWarnings(warnings) {
    const list = this.byId('song-warnings');
    list.hidden = !warnings.length;
    list.replaceChildren(...warnings.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  }

  async compare() {
    const box = this.byId('memory');
    const text = this.byId('memory-text');
    if (box.checked && !this.other) {
      const { id } = this;
      box.disabled = true;
      text.textContent = 'Decoding without memory ...';
      try {
        const notes = await this.source.decodeWithoutMemory();
        if (id !== this.id) return;
        this.other = new Song(notes).notes.map((note) => ({ ...note, id: `x${note.id}` }));
        for (const note of notes) if (note.instrument) this.song.names.set(note.is_drum ? 'drums' : String(note.program), note.instrument);
      } catch (error) {
        if (id !== this.id) return;
        box.checked = false;
        text.textContent = `It could not be decoded: ${error.message}`;
      }
      box.disabled = false;
    }
    this.selected.clear();
    if (this.other) {
      this.changed = changedHands(this.other, this.song.base);
      const [own, others] = [this.song.base, this.other].map((notes) => tracksOf(notes).length);
      text.textContent =
        `${own} instruments with memory, ${others} without. ${this.changed.size} of ${this.other.length} notes changed hands` +
        `${box.checked ? ' (outlined)' : ''}. ${this.source.memoryRemark || ''}`;
    }
    this.refresh();
    this._soundsLater();
  }

  async exportAs(kind) {
    try {
      const stem = this.name.replace(/\.[^.]{1,5}$/, '') || 'song';
      const { data, suffix } = await this.source.exportAs(kind, plainNotes(this.shown), stem, this.player.seconds);
      const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(data), download: stem + suffix });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch (error) {
      this.say(error.message);
    }
  }

  async showSheet() {
    const sheet = this.byId('sheet');
    const button = this.byId('sheet-button');
    sheet.hidden = !sheet.hidden;
    button.setAttribute('aria-expanded', String(!sheet.hidden));
    if (sheet.hidden) return;
    const line = Object.assign(document.createElement('p'), { textContent: 'Engraving ...' });
    sheet.replaceChildren(line);
    try {
      const { data } = await this.source.exportAs('svg', plainNotes(this.shown), this.name, this.player.seconds);
      // An image runs no scripts.
      const image = Object.assign(new Image(), { src: URL.createObjectURL(data), alt: `Sheet music of ${this.name}` });
      sheet.replaceChildren(image);
      sheet.scrollIntoView({ block: 'nearest' });
    } catch (error) {
      line.textContent = error.message;
    }
  }

  _listen() {
    const on = (id, type, action) => this.byId(id).addEventListener(type, action);
    on('play', 'click', () => this.playOrPause());
    on('rewind', 'click', () => this.seek(0));
    on('fade', 'input', (event) => this.player.setFade(Number(event.target.value)));
    on('loop', 'change', () => {
      const all = { start: 0, end: this.player.seconds };
      this.setLoop(this.byId('loop').checked ? this.loop || all : this.loop);
    });
    on('loop-from', 'click', () => this.loopFrom());
    on('loop-to', 'click', () => this.loopTo());
    on('zoom-in', 'click', () => this.roll.zoom(1.5));
    on('zoom-out', 'click', () => this.roll.zoom(1 / 1.5));
    on('confidence', 'input', (event) => {
      this.threshold = Number(event.target.value);
      this.byId('confidence-value').textContent = event.target.value;
      this.refresh();
      this._soundsLater();
    });
    on('memory', 'change', () => this.compare());
    on('apply', 'click', () => this.edit({ kind: 'relabel', to: this.byId('relabel').value }));
    on('delete', 'click', () => this.edit({ kind: 'delete' }));
    on('undo', 'click', () => this.song.undo());
    on('redo', 'click', () => this.song.redo());
    on('revert', 'click', () => this.song.revert());
    on('again', 'click', () => this.source.decodeAgain && this.source.decodeAgain(this.byId('only').value));
    on('sheet-button', 'click', () => this.showSheet());
    for (const button of this.root.querySelectorAll('#exports [data-kind]')) {
      button.addEventListener('click', () => this.exportAs(button.dataset.kind));
    }
    document.addEventListener('keydown', (event) => this._key(event));
  }

  _key(event) {
    const { target, key, shiftKey } = event;
    if (this.root.hidden || event.altKey || document.querySelector('dialog[open]')) return;
    const isTyped = target.matches('input[type="text"], select, textarea');
    const isControl = target.matches('button, input, a, summary');
    const inRoll = target === this.roll.scroller;
    if (isTyped || (isControl && (key === ' ' || key.startsWith('Arrow') || key === 'Home' || key === 'End'))) return;
    const command = event.ctrlKey || event.metaKey;
    if (command) {
      const isRedo = key.toLowerCase() === 'y' || (key.toLowerCase() === 'z' && shiftKey);
      if (isRedo) this.song.redo();
      else if (key.toLowerCase() === 'z') this.song.undo();
      else return;
      event.preventDefault();
      return;
    }
    const { position } = this.player;
    const move = (seconds, pitch) => this.edit({ kind: 'move', seconds, pitch });
    const hasNotes = this.selected.size > 0;
    const across = (sign) => (hasNotes ? move((sign * (shiftKey ? 100 : 10)) / 1000, 0) : this.seek(position + sign));
    const up = (sign) => (hasNotes ? move(0, sign * (shiftKey ? 12 : 1)) : undefined);
    const fadeTo = (fade) => {
      this.byId('fade').value = fade;
      this.player.setFade(fade);
    };
    const actions = {
      ' ': () => this.playOrPause(),
      Home: () => this.seek(0),
      End: () => this.seek(this.player.seconds),
      ArrowLeft: () => across(-1),
      ArrowRight: () => across(1),
      ArrowUp: (inRoll || hasNotes) && (() => up(1)),
      ArrowDown: (inRoll || hasNotes) && (() => up(-1)),
      n: () => this.step(1),
      p: () => this.step(-1),
      a: () => this.select(this.shown.map((note) => note.id)),
      Escape: () => this.select([]),
      Delete: () => this.edit({ kind: 'delete' }),
      i: () => this.loopFrom(),
      o: () => this.loopTo(),
      l: () => this.setLoop(this.loop || { start: 0, end: this.player.seconds }, !this.byId('loop').checked),
      '[': () => fadeTo(0),
      ']': () => fadeTo(1),
      '+': () => this.roll.zoom(1.5),
      '=': () => this.roll.zoom(1.5),
      '-': () => this.roll.zoom(1 / 1.5),
    };
    const digit = event.code && event.code.startsWith('Digit') ? Number(event.code.slice(5)) : 0;
    const row = digit ? this.byId('tracks').children[digit - 1] : null;
    if (row) this.toggle(shiftKey ? this.soloed : this.muted, row.dataset.key);
    else if (actions[key]) actions[key]();
    else return;
    event.preventDefault();
  }
}
