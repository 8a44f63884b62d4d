// Videos: a form that sends one, and what the job has made of it.

import { address, get, save, upload } from "./api.js";
import { element, failure, field, fileSize, note, shown } from "./elements.js";
import { percent, progressLine } from "./progress.js";

const KIND = 'video/webm; codecs="vp8"';

export async function showVideo(signal) {
  const models = await get("models?limit=100");
  const detectors = models.items.filter(({ task }) => task === "detect");
  if (!detectors.length) return [element("h1", {}, "Look at a video"), note("There is no detector yet that could.")];
  return [
    element("h1", {}, "Look at a video"),
    note("A detector looks at the frames one after the other. The result is a video with the detections drawn, and one line of JSON for each frame."),
    videoForm(detectors, signal),
  ];
}

function videoForm(detectors, signal) {
  const file = element("input", { type: "file", name: "video", accept: "video/*,.mkv,.avi", required: true });
  const fallback = detectors.find((each) => each.is_default);
  const model = element(
    "select",
    { name: "model" },
    element("option", { value: "" }, fallback ? `the default one (${fallback.name})` : "the default one"),
    detectors.map(({ id, name, alias }) => element("option", { value: id }, alias ? `${name} (${alias})` : name)),
  );
  const every = element("input", { type: "number", name: "every", min: 1, max: 10000, step: 1, value: "1", required: true });
  const threshold = element("input", { type: "number", name: "score_threshold", min: 0, max: 1, step: "any", value: "0.3", required: true });
  const button = element("button", {}, "Look at it");
  const [told, line] = [element("div"), progressLine()];
  const form = element(
    "form",
    { class: "wishes" },
    field("Video", file),
    field("Model", model),
    field("Every n-th frame", every),
    field("Lowest score", threshold),
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    told.replaceChildren();
    try {
      const job = await sent(file.files[0], [model, every, threshold], line, signal);
      location.hash = `job/${encodeURIComponent(job.id)}`;
    } catch (error) {
      told.replaceChildren(failure(error));
      line.clear();
    } finally {
      button.disabled = false;
    }
  });
  return element("div", {}, form, line.place, told);
}

function sent(file, inputs, line, signal) {
  const asked = new URLSearchParams(inputs.filter(({ value }) => value !== "").map(({ name, value }) => [name, value]));
  const body = new FormData();
  body.append("video", file);
  const tell = (fraction) => line.show(fraction < 1 ? `sending, ${percent(fraction)}` : "sent; the server looks at it", fraction);
  tell(0);
  return upload(`detect?${asked}`, body, tell, signal);
}

/** Draw what a job has made of a video. */
export async function seen(job, signal) {
  const { files, frames, detections, findings } = job.result;
  const here = `jobs/${encodeURIComponent(job.id)}`;
  const found = note(`${shown(detections, 0)} detections in ${shown(frames, 0)} frames.`);
  const links = [
    files.video ? download("Download the video", `${here}/video`, `${job.id}.webm`, files.video) : null,
    download("Download the detections, one line of JSON for each frame", `${here}/detections`, `${job.id}.ndjson`, files.detections),
  ].filter(Boolean);
  return [
    element("h2", {}, "What was seen"),
    found,
    files.video ? await player(`${here}/video`, signal) : null,
    element("ul", {}, links.map((link) => element("li", {}, link))),
    ...(findings ?? []).map(({ message }) => note(message)),
  ].filter(Boolean);
}

/** A player, or words where the browser cannot play it. */
async function player(path, signal) {
  const sorry = note("This browser cannot play the video; it can be downloaded.");
  const video = element("video", { controls: true, muted: true, preload: "metadata", "aria-label": "The video with its detections" });
  if (!video.canPlayType(KIND)) return sorry;
  video.addEventListener("error", () => video.replaceWith(sorry));
  video.src = await address(path, signal);
  return video;
}

function download(text, path, name, { size_bytes: bytes }) {
  const told = element("div");
  const begin = (event) => {
    told.replaceChildren();
    save(event).catch((error) => told.replaceChildren(failure(error)));
  };
  return [element("a", { href: path, download: name, onclick: begin }, text), ` (${fileSize(bytes)})`, told];
}
