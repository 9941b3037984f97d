// Calls of the server. Addresses are relative, so that a proxy may serve the page below a path.

async function checked(response) {
  if (response.ok) return response;
  let text = `the server answers ${response.status}`;
  try {
    text = (await response.json()).error || text;
  } catch {
    // Not JSON: keep the status.
  }
  throw Object.assign(new Error(text), { status: response.status });
}

export async function getJson(path) {
  return (await checked(await fetch(path))).json();
}

export async function send(path, method, body) {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { 'content-type': 'application/json' };
  }
  return checked(await fetch(path, options));
}

export async function getBytes(path) {
  return (await checked(await fetch(path))).arrayBuffer();
}

// Upload a file; `progress` is called with 0..1. Returns {done: promise of the job, abort}.
export function upload(file, name, progress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.open('POST', `api/jobs?name=${encodeURIComponent(name)}`);
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.responseType = 'json';
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status === 201) resolve(request.response);
      else {
        const text = (request.response && request.response.error) || `the server answers ${request.status}`;
        reject(Object.assign(new Error(text), { status: request.status }));
      }
    };
    request.onerror = () => reject(new Error('the server cannot be reached, or has refused the file'));
    request.onabort = () => reject(new Error('cancelled'));
    request.send(file);
  });
  return { done, abort: () => request.abort() };
}

// Follow a job; `handlers` has state(job), notes(notes) and end(job). Returns a function that stops following.
export function follow(id, handlers) {
  const source = new EventSource(`api/jobs/${id}/events`);
  source.addEventListener('state', (event) => handlers.state && handlers.state(JSON.parse(event.data)));
  source.addEventListener('notes', (event) => handlers.notes && handlers.notes(JSON.parse(event.data).notes));
  source.addEventListener('end', (event) => {
    source.close();
    handlers.end(JSON.parse(event.data));
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED && handlers.lost) handlers.lost();
  };
  return () => source.close();
}
