// The page: login, places, and changes as they come. A view has a `title`, `places` (its path in words), `content`, `parts` that are
// updated, and `concerns(ids)`, whether a change of these concerns it.
import { ask, stream } from "./api.js";
import { element, errorLine, link, replaceContent } from "./dom.js";
import { labelOf } from "./dialogs.js";
import { overview, startDialog } from "./overview.js";
import { candidateView, studyView } from "./study.js";
import { jobView, runView } from "./run.js";
import { applyChange, loadStore } from "./store.js";

const views = { "": overview, study: studyView, candidate: candidateView, run: runView, job: jobView };
const main = document.getElementById("main");
const places = document.getElementById("places");
const connection = document.getElementById("connection");
const buttons = ["start", "logout"].map(name => document.getElementById(name));
const secondsBetweenUpdates = 1;
const loggedIn = "logged in";  // a note of this browser, so that a first visit asks for nothing that is refused
let current, changes;

function changeTheme() {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function close() {
  for (const each of current?.parts ?? []) each.close?.();
  clearTimeout(current?.timer);
  current = undefined;
}

function viewOf(hash) {
  let kind, names;
  try {
    [kind, ...names] = hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  } catch {
    return overview();  // a percent sign that encodes nothing
  }
  const make = Object.hasOwn(views, kind) && names.every(Boolean) ? views[kind] : overview;
  return make(...names);
}

// Show the place of the address; the parts load at the same time, each as it comes.
async function navigate() {
  close();
  const view = viewOf(location.hash);
  current = view;
  document.title = view.title;
  replaceContent(places, [link("Studies and runs"), ...view.places].map(each => element("span", {}, each)));
  places.lastElementChild.setAttribute("aria-current", "page");
  delete document.documentElement.dataset.ready;
  replaceContent(main, view.content);
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  await update(view);
  if (view === current) document.documentElement.dataset.ready = Math.round(performance.now());
}

async function update(view) {
  const results = await Promise.allSettled(view.parts.map(each => each.update()));
  const refused = results.find(each => each.reason?.status === 401);
  if (refused) login();
  for (const each of results) if (each.reason && each.reason.status !== 401) console.error(each.reason);
}

// Load again what is shown, at once for the first change and then at most once a second.
function refresh() {
  const view = current;
  if (!view) return;
  view.isOutdated = Boolean(view.timer);
  if (view.timer) return;
  const wait = Math.max(0, secondsBetweenUpdates * 1000 - (performance.now() - (view.updated ?? -Infinity)));
  view.timer = setTimeout(async () => {
    view.updated = performance.now();
    view.isOutdated = false;
    await update(view);
    view.timer = undefined;
    if (view.isOutdated && view === current) refresh();
  }, wait);
}

// After a break anything may have changed, the session included.
async function loadAgain() {
  const asked = changes;
  try {
    await loadStore();
    refresh();
  } catch (error) {
    if (error.status === 401 && asked && asked === changes) login();
  }
}

function listen() {
  changes?.close();
  const note = kind => data => { if (current?.concerns(applyChange(kind, data))) refresh(); };
  changes = stream(() => "/api/events", {
    opened() { connection.textContent = ""; },
    lost() {
      connection.textContent = "no connection, trying again…";
      loadAgain();  // a stream does not say why it was refused
    },
    hello: loadAgain,
    studies: note("studies"),
    runs: note("runs"),
    jobs: note("jobs"),
  });
}

// Show the form for the token instead of everything else.
function login() {
  close();
  changes?.close();
  changes = undefined;
  document.querySelectorAll("dialog").forEach(each => each.close());
  for (const each of [...buttons, places]) each.hidden = true;
  const token = element("input", { type: "password", required: true, autocomplete: "current-password", id: "token" });
  const problem = element("div");
  const submit = element("button", { type: "submit", class: "primary" }, "Log in");
  const form = element("form", { class: "login", onsubmit: async event => {
    event.preventDefault();
    submit.disabled = true;
    replaceContent(problem);
    try {
      await ask("/login", { token: token.value.trim() });
      localStorage.setItem(loggedIn, "yes");
      await begin();
    } catch (error) {
      replaceContent(problem, errorLine(error));
      token.select();
    }
    submit.disabled = false;
  } }, element("h1", {}, "Log in"),
  element("p", { class: "note" }, "The token is in the file that the service named when it started."),
  element("input", { type: "text", autocomplete: "username", value: "espalier", hidden: true }),  // for password managers
  labelOf({ label: "Token" }, token), element("div", { class: "buttons" }, submit), problem);
  document.title = "Espalier: log in";
  replaceContent(main, form);
  token.focus();
  document.documentElement.dataset.ready = Math.round(performance.now());
}

// Show the place of the address if the browser has a session, else the form for the token.
async function begin() {
  try {
    await loadStore();
  } catch (error) {
    if (error.status === 401) login();
    else replaceContent(main, errorLine(error));
    return;
  }
  for (const each of [...buttons, places]) each.hidden = false;
  listen();
  await navigate();
}

document.getElementById("theme").addEventListener("click", changeTheme);
if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme");
document.getElementById("start").addEventListener("click", () => startDialog());
document.getElementById("logout").addEventListener("click", async () => {
  try {
    await ask("/logout", {});
    login();
  } catch (error) {
    connection.textContent = error.message;  // the cookie remains
  }
});
document.querySelector(".skip").addEventListener("click", event => {
  event.preventDefault();  // its target is no place
  main.focus();
});
addEventListener("hashchange", () => { if (changes) navigate(); });

if (localStorage.getItem(loggedIn)) begin();
else login();
