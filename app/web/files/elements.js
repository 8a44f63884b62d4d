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
 * Columns are `{title, value, digits, long, from}`: `value` takes a row; with `digits` it is a number, set to the right,
 * a function of the row where rows differ; a column of `long` texts may break its lines; one that is there `from` a
 * "medium" or "wide" window on is left out in smaller ones.
 */
export function table(caption, columns, rows) {
  const aligned = ({ digits, long, from }) => {
    const classes = [digits !== undefined ? "number" : long ? "long" : null, from ? `from-${from}` : null];
    return { class: classes.filter(Boolean).join(" ") || null };
  };
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

/** Put a label before what is filled in; a checkbox comes first. */
export function field(label, input) {
  const parts = input.type === "checkbox" ? [input, ` ${label}`] : [element("span", {}, label), input];
  return element("label", {}, parts);
}

export function details(title, value) {
  if (value === null || value === undefined) return null;
  return element("details", {}, element("summary", {}, title), element("pre", {}, JSON.stringify(value, null, 2)));
}

export function note(text) {
  return element("p", { class: "note" }, text);
}

export function failure(error) {
  return element("p", { class: "error", role: "alert" }, error.message);
}

/** What failed before is of no interest once something else is begun. */
export function forgetFailures() {
  for (const alert of document.querySelectorAll("#view [role=alert]")) alert.remove();
}

/** A number for people; where no digits are asked for, one below 1 keeps those that count: `0.00025`. */
export function shown(value, digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return value;
  if (digits === undefined && Math.abs(value) < 1) return value.toLocaleString("en", { maximumSignificantDigits: 4 });
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits ?? 3 });
}

export function when(time) {
  return time ? new Date(time).toLocaleString() : null;
}

/** The day in a list, with `more` the hour; all of it is told where it is pointed at. */
export function day(time, more = {}) {
  if (!time) return null;
  const told = new Date(time).toLocaleString(undefined, { dateStyle: "medium", ...more });
  return element("time", { datetime: time, title: when(time) }, told);
}

export function fileSize(bytes) {
  return bytes < 1e6 ? `${shown(Math.ceil(bytes / 1e3), 0)} kB` : `${shown(bytes / 1e6, 1)} MB`;
}

export function size(pixels) {
  return pixels ? pixels.join(" × ") : null;
}
