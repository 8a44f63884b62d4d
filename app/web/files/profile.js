// What a model costs: the newest profile as tables, and a button that measures anew.

import { follow, get, post } from "./api.js";
import { element, facts, failure, note, shown, size, table } from "./elements.js";
import { state } from "./jobs.js";

export async function costs(model, signal) {
  const place = element("div");
  const jobs = await get(`jobs?kind=profile&model_id=${encodeURIComponent(model.id)}&limit=20`);
  const newest = jobs.items.find((job) => job.status === "succeeded");
  const running = jobs.items.find((job) => ["queued", "running", "cancelling"].includes(job.status));
  place.append(newest ? profile(newest.result.profile) : note("It was not profiled yet."));
  const told = note("");
  const measure = (job) => watch(job, place, told, signal).catch((error) => told.replaceWith(failure(error)));
  const button = element("button", { type: "button", onclick: (event) => begin(event.target, model, measure, told) }, "Profile it");
  if (running) measure(running);
  return element("section", {}, element("h2", {}, "What it costs"), button, told, place);
}

async function begin(button, model, measure, told) {
  button.disabled = true;
  try {
    await measure(await post(`models/${encodeURIComponent(model.id)}/profile`, { verbose: true }));
  } catch (error) {
    told.textContent = error.message;
  } finally {
    button.disabled = false;
  }
}

async function watch(job, place, told, signal) {
  const ended = await follow(job.id, (each) => (told.textContent = state(each)), { signal });
  if (ended.status === "succeeded") place.replaceChildren(profile(ended.result.profile));
  if (ended.status === "succeeded") told.textContent = "";
}
