// Places of a run of train.py and of a job.
import { apiPath, ask } from "./api.js";
import { duration, element, facts, jsonBlock, link, part, pictures, pill, progressBar, timeText } from "./dom.js";
import { buttonRow, messageLine } from "./dialogs.js";
import { curvesPart } from "./figures.js";
import { logPart } from "./log.js";
import { resultLink } from "./overview.js";
import { known } from "./store.js";

// Load once for all parts of a view that are updated together.
export function shared(load) {
  let pending;
  return () => {
    pending ??= load().finally(() => { pending = undefined; });
    return pending;
  };
}

export function heading(name, state) {
  return element("div", { class: "title" }, element("h1", {}, name), pill(state));
}

// TensorBoard of a study or run, which starts when it is opened.
export function boardLink(path) {
  return element("a", { href: `${path}/tensorboard/`, target: "_blank", rel: "noopener" }, "TensorBoard");
}

export function runView(id) {
  const path = apiPath("runs", id), said = messageLine();
  const load = shared(() => ask(path));
  const reload = () => Promise.all(parts.map(each => (each.again ?? each.update)()));
  const stop = { name: "Stop", isDangerous: true, title: "Stop the run?", ask: "Its state is saved, and it can be resumed.", send: () => ask(`${path}/stop`, {}) };
  const resume = { name: "Resume", send: (_values, key) => ask(`${path}/resume`, {}, key), done: "It is in the queue." };
  // A job that waits or ends is in the way of another one.
  const buttons = run => (run.state === "running" || run.job ? [stop] : run.state === "unfinished" ? [resume] : []);
  const top = part("", async () => (await load()).run, run => [
    heading(run.name || run.folder, run.state),
    run.error && element("p", { class: "error" }, run.error),
    buttonRow(buttons(run), said, reload),
    element("p", { class: "note" }, boardLink(path)),
    run.max_epochs ? progressBar(run.epochs, run.max_epochs, `${run.epochs} of ${run.max_epochs} epochs`) : null,
    facts([
      ["Folder", run.folder], ["Epochs", run.max_epochs ? `${run.epochs} of ${run.max_epochs}` : run.epochs], ["Monitor", run.monitor],
      ["Best epoch", run.best_epoch], ["Time", duration(run.seconds)], ["Changed", timeText(run.updated)],
      ["Job", run.job && link("its job", "job", run.job)],
    ]),
  ], { name: "top" });
  const results = part("Results", async () => (await load()).run.results ?? {}, found =>
    (Object.keys(found).length ? facts(Object.entries(found)) : null));
  const curves = curvesPart(async () => {
    const { reports, run } = await load();
    return { reports, monitor: run.monitor };
  });
  const images = part("Pictures", async () => (await load()).pictures ?? [], names => (names.length ? pictures(names, path) : null));
  const files = part("Config", load, ({ config, result }) => [jsonBlock("config.json", config), result && jsonBlock("result.json", result)]);
  const log = logPart("Log", path, { isOpen: true, mayGrow: () => known("runs", id)?.state === "running" });
  const parts = [top, results, curves, images, log, files];
  return {
    title: `${known("runs", id)?.name ?? "Run"} · Espalier`,
    places: [known("runs", id)?.name ?? "Run"],
    parts,
    concerns: ids => ids.has(id),
    content: parts.map(each => each.section),
  };
}

export function jobView(id) {
  const path = apiPath("jobs", id), said = messageLine();
  const load = shared(() => ask(path));
  const stop = state => (state === "waiting"
    ? { name: "Cancel", isDangerous: true, title: "Cancel the job?", ask: "It leaves the queue and cannot be put back; start it anew.", send: () => ask(`${path}/stop`, {}) }
    : { name: "Stop", isDangerous: true, title: "Stop the job?", ask: "Its state is saved, and it can be resumed.", send: () => ask(`${path}/stop`, {}) });
  const top = part("", async () => (await load()).job, job => [
    heading(`${job.action} ${job.config ?? job.kind}`, job.state),
    job.reason && element("p", { class: "error" }, job.reason),
    ["waiting", "running"].includes(job.state) ? buttonRow([stop(job.state)], said, () => top.again()) : said,
    facts([
      ["Kind", job.kind], ["Result", resultLink(job)], ["Place in the queue", job.place], ["Overrides", (job.overrides ?? []).join("\n")],
      ["Created", timeText(job.created)], ["Started", job.started && timeText(job.started)], ["Ended", job.ended && timeText(job.ended)],
      ["Exit code", job.exit_code], ["Signal", job.signal],
    ]),
  ], { name: "top" });
  const log = logPart("Output", path, { isOpen: true });
  return {
    title: "Job · Espalier",
    places: ["Job"],
    parts: [top, log],
    concerns: ids => ids.has(id),
    content: [top.section, log.section],
  };
}
