// Which view is shown: the part of the address behind `#` says it.

import { useKey } from "./api.js";
import { element, failure } from "./elements.js";
import { showJob, showJobs } from "./jobs.js";
import { showModel, showModels } from "./models.js";
import { showVideo } from "./videos.js";

const VIEWS = { models: showModels, model: showModel, jobs: showJobs, job: showJob, video: (_, signal) => showVideo(signal) };
const view = document.getElementById("view");
const form = document.getElementById("key");
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [name, ...rest] = (location.hash.slice(1) || "models").split("/");
  const draw = VIEWS[name] ?? showModels;
  view.replaceChildren(element("p", { class: "note" }, "Loading …"));
  try {
    const drawn = await draw(rest.map(decodeURIComponent).join("/"), signal);
    if (!signal.aborted) view.replaceChildren(...drawn);
  } catch (error) {
    if (signal.aborted) return;
    form.hidden = error.status !== 401 && error.status !== 403;
    view.replaceChildren(failure(error));
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(document.getElementById("secret").value.trim());
  form.hidden = true;
  show();
});
addEventListener("hashchange", () => show().then(() => view.focus()));
show();
