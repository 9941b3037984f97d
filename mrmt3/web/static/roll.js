// The piano roll: a canvas as wide as what is seen, inside a scroller as wide as the song.

const RULER = 22; // px
const MAX_WIDTH = 8000000; // px; browsers cannot make wider elements
const PITCH_NAMES = ['C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B'];
const BLACK = new Set([1, 3, 6, 8, 10]);
const CLICK = 4; // px that a pointer may move in a click

export function pitchName(pitch) {
  return PITCH_NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);
}

export function clock(seconds) {
  const whole = Math.max(0, seconds);
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${(whole - 60 * minutes).toFixed(1).padStart(4, '0')}`;
}

export class Roll {
  // `actions` has seek(seconds), loop(start, end), select(ids, add), and hover(note or null).
  constructor(root, actions) {
    this.scroller = root.querySelector('#scroller');
    this.spacer = root.querySelector('#spacer');
    this.canvas = root.querySelector('#canvas');
    this.playhead = root.querySelector('#playhead');
    this.context = this.canvas.getContext('2d');
    this.actions = actions;
    this.notes = [];
    this.byKey = new Map();
    this.colors = new Map();
    this.silent = new Set();
    this.selected = new Set();
    this.marked = new Set();
    this.loop = null;
    this.seconds = 10;
    this.decoded = null;
    this.scale = 60; // px a second
    this.box = null;
    this.frames = 0;
    this.scroller.addEventListener('scroll', () => this.redraw(), { passive: true });
    new ResizeObserver(() => this.resize()).observe(this.scroller);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      this.theme = null;
      this.redraw();
    });
    this._listen();
    this.resize();
  }

  // Show notes, sorted by onset.
  show(notes) {
    this.notes = notes;
    this.longest = notes.reduce((most, note) => Math.max(most, note.offset - note.onset), 0);
    this.byKey = new Map();
    for (const note of notes) {
      const key = note.is_drum ? 'drums' : String(note.program);
      if (!this.byKey.has(key)) this.byKey.set(key, []);
      this.byKey.get(key).push(note);
    }
    let low = 127;
    let high = 0;
    for (const note of notes) {
      low = Math.min(low, note.pitch);
      high = Math.max(high, note.pitch);
    }
    if (low > high) [low, high] = [48, 72];
    this.low = Math.max(0, Math.min(low - 1, 64 - 10));
    this.high = Math.min(127, Math.max(high + 1, this.low + 20));
    this.redraw();
  }

  setLength(seconds) {
    this.seconds = Math.max(1, seconds);
    this._setWidth();
    this.redraw();
  }

  // Change the scale so that the time at `center` stays where it is.
  zoom(factor, center = this.scroller.scrollLeft + this.width / 2) {
    const time = center / this.scale;
    const left = center - this.scroller.scrollLeft;
    const smallest = Math.max(0.5, (this.width - 2) / this.seconds / 1.02);
    this.scale = Math.min(1200, Math.max(smallest, this.scale * factor));
    this._setWidth();
    this.scroller.scrollLeft = time * this.scale - left;
    this.redraw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.max(50, this.scroller.clientWidth);
    this.height = this.canvas.clientHeight || 400;
    this.canvas.style.width = `${this.width}px`;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ratio = ratio;
    this._setWidth();
    this.draw();
  }

  _setWidth() {
    this.scale = Math.min(this.scale, MAX_WIDTH / this.seconds);
    this.spacer.style.width = `${Math.ceil(this.seconds * this.scale) + 40}px`;
  }

  // Move the line of the player, and scroll with it if `follow`.
  movePlayhead(seconds, follow) {
    const x = seconds * this.scale;
    this.playhead.style.transform = `translateX(${x}px)`;
    if (!follow || this.pointer) return;
    const left = this.scroller.scrollLeft;
    if (x < left || x > left + this.width - 40) this.scroller.scrollLeft = Math.max(0, x - 60);
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.draw();
    });
  }

  y(pitch) {
    return RULER + ((this.high - pitch) * (this.height - RULER)) / (this.high - this.low + 1);
  }

  draw() {
    if (this.low === undefined) this.show(this.notes);
    const { context, width, height, scale, ratio } = this;
    const left = this.scroller.scrollLeft;
    this.theme = this.theme || readTheme();
    const theme = this.theme;
    this.frames += 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const row = (height - RULER) / (this.high - this.low + 1);
    context.fillStyle = theme.black;
    for (let pitch = this.low; pitch <= this.high; pitch += 1) {
      if (BLACK.has(pitch % 12)) context.fillRect(0, this.y(pitch), width, row);
    }
    this._drawGrid(left, theme);
    this._drawNotes(left, row, theme);
    this._drawRuler(left, theme);
    if (this.box) {
      const { x0, y0, x1, y1 } = this.box;
      context.strokeStyle = theme.accent;
      context.lineWidth = 1;
      context.setLineDash([4, 3]);
      context.strokeRect(Math.min(x0, x1) - left, Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
      context.setLineDash([]);
    }
  }

  _drawGrid(left, theme) {
    const { context, width, height, scale } = this;
    const step = gridStep(scale);
    context.fillStyle = theme.grid;
    for (let time = Math.floor(left / scale / step) * step; time * scale < left + width; time += step) {
      context.fillRect(Math.round(time * scale - left), RULER, 1, height);
    }
    context.fillStyle = theme.faint;
    context.font = '10px system-ui, sans-serif';
    context.textBaseline = 'middle';
    for (let pitch = Math.ceil(this.low / 12) * 12; pitch <= this.high; pitch += 12) {
      const y = this.y(pitch - 1);
      context.fillStyle = theme.grid;
      context.fillRect(0, y, width, 1);
      context.fillStyle = theme.faint;
      context.fillText(pitchName(pitch), 3, y - 6);
    }
    if (this.loop) {
      context.fillStyle = theme.loop;
      context.fillRect(this.loop.start * scale - left, 0, (this.loop.end - this.loop.start) * scale, height);
    }
    if (this.decoded !== null && this.decoded < this.seconds) {
      context.fillStyle = theme.black;
      context.fillRect(this.decoded * scale - left, RULER, (this.seconds - this.decoded) * scale, height);
    }
  }

  _drawNotes(left, row, theme) {
    const { context, width, scale } = this;
    const start = left / scale;
    const end = (left + width) / scale;
    const tall = Math.max(2, row - 1);
    const step = (this.height - RULER) / (this.high - this.low + 1);
    const outlined = [];
    // By instrument, for setting a colour takes longer than drawing a note.
    for (const [key, notes] of this.byKey) {
      context.fillStyle = this.colors.get(key) || theme.faint;
      const isSilent = this.silent.has(key);
      const isDrum = key === 'drums';
      let alpha = isSilent ? 0.15 : 1;
      context.globalAlpha = alpha;
      for (let index = firstFrom(notes, start - this.longest - 0.2); index < notes.length; index += 1) {
        const note = notes[index];
        if (note.onset > end) break;
        if (note.offset < start && !isDrum) continue;
        const x = note.onset * scale - left;
        const y = RULER + (this.high - note.pitch) * step;
        const wide = isDrum ? Math.max(3, Math.min(8, tall)) : Math.max(2, (note.offset - note.onset) * scale - 1);
        if (typeof note.confidence === 'number' && !isSilent) {
          const sure = 0.3 + 0.7 * note.confidence;
          if (sure !== alpha) context.globalAlpha = sure;
          alpha = sure;
        }
        context.fillRect(x, y, wide, tall);
        if (this.marked.has(note.id)) outlined.push([theme.bad, x, y, wide]);
        if (this.selected.has(note.id)) outlined.push([theme.select, x, y, wide]);
      }
    }
    context.globalAlpha = 1;
    context.lineWidth = 2;
    for (const color of [theme.bad, theme.select]) {
      context.strokeStyle = color;
      context.beginPath();
      for (const [own, x, y, wide] of outlined) if (own === color) context.rect(x - 1, y - 1, wide + 2, tall + 2);
      context.stroke();
    }
  }

  _drawRuler(left, theme) {
    const { context, width, scale } = this;
    context.fillStyle = theme.panel;
    context.fillRect(0, 0, width, RULER);
    context.fillStyle = theme.line;
    context.fillRect(0, RULER - 1, width, 1);
    if (this.loop) {
      context.fillStyle = theme.accent;
      context.fillRect(this.loop.start * scale - left, RULER - 4, (this.loop.end - this.loop.start) * scale, 4);
    }
    context.fillStyle = theme.faint;
    context.font = '11px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const step = gridStep(scale) * 2;
    for (let time = Math.floor(left / scale / step) * step; time * scale < left + width; time += step) {
      const x = Math.round(time * scale - left);
      context.fillRect(x, 0, 1, RULER - 1);
      context.fillText(step < 1 ? clock(time) : clock(time).slice(0, -2), x + 4, RULER / 2);
    }
  }

  // The note at a point of the spacer; the topmost one.
  noteAt(x, y) {
    const time = x / this.scale;
    const slack = 3 / this.scale;
    const row = (this.height - RULER) / (this.high - this.low + 1);
    let found = null;
    for (let index = firstFrom(this.notes, time - this.longest - 8 / this.scale); index < this.notes.length; index += 1) {
      const note = this.notes[index];
      if (note.onset > time + slack) break;
      const top = this.y(note.pitch);
      const end = note.is_drum ? note.onset + 8 / this.scale : note.offset;
      if (end + slack >= time && y >= top - 1 && y <= top + row + 1) found = note;
    }
    return found;
  }

  notesInBox({ x0, y0, x1, y1 }) {
    const start = Math.min(x0, x1) / this.scale;
    const end = Math.max(x0, x1) / this.scale;
    const row = (this.height - RULER) / (this.high - this.low + 1);
    return this.notes.filter((note) => {
      const y = this.y(note.pitch);
      return note.onset <= end && note.offset >= start && y + row >= Math.min(y0, y1) && y <= Math.max(y0, y1);
    });
  }

  _listen() {
    const point = (event) => {
      const frame = this.canvas.getBoundingClientRect();
      return { x: event.clientX - frame.left + this.scroller.scrollLeft, y: event.clientY - frame.top };
    };
    this.canvas.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      const { x, y } = point(event);
      this.pointer = { x, y, onRuler: y < RULER, moved: false };
      if (event.pointerType !== 'touch') this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener('pointermove', (event) => {
      const { x, y } = point(event);
      const begin = this.pointer;
      if (!begin) {
        this.actions.hover(this.noteAt(x, y));
        return;
      }
      if (Math.abs(x - begin.x) > CLICK || Math.abs(y - begin.y) > CLICK) begin.moved = true;
      if (!begin.moved || event.pointerType === 'touch') return;
      if (begin.onRuler) {
        const [start, end] = [begin.x, x].map((place) => Math.min(this.seconds, Math.max(0, place / this.scale)));
        this.actions.loop(Math.min(start, end), Math.max(start, end));
      } else {
        this.box = { x0: begin.x, y0: begin.y, x1: x, y1: y };
        this.redraw();
      }
    });
    const done = (event) => {
      const begin = this.pointer;
      this.pointer = null;
      if (!begin || event.type === 'pointercancel') return;
      const { x, y } = point(event);
      if (this.box) {
        const notes = this.notesInBox(this.box);
        this.box = null;
        this.actions.select(notes.map((note) => note.id), event.shiftKey);
      } else if (!begin.moved) {
        const note = begin.onRuler ? null : this.noteAt(x, y);
        if (note) this.actions.select([note.id], event.shiftKey);
        else this.actions.seek(x / this.scale);
      }
      this.redraw();
    };
    this.canvas.addEventListener('pointerup', done);
    this.canvas.addEventListener('pointercancel', done);
    this.canvas.addEventListener('pointerleave', () => this.actions.hover(null));
    this.scroller.addEventListener(
      'wheel',
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 300), point(event).x);
      },
      { passive: false },
    );
  }
}

// Index of the first note with an onset of at least `time`.
function firstFrom(notes, time) {
  let low = 0;
  let high = notes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (notes[middle].onset < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

function gridStep(scale) {
  return [0.1, 0.5, 1, 5, 10, 30, 60, 300, 600].find((step) => step * scale >= 35) || 1800;
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return {
    grid: value('--grid'),
    faint: value('--faint'),
    line: value('--line'),
    panel: value('--panel'),
    black: value('--black-key'),
    accent: value('--accent'),
    select: value('--select'),
    bad: value('--bad'),
    loop: 'rgb(100 150 255 / 14%)',
  };
}
