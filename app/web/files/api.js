// Calls of the public API, by relative address so that they work below any prefix.

const KEY = "harrier-key";

/** What the API answered instead of what was asked for; `message` is written for people. */
export class ApiError extends Error {
  constructor(status, problem) {
    const faults = problem.errors ?? [];
    const detail = problem.detail ?? problem.title ?? `the server answered ${status}`;
    const places = faults.map((fault) => `${fault.pointer}: ${fault.problem}`).filter((place) => !detail.includes(place));
    super(status === 401 ? keyFault() : [detail, ...places].join("\n"));
    this.status = status;
    this.faults = faults;
    this.code = problem.code;
  }
}

export function useKey(secret) {
  sessionStorage.setItem(KEY, secret);
}

export const get = (path) => call("GET", path);
export const getText = (path) => ask("GET", path, undefined, "text/plain").then((answer) => answer.text());
export const post = (path, body) => call("POST", path, body);
export const patch = (path, body) => call("PATCH", path, body);

async function call(method, path, body) {
  return (await ask(method, path, body, "application/json")).json();
}

async function ask(method, path, body, kind) {
  const headers = { Accept: kind, ...proof() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

function proof() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Who sits before the page has no headers to send, of which the API speaks. */
function keyFault() {
  return sessionStorage.getItem(KEY) ? "This key is not valid" : "Enter an API key";
}

/**
 * Return an address under which a player finds a file of the API.
 * Only with a key must it be fetched first, for a player cannot send one; it is given up when `signal` says so.
 */
export async function address(path, signal) {
  if (!proof().Authorization) return path;
  const made = await fetched(path);
  const giveUp = () => URL.revokeObjectURL(made);
  if (signal.aborted) giveUp(); // while it came
  else signal.addEventListener("abort", giveUp);
  return made;
}

/** Save a file of the API that a link leads to: without a key the browser does it, with one it cannot. Rejects when it does not come. */
export async function save(event) {
  const link = event.currentTarget;
  if (!proof().Authorization || link.protocol === "blob:") return;
  event.preventDefault();
  const path = link.getAttribute("href");
  link.href = await fetched(path);
  link.click();
  URL.revokeObjectURL(link.href);
  link.setAttribute("href", path);
}

async function fetched(path) {
  return URL.createObjectURL(await (await ask("GET", path, undefined, "*/*")).blob());
}

/** Send a form with a file; `sent` is told the fraction that is on its way. `fetch` would not tell. */
export function upload(path, form, sent, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    for (const [name, value] of Object.entries({ Accept: "application/json", ...proof() })) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => sent(total ? loaded / total : 0));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request.response);
      else reject(new ApiError(request.status, request.response ?? {}));
    });
    request.addEventListener("error", () => reject(new Error("the connection ended before the server had everything")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Follow a job until it has ended; `show` is told whenever something about it may have changed. */
export async function follow(jobId, show, { everyMs = 1000, signal } = {}) {
  for (;;) {
    const job = await get(`jobs/${encodeURIComponent(jobId)}`);
    if (signal?.aborted) return job;
    show(job);
    if (["succeeded", "failed", "cancelled"].includes(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
