// What is queued, what runs, and why the rest waits.

import { follow, get } from "./api.js";
import { element, facts, note, shown, table, when } from "./elements.js";

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
  follow(id, draw, { signal }).catch(() => {});
  return [place];
}

const COLUMNS = [
  { title: "Job", value: (job) => element("a", { href: `#job/${encodeURIComponent(job.id)}` }, job.name || job.id) },
  { title: "Kind", value: (job) => job.kind },
  { title: "Status", value: state },
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
    facts([
      ["kind", job.kind],
      ["status", state(job)],
      ["done", percent(job.progress.fraction)],
      ["seconds left", job.eta_s === null ? null : shown(job.eta_s, 0)],
      ["device", device(job)],
      ["asked for", when(job.created_at)],
      ["ended", when(job.ended_at)],
      ["model", made ? element("a", { href: `#model/${encodeURIComponent(made)}` }, made) : null],
    ]),
    element("h2", {}, "Newest figures"),
    facts(Object.entries(job.metrics).map(([name, value]) => [name, shown(value)])),
    details("Result", job.result),
    details("Configuration", job.config),
  ];
}

export function details(title, value) {
  if (value === null || value === undefined) return null;
  return element("details", {}, element("summary", {}, title), element("pre", {}, JSON.stringify(value, null, 2)));
}
