// Places of a study and of one of its candidates.
import { apiPath, ask } from "./api.js";
import { duration, element, facts, jsonBlock, link, pager, part, pictures, pill, progressBar, table, timeText, valueText } from "./dom.js";
import { buttonRow, messageLine } from "./dialogs.js";
import { curvesPart, figurePlace } from "./figures.js";
import { logPart } from "./log.js";
import { boardLink, heading, shared } from "./run.js";
import { known } from "./store.js";

const rowsPerPage = 25;
const secondsBetweenFigures = 5;
const statuses = ["running", "paused", "stopped", "completed", "failed", "out_of_memory", "refused", "duplicate"];
const figureTitles = {
  "progress-epochs": "Best so far by epochs", "progress-time": "Best so far by time", curves: "Curves", front: "Front", volume: "Hypervolume",
  rungs: "Rungs", timeline: "Timeline", predictions: "Predictions",
};

function studyButtons(study, path) {
  const send = (command, body = () => ({})) => (values, key) => ask(`${path}/${command}`, body(values), key);
  const isRunning = study.state === "running";
  const all = {
    pause: { name: "Pause", send: send("pause") },
    resume: { name: "Resume", send: send("resume"), done: "It is in the queue." },
    stop: {
      name: "Stop", isDangerous: true, title: "Stop the study?", send: send("stop"),
      ask: "What runs is saved at its next report, and the study can be resumed.",
    },
    add: {
      name: "Add candidates", title: "Add candidates", send: send("add", ({ number }) => ({ num_samples: Number(number) })),
      ask: "The study tries more candidates. This cannot be taken back.",
      fields: [{ name: "number", label: "Number", kind: "number", value: 10, min: 1, required: true }],
    },
    enqueue: {
      name: "Enqueue", title: "Enqueue a candidate",
      send: send("enqueue", ({ values }) => ({ values: values.split("\n").map(each => each.trim()).filter(Boolean) })),
      ask: "The study tries these values next; the others are drawn. This cannot be taken back.",
      fields: [{ name: "values", label: "Searched values, one PATH=VALUE per line", kind: "area", required: true }],
    },
  };
  if (study.state === "unreadable") return [];
  const canResume = isRunning || (study.state !== "done" && !study.job);  // a job that waits or ends is in the way
  return [isRunning && all.pause, canResume && all.resume, (isRunning || study.job) && all.stop, all.add, all.enqueue].filter(Boolean);
}

function tiles(study) {
  const { best } = study;
  const all = [
    [best?.name ?? "best", best ? valueText(best.value) : "–", best ? link(`candidate ${best.candidate}`, "candidate", study.id, best.candidate) : "no results yet"],
    ["candidates", valueText(study.candidates), study.num_samples ? `of ${valueText(study.num_samples)}` : ""],
    ["epochs", valueText(study.epochs), ""],
    ["time", duration(study.seconds), study.failed ? `${study.failed} failed` : ""],
  ];
  return element("dl", { class: "tiles" }, all.map(([name, value, note]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value), element("dd", { class: "small" }, note))));
}

function runningPart(id, load) {
  const running = async () => {
    const { study, facts: more } = await load();
    return study.state === "running" ? more.running ?? [] : [];
  };
  return part("Running", running, rows => (rows.length ? table("Running candidates", [
    { title: "Candidate", cell: each => link(each.candidate, "candidate", id, each.candidate) },
    { title: "Epochs", class: "progress", cell: each => [progressBar(each.epochs, each.max_epochs, "epochs"), ` ${each.epochs}/${each.max_epochs}`] },
    { title: "Result", number: true, cell: each => valueText(each.value) },
  ], rows) : null));
}

// The candidates by rank or number, a page at a time.
function leaderboardPart(id, path) {
  const query = { order: "rank", status: "", offset: 0, limit: rowsPerPage };
  const made = part("Leaderboard", () => ask(`${path}/candidates?${new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""))}`), found => {
    const change = values => { Object.assign(query, values); made.again(); };
    const choice = (label, name, options) => {
      const chosen = element("select", { "data-key": `choice ${name}`, onchange: event => change({ [name]: event.target.value, offset: 0 }) },
        options.map(([value, text]) => element("option", { value, selected: value === query[name] }, text)));
      return element("label", {}, element("span", {}, label), chosen);
    };
    const names = found.objectives.map(each => each.split(" ").at(-1));
    const columns = [
      { title: "Rank", number: true, cell: each => valueText(each.rank) },
      { title: "Candidate", number: true, cell: each => link(each.number, "candidate", id, each.number) },
      ...names.map(name => ({ title: name, number: true, cell: each => valueText(each.objectives?.[name] ?? each.facts?.[name]) })),
      { title: "Status", cell: each => [pill(each.status), each.is_on_front && names.length > 1 ? " front" : null] },
      { title: "Epochs", number: true, cell: each => valueText(each.epochs) },
      { title: "Values", class: "values", cell: each => (each.drawn.length ? drawnText(each.drawn) : "–") },
      { title: "Reason", class: "values", cell: each => each.reason || "–" },
    ];
    const shown = found.rows.some(each => each.reason) ? columns : columns.slice(0, -1);
    return [
      element("div", { class: "choices" },
        choice("Order", "order", [["rank", "best first"], ["number", "by number"]]),
        choice("Status", "status", [["", "all"], ...statuses.map(each => [each, each.replaceAll("_", " ")])])),
      found.total ? table("Leaderboard", shown, found.rows, { rowClass: each => each.status }) : element("p", { class: "note" }, "There is no such candidate yet."),
      pager(found.offset, found.limit, found.total, offset => change({ offset })),
    ];
  });
  return made;
}

// Drawn values with the shortest ends of their paths.
function drawnText(drawn) {
  return drawn.map(([path, value]) => `${path.split(".").at(-1)} ${valueText(value)}`).join(", ");
}

function figuresPart(load) {
  return part("Figures", load, ({ figures, correlations }) => {
    const order = Object.keys(figureTitles);
    const correlated = (correlations ?? []).filter(each => each.value !== null);
    const place = name => order.findIndex(each => name === each || (each === "front" && /^front\d+$/.test(name)));
    const names = Object.keys(figures).filter(name => place(name) >= 0).sort((one, two) => place(one) - place(two) || one.localeCompare(two));
    if (!names.length) return element("p", { class: "note" }, "There are no results yet.");
    return [
      element("div", { class: "multiples wide" }, names.map(name => {
        const title = figureTitles[order[place(name)]];
        return element("div", {}, element("h3", {}, title), figurePlace(figures[name], title));
      })),
      correlated.length ? [element("h3", {}, "Correlation of rungs"), table("Correlation of rungs", [
        { title: "Epochs", cell: each => `${each.epochs[0]} and ${each.epochs[1]}` },
        { title: "Rank correlation", number: true, cell: each => valueText(each.value) },
        { title: "Candidates", number: true, cell: each => valueText(each.count) },
        { title: "Note", cell: each => (each.is_unbiased ? "–" : "only promoted candidates, so biased") },
      ], correlated)] : null,
    ];
  }, { seconds: secondsBetweenFigures });
}

function rungsPart(load) {
  return part("Rungs", async () => (await load()).facts.rungs ?? [], rungs => (rungs.length ? table("Rungs", [
    { title: "Bracket", number: true, cell: each => valueText(each.bracket) },
    { title: "Epochs", number: true, cell: each => valueText(each.epochs) },
    { title: "Reached", number: true, cell: each => valueText(each.reached) },
    { title: "Promoted", number: true, cell: each => valueText(each.promoted) },
    { title: "Best", number: true, cell: each => valueText(each.best) },
  ], rungs) : null));
}

function failuresPart(id, load) {
  return part("Failures", async () => (await load()).facts.failures ?? [], groups => (groups.length ? table("Failures", [
    { title: "Status", cell: each => pill(each.status) },
    { title: "Number", number: true, cell: each => valueText(each.count) },
    { title: "Candidates", class: "name", cell: each => each.candidates.slice(0, 12).map((number, place) => [place ? ", " : "", link(number, "candidate", id, number)]) },
    { title: "Reason", class: "values", cell: each => each.reason || "–" },
  ], groups) : null));
}

export function studyView(id) {
  const path = apiPath("studies", id), said = messageLine();
  const load = shared(() => ask(path));
  const reload = () => Promise.all([top.again(), leaderboard.again()]);
  const top = part("", async () => (await load()).study, study => [
    heading(study.name || study.folder, study.state),
    study.error && element("p", { class: "error" }, study.error),
    study.num_samples ? progressBar(study.candidates, study.num_samples, "candidates") : null,
    tiles(study),
    buttons.section,
  ], { name: "top" });
  const buttons = part("", async () => {
    const { study } = await load();
    return { state: study.state, job: study.job };
  }, study => [
    buttonRow(studyButtons(study, path), said, reload),
    element("p", { class: "note" }, element("a", { href: `${path}/report`, target: "_blank", rel: "noopener" }, "Report"), " · ", boardLink(path), study.job && [" · ", link("Job", "job", study.job)]),
  ], { name: "buttons" });
  const about = part("Facts", load, ({ study, facts: more }) => [
    facts([
      ["Folder", study.folder], ["Objectives", (study.objectives ?? []).join(", ")], ["Constraints", (more.constraints ?? []).join(", ")],
      ["Scheduler", more.scheduler], ["Epochs at most", more.max_epochs], ["Searched values", (more.searched ?? []).join(", ")],
      ["Began", timeText(study.began)], ["Changed", timeText(study.updated)],
    ]),
    jsonBlock("config.json", more.config),
    more.commands?.length ? element("details", {}, element("summary", {}, "Commands for the winner"), element("pre", { tabindex: 0 }, commandText(more.commands))) : null,
  ]);
  const leaderboard = leaderboardPart(id, path);
  const log = logPart("Log", path, { mayGrow: () => Boolean(known("studies", id)?.job) });  // the output of its last job
  const figures = figuresPart(() => ask(`${path}/figures`));
  const parts = [top, buttons, runningPart(id, load), leaderboard, figures, rungsPart(load), failuresPart(id, load), about, log];
  const name = known("studies", id)?.name || "Study";
  return {
    title: `${name} · Espalier`,
    places: [name],
    parts,
    concerns: ids => ids.has(id),
    content: parts.filter(each => each !== buttons).map(each => each.section),
  };
}

function commandText(commands) {
  return commands.map(each => (typeof each === "string" ? each : Object.values(each).join("\n"))).join("\n");
}

export function candidateView(id, number) {
  const study = apiPath("studies", id), path = apiPath("studies", id, "candidates", number);
  const said = messageLine();
  const load = shared(() => ask(path));
  const send = command => () => ask(`${study}/${command}`, { candidate: Number(number) });
  const buttons = {
    running: [{ name: "Pause", send: send("pause") }],
    paused: [{ name: "Resume", send: send("resume") }],
  };
  const stop = {
    name: "Give up", isDangerous: true, title: `Give up candidate ${number}?`, send: send("stop"),
    ask: "It counts with the values that it has, and is not trained further. This cannot be undone.",
  };
  const top = part("", async () => (await load()).candidate, candidate => [
    heading(`Candidate ${number}`, candidate.status),
    candidate.reason && element("p", { class: "error" }, candidate.reason),
    buttons[candidate.status] ? buttonRow([...buttons[candidate.status], stop], said, () => top.again()) : said,
    facts([
      ["Rank", candidate.rank], ...Object.entries(candidate.objectives ?? {}), ["Epochs", candidate.epochs], ["Best epoch", candidate.best_epoch],
      ["Time", duration(candidate.seconds)], ["Origin", candidate.origin], ["Seed", String(candidate.seed)], ["Folder", candidate.folder],
      ...Object.entries(candidate.facts ?? {}).filter(([name]) => !(name in (candidate.objectives ?? {}))), ["Violation of constraints", candidate.violation || null],
    ]),
  ], { name: "top" });
  const values = part("Drawn values", async () => (await load()).candidate.drawn ?? [], drawn => (drawn.length ? facts(drawn) : null));
  const curves = curvesPart(async () => ({ reports: (await load()).reports, monitor: known("studies", id)?.objectives?.[0] }));
  const images = part("Pictures", async () => (await load()).pictures ?? [], names => (names.length ? pictures(names, path) : null));
  const files = part("Config", load, ({ config, result }) => [config && jsonBlock("config.json", config), result && jsonBlock("result.json", result)]);
  const log = logPart("Log", path, { mayGrow: () => known("studies", id)?.state === "running" });
  const parts = [top, values, curves, images, log, files];
  const name = known("studies", id)?.name || "Study";
  return {
    title: `Candidate ${number} of ${name} · Espalier`,
    places: [link(name, "study", id), `Candidate ${number}`],
    parts,
    concerns: ids => ids.has(id),
    content: parts.map(each => each.section),
  };
}
