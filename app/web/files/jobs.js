// What is queued, what runs, and why the rest waits.

import { follow, get, getText } from "./api.js";
import { element, facts, failure, note, shown, table, when } from "./elements.js";

const LAST_LINES = 20;

export async function showJobs() {
  const page = await get("jobs?limit=100");
  return [
    element("h1", {}, "Jobs"),
    page.items.length ? table("Jobs", COLUMNS, page.items) : note("Nothing was asked for yet."),
  ];
}

export async function showJob(id, signal) {
  const place = element("div");
  const draw = (job) => place.replaceChildren(element("div", {}, drawn(job)));
  draw(await get(`jobs/${encodeURIComponent(id)}`));
  const told = element("div");
  const ended = async (job) => {
    if (job.status === "failed" && !signal.aborted) told.replaceChildren(...(await lastLines(id)));
  };
  follow(id, draw, { signal })
    .then(ended)
    .catch((error) => told.replaceChildren(failure(error)));
  return [place, told];
}

async function lastLines(id) {
  const lines = (await getText(`jobs/${encodeURIComponent(id)}/log`)).trimEnd().split("\n").slice(-LAST_LINES);
  if (!lines.join("")) return [];
  return [element("h2", {}, "Last lines of its log"), element("pre", {}, lines.join("\n"))];
}

const COLUMNS = [
  { title: "Job", value: (job) => element("a", { href: `#job/${encodeURIComponent(job.id)}` }, job.name || job.id), long: true },
  { title: "Kind", value: (job) => job.kind },
  { title: "Status", value: state, long: true },
  { title: "Done", value: (job) => percent(job.progress.fraction), digits: 0 },
  { title: "Device", value: device },
  { title: "Asked for", value: (job) => when(job.created_at) },
];

export function state(job) {
  if (job.status === "queued") return ["queued", waiting(job)].filter(Boolean).join(": ");
  if (job.status === "failed") return `failed: ${job.failure?.message ?? ""}`;
  return job.status === "running" ? job.stage : job.status;
}

function waiting(job) {
  return job.waiting_for?.message ?? (job.queue_position ? `number ${job.queue_position}` : null);
}

function device(job) {
  return (job.devices ?? []).map((each) => each.name ?? each.device).join(", ") || job.config.device || null;
}

function percent(fraction) {
  return fraction === null || fraction === undefined ? null : `${Math.floor(100 * fraction)} %`;
}

function drawn(job) {
  const made = job.result?.model_id;
  return [
    element("h1", {}, job.name || job.id),
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

export function details(title, value) {
  if (value === null || value === undefined) return null;
  return element("details", {}, element("summary", {}, title), element("pre", {}, JSON.stringify(value, null, 2)));
}
