// What a plan has measured: each way to serve, which one was pinned, and why the others were not.

import { element, facts, note, shown, table, when } from "./elements.js";

/** A way to serve in words: `openvino:bf16, 2 streams of 1 thread, batches of 1`. */
export function wayToServe(shape) {
  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  const streams = `${counted(shape.streams, "stream")} of ${counted(shape.threads, "thread")}`;
  return `${executor(shape)}, ${streams}, batches of ${shape.batch_size}`;
}

export const executor = (shape) => `${shape.backend}:${shape.precision}`;

/** Draw a plan, the most images a second first; `pinnedNow` is what serves the model by now, where that is known. */
export function planned(plan, pinnedNow = plan.pinned) {
  const rows = plan.rows.toSorted((a, b) => b.pictures_per_s - a.pictures_per_s);
  return element(
    "div",
    {},
    facts([
      ["outcome", outcome(plan, pinnedNow)],
      ["wished for", wishes(plan.wish)],
      ["measured on", `${plan.device}: ${plan.processor}, ${shown(plan.cores, 0)} cores`],
      ["pictures", shown(plan.pictures, 0)],
      ["when", when(plan.made_at)],
    ]),
    ...[plan.beside, ...plan.unmet].filter(Boolean).map((each) => note(each)),
    table("Ways to serve", [...COLUMNS, { title: "Outcome", value: (row) => mark(row, plan, pinnedNow), long: true }], rows),
  );
}

/** What stands in columns of their own where there is room. */
const inShort = (row) => `${row.streams} × ${row.threads}, batches of ${row.batch_size}`;

const COLUMNS = [
  { title: "Backend", value: (row) => [executor(row), element("small", { class: "narrow" }, inShort(row))] },
  { title: "Streams", value: (row) => `${row.streams} × ${row.threads}`, from: "medium" },
  { title: "Batch", value: (row) => row.batch_size, digits: 0, from: "medium" },
  { title: "Images/s", value: (row) => row.pictures_per_s, digits: 1 },
  { title: "p95, ms", value: (row) => row.p95_ms, digits: 1 },
  { title: "Alone, ms", value: (row) => row.alone_p50_ms, digits: 1, from: "wide" },
  { title: "AP", value: (row) => row.ap, digits: 4, from: "medium" },
];

const PARTS = ["backend", "precision", "streams", "threads", "batch_size"];
const isSame = (row, other) => other !== null && PARTS.every((name) => row[name] === other[name]);

function mark(row, plan, pinnedNow) {
  if (isSame(row, pinnedNow)) return element("strong", {}, "pinned");
  if (isSame(row, plan.pinned)) return "was pinned then";
  if (isSame(row, plan.winner)) return element("strong", {}, "the best; not to be pinned");
  return row.why_not ?? (row.agrees ? null : "differs from the reference");
}

function outcome(plan, pinnedNow) {
  if (plan.pinned) return `${wayToServe(plan.pinned)} was pinned${isSame(plan.pinned, pinnedNow) ? "" : ", and is not any more"}`;
  if (plan.winner) return `the best is ${wayToServe(plan.winner)}; nothing was pinned`;
  return plan.closest ? `nothing was pinned; closest is ${wayToServe(plan.closest)}` : "nothing was pinned";
}

function wishes({ p95_ms: p95, rps, max_ap_drop: drop }) {
  const parts = [p95 === null ? null : `p95 within ${p95} ms`, rps === null ? null : `${rps} images a second`, `at most ${drop} AP less`];
  return parts.filter(Boolean).join(", ");
}
