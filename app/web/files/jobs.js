// What is queued, what runs, and why the rest waits.

import { follow, get, getText } from "./api.js";
import { day, details, element, facts, failure, note, shown, table, when } from "./elements.js";
import { planned } from "./plans.js";
import { GOING_ON, percent, progressLine, state } from "./progress.js";
import { seen } from "./videos.js";

const LAST_LINES = 20;
const MOST_SIGNS = 120;

export async function showJobs() {
  const page = await get("jobs?limit=100");
  return [
    element("h1", {}, "Jobs"),
    page.items.length ? table("Jobs", COLUMNS, page.items) : note("Nothing was asked for yet."),
  ];
}

export async function showJob(id, signal) {
  const [heading, place, told, outcome] = [element("h1"), element("div"), element("div"), element("div", { class: "outcome" })];
  const line = progressLine();
  const draw = (job) => {
    heading.textContent = job.name || job.id;
    keepingOpen(place, () => place.replaceChildren(element("div", {}, drawn(job))));
    if (GOING_ON.includes(job.status)) line.show(state(job), job.progress.fraction);
    else line.clear();
  };
  const end = async (job) => {
    const more = job.status === "failed" ? await lastLines(id) : await made(job, signal);
    if (!signal.aborted) outcome.replaceChildren(...more);
  };
  const first = await get(`jobs/${encodeURIComponent(id)}`);
  draw(first);
  const ended = GOING_ON.includes(first.status) ? follow(id, draw, { signal }) : Promise.resolve(first);
  ended.then(end).catch((error) => told.replaceChildren(failure(error)));
  return [heading, line.place, told, outcome, place];
}

/** Draw anew without closing what somebody has opened. */
function keepingOpen(place, draw) {
  const opened = [...place.querySelectorAll("details[open] > summary")].map(({ textContent }) => textContent);
  draw();
  for (const summary of place.querySelectorAll("summary")) summary.parentElement.open = opened.includes(summary.textContent);
}

/** What some kinds of job have made can be shown better than as JSON. */
async function made(job, signal) {
  if (job.status !== "succeeded") return [];
  if (job.kind === "detect-video") return seen(job, signal);
  if (job.kind === "plan") return [planned(job.result)];
  return [];
}

async function lastLines(id) {
  const lines = (await getText(`jobs/${encodeURIComponent(id)}/log`)).trimEnd().split("\n").slice(-LAST_LINES);
  if (!lines.join("")) return [];
  return [element("h2", {}, "Last lines of its log"), element("pre", {}, lines.join("\n"))];
}

/** In a list; the job's own view has all of it. */
function brief(text) {
  return text.length > MOST_SIGNS ? element("span", { title: text }, `${text.slice(0, MOST_SIGNS - 1)}…`) : text;
}

const COLUMNS = [
  { title: "Job", value: (job) => element("a", { href: `#job/${encodeURIComponent(job.id)}` }, job.name || job.id), long: true },
  { title: "Kind", value: (job) => job.kind, from: "medium" },
  { title: "Status", value: (job) => brief(state(job)), long: true },
  { title: "Done", value: (job) => percent(job.progress.fraction), digits: 0 },
  { title: "Device", value: device, from: "wide" },
  { title: "Asked for", value: (job) => day(job.created_at, { timeStyle: "short" }), from: "medium" },
];

function device(job) {
  return (job.devices ?? []).map((each) => each.name ?? each.device).join(", ") || job.config.device || null;
}

function drawn(job) {
  const made = job.result?.model_id;
  return [
    job.failure ? failure(job.failure) : null,
    facts([
      ["id", job.id],
      ["kind", job.kind],
      ["status", job.failure ? job.status : state(job)],
      ["done", percent(job.progress.fraction)],
      ["seconds left", job.eta_s === null ? null : shown(job.eta_s, 0)],
      ["device", device(job)],
      ["asked for", when(job.created_at)],
      ["ended", when(job.ended_at)],
      ["model", made ? element("a", { href: `#model/${encodeURIComponent(made)}` }, made) : null],
    ]),
    ...figures(job.metrics),
    details("Result", job.result),
    details("Configuration", job.config),
  ];
}

function figures(metrics) {
  const pairs = Object.entries(metrics).map(([name, value]) => [name, shown(value)]);
  return pairs.length ? [element("h2", {}, "Newest figures"), facts(pairs)] : [];
}
