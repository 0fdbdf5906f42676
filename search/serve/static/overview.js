// The first place: jobs, studies and runs, and the dialog that starts one.
import { ask, keyMaker } from "./api.js";
import { addressOf, duration, element, link, pager, part, pill, progressBar, table, timeText, valueText } from "./dom.js";
import { formDialog } from "./dialogs.js";
import { listed, service } from "./store.js";

const rowsPerPage = 25;
const endedJobs = 5;

export function bestText(best) {
  return best ? `${best.name} ${valueText(best.value)}` : "–";
}

function studyProgress(study) {
  if (!study.num_samples) return study.is_current ? "–" : "reading…";
  const text = `${study.candidates.toLocaleString("en")}/${study.num_samples.toLocaleString("en")}`;
  return [progressBar(study.candidates, study.num_samples, `${text} candidates`), ` ${text}`];
}

function runProgress(run) {
  if (!run.max_epochs) return valueText(run.epochs);
  return [progressBar(run.epochs, run.max_epochs, `${run.epochs} of ${run.max_epochs} epochs`), ` ${run.epochs}/${run.max_epochs}`];
}

function monitored(run) {
  const name = (run.monitor ?? "").split(" ").at(-1);
  return name && run.results && name in run.results ? `${name} ${valueText(run.results[name])}` : "–";
}

const studyColumns = [
  { title: "Study", class: "name", cell: each => [link(each.name || each.folder, "study", each.id), element("small", {}, each.folder)] },
  { title: "State", cell: each => pill(each.state) },
  { title: "Candidates", class: "progress", cell: studyProgress },
  { title: "Best", cell: each => bestText(each.best) },
  { title: "Failed", number: true, cell: each => valueText(each.failed) },
  { title: "Time", number: true, cell: each => duration(each.seconds) },
  { title: "Changed", cell: each => timeText(each.updated) },
];

const runColumns = [
  { title: "Run", class: "name", cell: each => [link(each.name || each.folder, "run", each.id), element("small", {}, each.folder)] },
  { title: "State", cell: each => pill(each.state) },
  { title: "Epochs", class: "progress", cell: runProgress },
  { title: "Best", cell: monitored },
  { title: "Time", number: true, cell: each => duration(each.seconds) },
  { title: "Changed", cell: each => timeText(each.updated) },
];

export const jobColumns = [
  { title: "Job", class: "name", cell: each => [link(`${each.action} ${each.config ?? each.kind}`, "job", each.id), element("small", {}, (each.overrides ?? []).join(" "))] },
  { title: "State", cell: each => [pill(each.state), each.place ? ` ${each.place} in the queue` : null] },
  { title: "Result", cell: each => resultLink(each) ?? "–" },
  { title: "Started", cell: each => timeText(each.started) },
  { title: "Reason", class: "name", cell: each => each.reason || "–" },
];

export function resultLink(job) {
  if (job.study) return link("study", "study", job.study);
  return job.run ? link("run", "run", job.run) : null;
}

function jobsToShow() {
  const jobs = listed("jobs"), isOpen = each => each.state === "running" || each.state === "waiting";
  return [...jobs.filter(isOpen), ...jobs.filter(each => !isOpen(each)).slice(0, endedJobs)];
}

// A list with pages and a text that selects rows; `none` is said if it is empty.
function listPart(title, kind, columns, none) {
  let offset = 0, wanted = "";
  const made = part(title, async () => listed(kind), rows => {
    if (!rows.length) return element("p", { class: "note" }, none);
    const shown = rows.filter(each => `${each.name} ${each.folder} ${each.state}`.toLowerCase().includes(wanted.toLowerCase()));
    offset = Math.min(offset, Math.max(0, Math.floor((shown.length - 1) / rowsPerPage) * rowsPerPage));
    const input = element("input", { type: "search", "aria-label": `Select ${kind}`, placeholder: "Name, folder or state", "data-key": `search ${kind}`, oninput: event => {
      wanted = event.target.value;
      offset = 0;
      const { selectionStart } = event.target;
      made.again().then(() => made.section.querySelector("input")?.setSelectionRange(selectionStart, selectionStart));
    } });
    input.value = wanted;
    const show = target => { offset = target; made.again(); };
    return [
      rows.length > 8 ? element("div", { class: "select" }, input) : null,
      table(title, columns, shown.slice(offset, offset + rowsPerPage), { rowClass: each => each.state }),
      pager(offset, rowsPerPage, shown.length, show),
    ];
  });
  return made;
}

export function overview() {
  const jobs = part("Jobs", async () => jobsToShow(), rows => (rows.length ? table("Jobs", jobColumns, rows) : null));
  const parts = [
    jobs,
    listPart("Studies", "studies", studyColumns, "There is no study yet."),
    listPart("Runs", "runs", runColumns, "There is no run yet."),
  ];
  return {
    title: "Espalier",
    places: [],
    parts,
    concerns: () => true,
    content: [element("h1", { class: "hidden-title" }, "Studies and runs"), ...parts.map(each => each.section)],
  };
}

export async function startDialog() {
  let configs = [], problem;
  try {
    ({ configs } = await ask("/api/configs"));
  } catch (error) {
    problem = error.message;
  }
  const none = service()?.can_start === false || !configs.length;
  problem ??= none ? "There is no config to start. Start the service with --configs FOLDER." : undefined;
  const keyOf = keyMaker();
  const started = await formDialog({
    title: "Start a study or a training",
    text: problem ?? "It begins at once, or when the jobs before it have ended.",
    confirm: "Start",
    fields: problem ? [] : [
      { name: "config", label: "Config", kind: "select", options: configs.map(each => [each.config, `${each.config} (${each.kind})`]) },
      { name: "overrides", label: "Overrides, one PATH=VALUE per line", kind: "area", hint: "For example trainer.epochs=10" },
    ],
    send: async ({ config, overrides }) => {
      if (problem) throw new Error(problem);
      const { kind } = configs.find(each => each.config === config);
      const body = { config, overrides: overrides.split("\n").map(each => each.trim()).filter(Boolean) };
      return ask(kind === "study" ? "/api/studies" : "/api/runs", body, keyOf(body));
    },
  });
  if (started) location.hash = addressOf("job", started.job.id);
}
