// Pieces of the page. Text always goes in as text: names of classes and models are whatever somebody typed.

/** Make an element; a child that is no element becomes text, one that is null is left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * Draw rows as a table.
 * Columns are `{title, value, digits, long}`: `value` takes a row; with `digits` it is a number, set to the right,
 * a function of the row where rows differ; a column of `long` texts may break its lines.
 */
export function table(caption, columns, rows) {
  const aligned = ({ digits, long }) => ({ class: digits !== undefined ? "number" : long ? "long" : null });
  const digits = (column, row) => (typeof column.digits === "function" ? column.digits(row) : column.digits);
  const head = columns.map((column) => element("th", { scope: "col", ...aligned(column) }, column.title));
  const body = rows.map((row) =>
    element("tr", {}, columns.map((column) => element("td", aligned(column), shown(column.value(row), digits(column, row))))),
  );
  return element(
    "div",
    { class: "scroll" },
    element("table", { "aria-label": caption }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)),
  );
}

/** Return the columns in which some row has a value. */
export function filled(columns, rows) {
  return columns.filter(({ value }) => rows.some((row) => value(row) !== null && value(row) !== undefined));
}

/** Draw `[name, value]` pairs; what is not known is left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", {}, known.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export function note(text) {
  return element("p", { class: "note" }, text);
}

export function failure(error) {
  return element("p", { class: "error", role: "alert" }, error.message);
}

export function shown(value, digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return value;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits ?? 3 });
}

export function when(time) {
  return time ? new Date(time).toLocaleString() : null;
}

export function size(pixels) {
  return pixels ? pixels.join(" × ") : null;
}
