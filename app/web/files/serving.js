// How a model is served: what the engine does now, what is pinned, the last plan, and a form that begins another.

import { get, patch, post } from "./api.js";
import { element, facts, failure, field, forgetFailures, note } from "./elements.js";
import { executor, planned, wayToServe } from "./plans.js";
import { GOING_ON, progressLine, watch } from "./progress.js";

const SETTLES_WITHIN_S = 15;

/** Who decided it, in words. */
const CHOSEN_BY = {
  plan: "a plan has pinned it",
  comparison: "the engine has compared it with its default",
  default: "the default here",
};

/** Return how each model in the engine's memory is served, by id; null when the engine is away. */
export async function servedNow() {
  try {
    const { models } = await get("serving");
    return Object.fromEntries(models.map((served) => [served.model_id, served]));
  } catch (error) {
    if (error.status === 503) return null;
    throw error;
  }
}

export const servedBy = (model, now) => {
  const shape = now?.[model.id] ?? model.serving;
  if (!shape) return now && "not in memory";
  return `${executor(shape)}${model.serving ? ", pinned" : ""}`;
};

/** Draw the section of a detector; a classifier has none. */
export async function serving(model, signal) {
  if (model.task !== "detect") return [];
  const here = `models/${encodeURIComponent(model.id)}`;
  const [place, told, line] = [element("div"), element("div"), progressLine()];
  const work = (task) => task().catch((error) => told.replaceChildren(failure(inWords(error))));

  const draw = async () => {
    const [shownModel, now, plan] = await Promise.all([get(here), servedNow(), lastPlan(here)]);
    const unpin = shownModel.serving ? element("button", { type: "button", onclick: () => work(unpinned) }, "Unpin it") : null;
    if (!signal.aborted) place.replaceChildren(...described(shownModel, now?.[model.id], unpin), ...lastOf(plan, shownModel.serving));
    return { pinned: shownModel.serving, now: now?.[model.id] };
  };
  let wasInMemory = false;
  /** What is pinned serves as soon as the engine has loaded it: look until then, for a while. */
  const settle = async () => {
    for (let second = 0; second < SETTLES_WITHIN_S && !signal.aborted; second += 1) {
      const { pinned, now } = await draw();
      wasInMemory ||= Boolean(now);
      const isSettled = now ? (now.chosen_by === "plan") === Boolean(pinned) : !wasInMemory;
      if (isSettled) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  };
  const unpinned = async () => {
    forgetFailures();
    await patch(here, { serving: null });
    await settle();
  };
  const measure = async (jobId) => {
    told.replaceChildren();
    const job = await watch(jobId, line, signal);
    if (job.failure) throw new Error(job.failure.message);
    await settle();
  };

  wasInMemory = Boolean((await draw()).now);
  const form = await planForm(model, (wish) => {
    forgetFailures();
    return work(async () => measure((await post(`${here}/plan`, wish())).id));
  });
  const jobs = await get(`jobs?kind=plan&model_id=${encodeURIComponent(model.id)}&limit=5`);
  const running = jobs.items.find((job) => GOING_ON.includes(job.status));
  if (running) work(() => measure(running.id));
  return [element("section", {}, element("h2", {}, "How it is served"), place, form, line.place, told)];
}

async function lastPlan(here) {
  try {
    return await get(`${here}/plan`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

const lastOf = (plan, pinnedNow) => (plan ? [element("h3", {}, "The last plan"), planned(plan, pinnedNow)] : []);

function described(model, now, unpin) {
  return [
    facts([
      ["now", now ? wayToServe(now) : "not in memory yet"],
      ["because", now ? [CHOSEN_BY[now.chosen_by], now.reason].filter(Boolean).join("; ") : null],
      ["pinned", model.serving ? wayToServe(model.serving) : "nothing: the engine decides"],
    ]),
    ...(unpin ? [element("p", {}, unpin)] : []),
  ];
}

const LABELS = { p95_ms: "p95 within, ms", rps: "Images a second", max_ap_drop: "Largest AP drop", dataset_id: "Pictures of", pin: "Pin the best" };

/** Say what is wrong with a field as the form calls it. */
function inWords(error) {
  if (!error.faults?.length) return error;
  const label = ({ pointer }) => LABELS[pointer.slice(1)] ?? pointer;
  const words = ({ problem }) => problem.replaceAll(/`(\w+)`/g, (quoted, name) => (LABELS[name] ? `“${LABELS[name]}”` : quoted));
  return new Error(error.faults.map((fault) => `${label(fault)}: ${words(fault)}`).join("\n"));
}

function whatToChoose(select) {
  const wanted = "a plan needs pictures with labels, of a dataset that has a class of this model and a validation split";
  return `${LABELS.dataset_id}: ${select.length > 1 ? "choose one" : "there is none to choose"}; ${wanted}`;
}

const option = (value, text, more = {}) => element("option", { value, ...more }, text);
const hasPictures = ({ status, splits }) => status === "ready" && splits.val?.images > 0;

/** Return the choice of pictures: preset is the dataset of the training, or else the only one that can be taken. */
async function picturesOf(model) {
  const known = model.provenance.dataset_id;
  const [{ items }, own] = await Promise.all([get("datasets?limit=100"), known ? trainedOn(known) : null]);
  const fitting = items.filter((each) => hasPictures(each) && each.classes.some((name) => model.classes.includes(name)));
  const first = own && hasPictures(own) ? option("", `that of its training (${own.name})`) : fitting.length === 1 ? null : option("", "choose one", { "data-none": "yes" });
  return element("select", { name: "dataset_id" }, first, fitting.map(({ id, name }) => option(id, name)));
}

async function trainedOn(id) {
  try {
    return await get(`datasets/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** A form for the wishes; what is left empty is not asked for. */
async function planForm(model, begin) {
  const number = (name, attributes) => element("input", { type: "number", name, min: 0, step: "any", ...attributes });
  const dataset = await picturesOf(model);
  const pin = element("input", { type: "checkbox", name: "pin", checked: true });
  const button = element("button", {}, "Measure and plan");
  const form = element(
    "form",
    { class: "wishes" },
    field(LABELS.p95_ms, number("p95_ms", { placeholder: "any" })),
    field(LABELS.rps, number("rps", { placeholder: "any" })),
    field(LABELS.max_ap_drop, number("max_ap_drop", { value: "0.005", max: 1 })),
    field(LABELS.dataset_id, dataset),
    field(LABELS.pin, pin),
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    await begin(() => {
      if (dataset.selectedOptions[0]?.dataset.none) throw new Error(whatToChoose(dataset));
      return wish(form);
    });
    button.disabled = false;
  });
  const explained = note("A plan measures every backend, precision, number of streams and batch size on this machine, and pins the best.");
  return element("div", {}, element("h3", {}, "Plan it"), explained, form);
}

function wish(form) {
  const given = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  const numbers = ["p95_ms", "rps", "max_ap_drop"].filter((name) => name in given).map((name) => [name, Number(given[name])]);
  const dataset = given.dataset_id ? { dataset_id: given.dataset_id } : {};
  return { ...Object.fromEntries(numbers), ...dataset, pin: "pin" in given };
}
