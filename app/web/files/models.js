// The models: what each is, how good, and what it costs.

import { get } from "./api.js";
import { day, details, element, facts, filled, note, shown, size, table, when } from "./elements.js";
import { costs } from "./profile.js";
import { servedBy, servedNow, serving } from "./serving.js";

export async function showModels() {
  const [page, now] = await Promise.all([get("models?limit=100"), servedNow()]);
  return [
    element("h1", {}, "Models"),
    page.items.length
      ? table("Models", columns(page.items, now), page.items)
      : note("There is none yet: train one with POST /train, or bring one with POST /models/import."),
  ];
}

export async function showModel(id, signal) {
  const here = `models/${encodeURIComponent(id)}`;
  const [model, evaluations] = await Promise.all([get(here), get(`${here}/evaluations?limit=20`)]);
  return [
    element("h1", {}, model.name),
    described(model),
    ...(await serving(model, signal)),
    await costs(model, signal),
    element("h2", {}, "Evaluations"),
    evaluations.items.length ? table("Evaluations", filled(MEASURED, evaluations.items), evaluations.items) : note("It was not measured yet."),
    ...(await pruning(model)),
    ...reproduction(model.provenance.reproduction),
    element("h2", {}, "Where it comes from"),
    details("Provenance", model.provenance),
    details("Record", model.record),
  ];
}

/** What pruning has changed, of a model that was pruned: all that its job measured, as long as that is there. */
async function pruning(model) {
  const { pruned } = model.provenance;
  if (!pruned) return [];
  const job = await get(`jobs/${encodeURIComponent(model.job_id)}`).catch(unlessGone);
  const compared = Object.entries(job?.result ?? pruned).flatMap(([name, value]) => rows(name, value));
  return [element("h2", {}, "What pruning changed"), table("Before and after pruning", COMPARED, compared)];
}

function unlessGone(error) {
  if (error.status === 404) return null;
  throw error;
}

/** How close a model that was trained again came to its original. */
function reproduction(found) {
  if (!found) return [];
  const pairs = [
    ["verdict", found.summary],
    ["identical", found.identical ? "yes, to the bit" : "no"],
    ["within tolerance", found.within_tolerance ? "yes" : "no"],
    ["largest relative difference", found.identical ? null : shown(found.max_relative_difference, 6)],
  ];
  const differences = found.differences.map((each) => element("li", {}, each));
  return [
    element("h2", {}, "The same training once more"),
    facts(pairs),
    differences.length ? element("p", {}, "What was not as it was:") : null,
    differences.length ? element("ul", {}, differences) : null,
  ].filter(Boolean);
}

function rows(name, value) {
  if (value === null || typeof value !== "object") return [];
  if ("before" in value && "after" in value) return [{ name, ...value }];
  return Object.entries(value).flatMap(([inner, each]) => rows(`${name} ${inner}`, each));
}

const COMPARED = [
  { title: "What", value: (row) => WORDS[row.name] ?? row.name.replaceAll("_", " ") },
  { title: "Before", value: (row) => row.before, digits: (row) => places(row) },
  { title: "After", value: (row) => row.after, digits: (row) => places(row) },
];

const WORDS = {
  ap: "AP",
  gflops: "GFLOPs",
  "latency_ms onnxruntime": "latency, ONNX Runtime (ms)",
  "latency_ms openvino": "latency, OpenVINO (ms)",
  "latency_ms eager": "latency, eager (ms)",
  "latency_ms torch": "latency, torch (ms)",
  "file_bytes onnx": "file size, ONNX (bytes)",
  "file_bytes safetensors": "file size, safetensors (bytes)",
};

/** Counts are whole numbers; the rest is measured. */
const places = (row) => (row.name === "parameters" || row.name.startsWith("file_bytes") ? 0 : 4);

const metric = (name) => (row) => row.metrics?.[name];

const ANSWERS = "answers when none is named";

/** Those of a list; only classifiers have an accuracy. */
function columns(models, now) {
  const accuracy = filled([{ title: "Accuracy", value: metric("accuracy"), digits: 3 }], models);
  return [
    { title: "Model", value: (model) => [element("a", { href: `#model/${encodeURIComponent(model.id)}` }, model.name), model.is_default ? element("small", { class: "aside" }, ANSWERS) : null].filter(Boolean), long: true },
    { title: "Alias", value: (model) => model.alias, from: "medium" },
    { title: "Origin", value: (model) => model.origin, from: "wide" },
    { title: "Architecture", value: (model) => model.architecture, from: "medium" },
    { title: "Classes", value: (model) => model.classes.length, digits: 0, from: "wide" },
    { title: "AP", value: metric("ap"), digits: 3 },
    { title: "AP50", value: metric("ap50"), digits: 3, from: "wide" },
    ...accuracy,
    { title: "GFLOPs", value: (model) => model.gflops, digits: 2, from: "wide" },
    { title: "Served by", value: (model) => servedBy(model, now), long: true },
    { title: "Made", value: (model) => day(model.created_at), from: "medium" },
  ];
}

const MEASURED = [
  { title: "Split", value: (row) => row.split },
  { title: "AP", value: metric("ap"), digits: 4 },
  { title: "AP50", value: metric("ap50"), digits: 4 },
  { title: "AP75", value: metric("ap75"), digits: 4 },
  { title: "Accuracy", value: metric("accuracy"), digits: 4 },
  { title: "Passes", value: (row) => row.tta?.passes.length, digits: 0 },
  { title: "AP gained by them", value: (row) => row.tta?.difference?.ap, digits: 5 },
  { title: "Dataset", value: (row) => row.dataset_id },
  { title: "When", value: (row) => when(row.created_at) },
];

function described(model) {
  const metrics = model.metrics ?? {};
  const fraction = (name) => (metrics[name] == null ? null : shown(metrics[name], 4));
  return facts([
    ["id", model.id],
    ["alias", model.alias],
    ["default", model.is_default ? ANSWERS : null],
    ["architecture", model.architecture],
    ["origin", model.origin],
    ["classes", model.classes.length > 12 ? `${model.classes.slice(0, 12).join(", ")}, …` : model.classes.join(", ")],
    ["input", size(model.input_size)],
    ["parameters", shown(model.parameters, 0)],
    ["GFLOPs", shown(model.gflops, 2)],
    ["AP", fraction("ap")],
    ["AP50", fraction("ap50")],
    ["accuracy", fraction("accuracy")],
    ["split", metrics.split],
    ["made", when(model.created_at)],
  ]);
}
