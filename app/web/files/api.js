// Calls of the public API, by relative address so that they work below any prefix.

const KEY = "harrier-key";

/** What the API answered instead of what was asked for; `message` is written for people. */
export class ApiError extends Error {
  constructor(status, problem) {
    const places = (problem.errors ?? []).map((fault) => `${fault.pointer}: ${fault.problem}`);
    super([problem.detail ?? problem.title ?? `the server answered ${status}`, ...places].join("\n"));
    this.status = status;
    this.code = problem.code;
  }
}

export function useKey(secret) {
  sessionStorage.setItem(KEY, secret);
}

export const get = (path) => call("GET", path);
export const getText = (path) => ask("GET", path, undefined, "text/plain").then((answer) => answer.text());
export const post = (path, body) => call("POST", path, body);

async function call(method, path, body) {
  return (await ask(method, path, body, "application/json")).json();
}

async function ask(method, path, body, kind) {
  const headers = { Accept: kind };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new ApiError(answer.status, await answer.json().catch(() => ({})));
  return answer;
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
