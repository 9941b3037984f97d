// The page of the server: uploads, the list of songs, and the song that is open.

import { follow, getBytes, getJson, send, upload } from './api.js';
import { Recorder } from './recorder.js';
import { clock } from './roll.js';
import { SongView } from './view.js';

const KEPT = 'mrmt3 edits '; // + id of the job, in the browser's storage
const byId = (id) => document.getElementById(id);
const SUFFIXES = { midi: '.mid', musicxml: '.musicxml', svg: '.svg', csv: '.csv', json: '.json', sound: '.flac' };

let about = { uses_memory: true, has_sound: true };
let open = null; // the job that is shown
let stopFollowing = () => {};
let quiet = null;
const jobs = new Map();

function say(text, seconds = 8) {
  byId('status').textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => (byId('status').textContent = ''), seconds * 1000);
}

function keptEdits(id) {
  try {
    return JSON.parse(localStorage.getItem(KEPT + id)) || [];
  } catch {
    return [];
  }
}

function keepEdits(id, edits) {
  try {
    if (edits.length) localStorage.setItem(KEPT + id, JSON.stringify(edits));
    else localStorage.removeItem(KEPT + id);
  } catch {
    say('Your edits cannot be kept in this browser; export them before you leave.');
  }
}

const source = {
  async original(decode) {
    const path = `api/jobs/${open.id}/audio`;
    try {
      return await decode(await getBytes(path));
    } catch (error) {
      if (error.status) throw error;
      return decode(await getBytes(`${path}?format=flac`)); // a format that the browser does not play
    }
  },
  async sound(key, notes, seconds, decode) {
    if (!about.has_sound) return null;
    const response = await send('api/render/sound', 'POST', { notes, seconds });
    return decode(await response.arrayBuffer());
  },
  async exportAs(kind, notes, title, seconds) {
    const response = await send(`api/render/${kind}`, 'POST', { notes, title, seconds });
    return { data: await response.blob(), suffix: SUFFIXES[kind] };
  },
  async decodeWithoutMemory() {
    const { id } = open;
    const known = [...jobs.values()].find((job) => isComparison(job) && job.options.of === id && job.state === 'done');
    const job = known || (await (await send(`api/jobs/${id}/again?memory=none${instruments(open)}`, 'POST')).json());
    await new Promise((resolve, reject) => {
      follow(job.id, {
        end: (last) => (last.state === 'done' ? resolve() : reject(new Error(last.error || last.state))),
        lost: () => reject(new Error('the server cannot be reached')),
      });
    });
    return (await getJson(`api/jobs/${job.id}/notes`)).notes;
  },
  async decodeAgain(only) {
    if (!only.trim()) {
      say('Name the instruments first, such as piano,bass,drums.');
      return;
    }
    try {
      const response = await send(`api/jobs/${open.id}/again?instruments=${encodeURIComponent(only)}`, 'POST');
      const job = await response.json();
      addJob(job);
      show(job.id);
    } catch (error) {
      say(error.message);
    }
  },
};

function instruments(job) {
  return job.options.instruments ? `&instruments=${encodeURIComponent(job.options.instruments)}` : '';
}

// A job that the memory switch has made; it belongs to another one and is not listed.
function isComparison(job) {
  return job.options.memory === 'none' && Boolean(job.options.of);
}

const view = new SongView(byId('song'), source, say);

function show(id) {
  const job = jobs.get(id);
  stopFollowing();
  open = job;
  for (const row of byId('jobs').children) row.classList.toggle('open', row.dataset.id === id);
  history.replaceState(null, '', `#${id}`);
  view.open({
    id,
    name: job.name,
    seconds: job.seconds,
    edits: keptEdits(id),
    keep: (edits) => keepEdits(id, edits),
    usesMemory: about.uses_memory,
  });
  view.showProgress(job.done_seconds, job.seconds);
  let decoded = job.done_seconds;
  stopFollowing = follow(id, {
    state: (now) => {
      decoded = now.done_seconds;
      if (now.seconds) view.setLength(now.seconds);
      view.showProgress(decoded, now.seconds);
    },
    notes: (notes) => view.append(notes, decoded),
    end: async (last) => {
      addJob(last);
      if (last.state !== 'done') {
        say(last.error || `${last.name}: ${last.state}`);
        view.showProgress(0, 1);
        return;
      }
      try {
        const { notes } = await getJson(`api/jobs/${id}/notes`);
        if (open.id === id) await view.finish(notes, last.seconds, [...last.warnings, ...remarks(last)]);
      } catch (error) {
        say(error.message);
      }
    },
    lost: () => say('The connection to the server is lost.'),
  });
}

function remarks(job) {
  const found = [];
  if (job.is_silent) found.push('The audio is silent.');
  if (job.left_out) found.push(`${job.left_out} notes left out, which none of the instruments can play.`);
  return found;
}

function stateText(job) {
  const part = job.options.instruments ? `only ${job.options.instruments}; ` : '';
  if (job.state === 'queued') return `${part}number ${job.position || 1} in the queue`;
  if (job.state === 'running') return `${part}${clock(job.done_seconds)}${job.seconds ? ` of ${clock(job.seconds)}` : ''}`;
  if (job.state === 'failed') return job.error;
  if (job.state === 'cancelled') return 'cancelled';
  return `${part}${job.notes} notes, ${job.instruments.length} instruments`;
}

function row(id) {
  let item = byId('jobs').querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (item) return item;
  item = document.createElement('li');
  item.dataset.id = id;
  const name = Object.assign(document.createElement('button'), { type: 'button', className: 'open-song' });
  name.addEventListener('click', () => show(id));
  const remove = Object.assign(document.createElement('button'), { type: 'button', className: 'remove' });
  remove.addEventListener('click', () => removeJob(id));
  const state = Object.assign(document.createElement('p'), { className: 'state' });
  const bar = Object.assign(document.createElement('progress'), { max: 1, value: 0 });
  item.append(name, remove, state, bar);
  byId('jobs').prepend(item);
  return item;
}

function addJob(job) {
  jobs.set(job.id, job);
  if (open && open.id === job.id) open = job;
  if (isComparison(job)) return;
  const item = row(job.id);
  const isOver = ['done', 'failed', 'cancelled'].includes(job.state);
  item.querySelector('.open-song').textContent = job.name;
  item.querySelector('.open-song').disabled = job.state === 'failed' || job.state === 'cancelled';
  item.querySelector('.remove').textContent = isOver ? 'Remove' : 'Cancel';
  item.querySelector('.remove').setAttribute('aria-label', `${isOver ? 'Remove' : 'Cancel'} ${job.name}`);
  item.querySelector('.state').textContent = stateText(job);
  item.querySelector('.state').classList.toggle('bad', job.state === 'failed');
  const bar = item.querySelector('progress');
  bar.hidden = isOver;
  bar.value = job.seconds ? job.done_seconds / job.seconds : 0;
  bar.setAttribute('aria-label', `${job.name}: transcribed so far`);
  byId('no-jobs').hidden = true;
}

async function removeJob(id) {
  const job = jobs.get(id);
  try {
    await send(`api/jobs/${id}`, 'DELETE');
  } catch (error) {
    if (error.status !== 404) {
      say(error.message);
      return;
    }
  }
  if (['done', 'failed', 'cancelled'].includes(job.state)) {
    for (const other of [...jobs.values()].filter((one) => isComparison(one) && one.options.of === id)) {
      jobs.delete(other.id);
      send(`api/jobs/${other.id}`, 'DELETE').catch(() => {}); // it is not listed, and goes with time
    }
    jobs.delete(id);
    keepEdits(id, []);
    row(id).remove();
    byId('no-jobs').hidden = byId('jobs').children.length > 0;
    if (open && open.id === id) {
      stopFollowing();
      view.player.pause();
      byId('song').hidden = true;
      open = null;
    }
  } else refreshSoon();
}

// One request tells of all jobs; the open one has its own events.
let refreshing = null;
function refreshSoon() {
  if (refreshing) return;
  refreshing = setTimeout(async () => {
    refreshing = null;
    try {
      const found = (await getJson('api/jobs')).jobs;
      found.reverse().forEach(addJob);
      if (found.some((job) => job.state === 'queued' || job.state === 'running')) refreshSoon();
    } catch {
      refreshSoon();
    }
  }, 700);
}

async function addFile(file, name = file.name) {
  const item = document.createElement('li');
  const label = Object.assign(document.createElement('strong'), { textContent: name });
  const cancel = Object.assign(document.createElement('button'), { type: 'button', className: 'remove', textContent: 'Cancel' });
  cancel.setAttribute('aria-label', `Cancel ${name}`);
  const state = Object.assign(document.createElement('p'), { className: 'state', textContent: 'uploading' });
  const bar = Object.assign(document.createElement('progress'), { max: 1, value: 0 });
  bar.setAttribute('aria-label', `${name}: uploaded so far`);
  item.append(label, cancel, state, bar);
  byId('jobs').prepend(item);
  byId('no-jobs').hidden = true;
  if (about.max_bytes && file.size > about.max_bytes) {
    return refuse(`the file is larger than ${Math.round(about.max_bytes / 1048576)} MiB`);
  }
  const sent = upload(file, name, (share) => {
    bar.value = share;
    state.textContent = share < 1 ? `uploading, ${Math.round(100 * share)} %` : 'checking';
  });
  cancel.addEventListener('click', () => sent.abort());
  try {
    const job = await sent.done;
    item.remove();
    addJob(job);
    refreshSoon();
    return job;
  } catch (error) {
    return refuse(error.message);
  }
  function refuse(text) {
    state.textContent = text;
    state.classList.add('bad');
    bar.remove();
    cancel.replaceWith(cancel.cloneNode());
    const again = item.querySelector('.remove');
    again.textContent = 'Remove';
    again.setAttribute('aria-label', `Remove ${name}`);
    again.addEventListener('click', () => item.remove());
    say(`${name}: ${text}`);
    return null;
  }
}

async function addFiles(files) {
  let isFirst = !open || !view.player.isPlaying;
  for (const file of files) {
    const job = await addFile(file);
    if (job && isFirst) {
      isFirst = false;
      show(job.id);
    }
  }
}

byId('files').addEventListener('change', (event) => {
  addFiles([...event.target.files]);
  event.target.value = '';
});
for (const type of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle('dragging', type === 'dragover');
    if (type === 'drop') addFiles([...event.dataTransfer.files]);
  });
}

let recorder = null;
let ticking = null;
byId('record').addEventListener('click', async () => {
  const button = byId('record');
  if (recorder) {
    const { seconds } = recorder;
    clearInterval(ticking);
    const file = await recorder.stop();
    recorder = null;
    button.textContent = 'Record';
    button.setAttribute('aria-pressed', 'false');
    byId('record-time').textContent = '';
    if (seconds > 0.2) {
      const job = await addFile(file, `recording ${new Date().toLocaleTimeString()}.wav`);
      if (job) show(job.id);
    }
    return;
  }
  try {
    const made = new Recorder();
    await made.start();
    recorder = made;
  } catch (error) {
    say(`The microphone cannot be used: ${error.message}`);
    return;
  }
  button.textContent = 'Stop';
  button.setAttribute('aria-pressed', 'true');
  ticking = setInterval(() => (byId('record-time').textContent = clock(recorder.seconds)), 200);
});

byId('show-keys').addEventListener('click', () => byId('keys').showModal());
document.addEventListener('keydown', (event) => {
  if (event.key === '?' && !event.target.matches('input[type="text"]')) byId('keys').showModal();
});

async function start() {
  try {
    about = await getJson('api/model');
    byId('model').textContent = about.model;
    source.memoryRemark = about.memory_remark;
    const found = (await getJson('api/jobs')).jobs.reverse();
    found.forEach(addJob);
    if (found.some((job) => job.state === 'queued' || job.state === 'running')) refreshSoon();
    const wanted = decodeURIComponent(location.hash.slice(1));
    if (jobs.has(wanted) && !['failed', 'cancelled'].includes(jobs.get(wanted).state)) show(wanted);
  } catch (error) {
    say(error.message, 60);
  }
}

window.mrmt3 = { view, jobs }; // for tests
start();
