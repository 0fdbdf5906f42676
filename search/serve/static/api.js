// Requests to the service and its stream of changes.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Ask the service; return the JSON of its answer. A body makes it a POST; with a key, what is sent twice acts once.
export async function ask(path, body, key) {
  const options = { headers: { Accept: "application/json" }, credentials: "same-origin", cache: "no-store" };
  if (key) options.headers["Idempotency-Key"] = key;
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ApiError(0, "The service does not answer. Is it running? Start it again: its jobs continue without it.");
  }
  const text = await answer.text();
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    content = null;
  }
  if (!answer.ok) throw new ApiError(answer.status, content?.error?.message ?? `The service refused: ${answer.status} ${answer.statusText}`);
  return content;
}

// Returns a function that makes a new key for values which differ from the last ones: what is sent again after a break acts once.
export function keyMaker() {
  let last, key;
  return values => {
    const text = JSON.stringify(values);
    if (text !== last) {
      last = text;
      key = [...crypto.getRandomValues(new Uint8Array(16))].map(each => each.toString(16).padStart(2, "0")).join("");
    }
    return key;
  };
}

// Build a path of the API; every part but those of the query is one segment.
export function apiPath(...segments) {
  return `/api/${segments.map(each => encodeURIComponent(each)).join("/")}`;
}

const firstWait = 1000, longestWait = 15000;  // milliseconds

// A stream of server-sent events that connects again, also if the service was restarted or refused for a while. It is closed
// while the page is hidden: a browser has few connections for all its tabs. `path()` is asked at each connection; `on` has a
// function for each event name, and `opened()` and `lost()`.
export function stream(path, on) {
  let source, timer, wait = firstWait;
  function connect() {
    source = new EventSource(path());
    source.onopen = () => {
      wait = firstWait;
      on.opened?.();
    };
    for (const [name, act] of Object.entries(on)) {
      if (name !== "opened" && name !== "lost") source.addEventListener(name, event => act(JSON.parse(event.data)));
    }
    source.onerror = () => {
      disconnect();
      on.lost?.();
      timer = setTimeout(connect, wait);
      wait = Math.min(longestWait, wait * 2);
    };
  }
  function disconnect() {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  }
  const follow = () => {
    disconnect();
    if (!document.hidden) connect();
  };
  document.addEventListener("visibilitychange", follow);
  follow();
  return {
    close() {
      document.removeEventListener("visibilitychange", follow);
      disconnect();
    },
  };
}
