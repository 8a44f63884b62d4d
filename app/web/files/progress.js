// How far a job is: in words, in per cent, and as a bar that is drawn anew without taking anybody's place away.

import { follow } from "./api.js";
import { element, shown } from "./elements.js";

export const GOING_ON = ["queued", "running", "cancelling"];

export function state(job) {
  if (job.status === "queued") return ["queued", waiting(job)].filter(Boolean).join(": ");
  if (job.status === "failed") return `failed: ${job.failure?.message ?? ""}`;
  return job.status === "running" ? job.stage : job.status;
}

function waiting(job) {
  return job.waiting_for?.message ?? (job.queue_position ? `number ${job.queue_position}` : null);
}

export function percent(fraction) {
  return fraction === null || fraction === undefined ? null : `${Math.floor(100 * fraction)} %`;
}

/** A line of words and a bar; `show(text, fraction)` changes them, `clear()` takes them away. */
export function progressLine() {
  const words = element("span", { role: "status" });
  const bar = element("progress", { max: 1, "aria-label": "Done" });
  const place = element("p", { class: "progress", hidden: true }, bar, words);
  const show = (text, fraction) => {
    place.hidden = false;
    if (typeof fraction === "number") bar.value = fraction;
    else bar.removeAttribute("value");
    if (words.textContent !== text) words.textContent = text;
  };
  return { place, show, clear: () => (place.hidden = true) };
}

/** Follow a job on such a line, and return it when it has ended. */
export async function watch(jobId, line, signal) {
  const tell = (job) => {
    const left = job.eta_s === null ? null : `${shown(job.eta_s, 0)} s left`;
    line.show([state(job), percent(job.progress.fraction), left].filter(Boolean).join(", "), job.progress.fraction);
  };
  const ended = await follow(jobId, tell, { signal });
  line.clear();
  return ended;
}
