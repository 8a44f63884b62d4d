// What a model costs: the newest profile at its own input size as tables, and a button that measures anew.

import { get, post } from "./api.js";
import { element, facts, failure, forgetFailures, note, shown, size, table } from "./elements.js";
import { GOING_ON, progressLine, watch } from "./progress.js";

export async function costs(model, signal) {
  const [place, told, line] = [element("div"), element("div"), progressLine()];
  const jobs = await get(`jobs?kind=profile&model_id=${encodeURIComponent(model.id)}&limit=20`);
  const done = jobs.items.filter((job) => job.status === "succeeded");
  const newest = done.find((job) => String(job.result.input_size) === String(model.input_size)) ?? done[0];
  const running = jobs.items.find((job) => GOING_ON.includes(job.status));
  place.append(newest ? profile(newest.result) : note("It was not profiled yet."));
  const work = async (task) => {
    told.replaceChildren();
    try {
      const job = await watch((await task()).id, line, signal);
      if (job.failure) throw new Error(job.failure.message);
      if (job.status === "succeeded") place.replaceChildren(profile(job.result));
    } catch (error) {
      told.replaceChildren(failure(error));
    }
  };
  const begin = async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    forgetFailures();
    await work(() => post(`models/${encodeURIComponent(model.id)}/profile`, { verbose: true }));
    button.disabled = false;
  };
  if (running) work(async () => running);
  const button = element("button", { type: "button", onclick: begin }, "Profile it");
  return element("section", {}, element("h2", {}, "What it costs"), element("p", {}, button), line.place, told, place);
}

function profile(found) {
  return element(
    "div",
    {},
    facts([
      ["layers", shown(found.layers, 0)],
      ["parameters", shown(found.parameters, 0)],
      ["of them learn", shown(found.gradients, 0)],
      ["sparsity", shown(found.sparsity, 4)],
      ["GFLOPs", shown(found.gflops, 3)],
      ["input", `${found.batch_size} × ${size(found.input_size)} on ${found.device}`],
      ["precision", found.half ? "half" : "full"],
      ["runs", shown(found.runs, 0)],
      ["peak memory", found.memory.peak_bytes === null ? null : `${shown(found.memory.peak_bytes / 1e6, 1)} MB`],
    ]),
    table("Profile by part", PARTS, found.parts),
    found.modules ? folded(`${found.modules.length} modules of the class asked for`, MODULES, found.modules) : null,
    found.tensors ? folded(`${found.tensors.length} parameter tensors`, TENSORS, found.tensors) : null,
  );
}

function folded(title, columns, rows) {
  return element("details", {}, element("summary", {}, title), table(title, columns, rows));
}

const deviation = (mean, std) => {
  if (mean === null || std === null) return mean === null ? null : shown(mean, 2);
  return `${shown(mean, 2)} ± ${shown(std, 2)}`;
};
/** A line breaks between shapes, not inside one. */
const shapes = (each) => each.map((shape) => size(shape).replaceAll(" ", "\u00a0")).join(", ");

/** What stands in columns of their own where there is room. */
const inShort = (row) => [
  element("small", { class: "narrow" }, [`${shown(row.parameters, 0)} parameters`, row.backward_ms === null ? null : `; backward ${shown(row.backward_ms, 2)} ms`]),
  element("small", { class: "not-wide" }, `${shapes(row.input_shapes)} → ${shapes(row.output_shapes)}`),
];

const PARTS = [
  { title: "Part", value: (row) => [row.part, ...inShort(row)], long: true },
  { title: "Parameters", value: (row) => row.parameters, digits: 0, from: "medium" },
  { title: "GFLOPs", value: (row) => row.gflops, digits: 3 },
  { title: "Forward, ms", value: (row) => deviation(row.forward_ms, row.forward_ms_std), digits: 2 },
  { title: "Backward, ms", value: (row) => deviation(row.backward_ms, row.backward_ms_std), digits: 2, from: "medium" },
  { title: "Input", value: (row) => shapes(row.input_shapes), long: true, from: "wide" },
  { title: "Output", value: (row) => shapes(row.output_shapes), long: true, from: "wide" },
];

const MODULES = [
  { title: "No.", value: (row) => row.index, digits: 0 },
  { title: "Class", value: (row) => row.class },
  { title: "Name", value: (row) => row.name },
];

const TENSORS = [
  { title: "No.", value: (row) => row.index, digits: 0 },
  { title: "Name", value: (row) => row.name },
  { title: "Learns", value: (row) => (row.gradient ? "yes" : "no") },
  { title: "Numbers", value: (row) => row.count, digits: 0 },
  { title: "Shape", value: (row) => size(row.shape) },
  { title: "Mean", value: (row) => row.mean, digits: 6 },
  { title: "Deviation", value: (row) => row.std, digits: 6 },
];
