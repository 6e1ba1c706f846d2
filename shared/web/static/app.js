// The page: ways to give a photo, one request at a time, and what came of it.

import { BASE, call, curl, Failure, patiently, request } from "./api.js";
import * as view from "./view.js";

const { $, make } = view;
const LEAST = 0.05; // asked of the server once; the slider filters from there without asking again
const KEY = "thinlens-api-key";
const READY_TRIES = 90;
const DETECTING = "Detecting";

let running = new AbortController(); // of the request under way
let source = null; // {name} and one of {blob}, {url}, {href}: a sample, whose blob comes later
let reply = null;
let options = null; // the module, once its fields are there

const key = () => sessionStorage.getItem(KEY);
const least = () => Number($("score").value);
const state = (name) => { $("main").className = name; };

function target() {
  const { model, parameters } = options?.chosen() ?? {};
  return [model ? `models/${encodeURIComponent(model)}/predict` : "predict", parameters];
}

// One request

async function detect(next) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  source = next;
  reply = null;
  $("failure").hidden = $("key-form").hidden = true;
  $("result").hidden = $("progress").hidden = false;
  $("boxes").replaceChildren();
  state("busy");
  const tick = clock();
  try {
    if (next.href) next.blob = await (await call(next.href, { signal, headers: { Accept: "image/*" } })).blob();
    show(next.blob);
    const begun = performance.now();
    const response = await ask(LEAST, "application/json", signal);
    const answer = await response.json();
    const roundTripMs = performance.now() - begun;
    if (!(await isShownUpright(answer.image))) {
      // An address (the page loads nothing from elsewhere), or a format that no browser shows. At threshold 1
      // the server draws nothing on its picture, so the boxes here stay live.
      const picture = await ask(1, "image/jpeg", signal);
      show(await picture.blob());
    }
    signal.throwIfAborted();
    reply = answer;
    present(roundTripMs);
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    clearInterval(tick);
    if (signal === running.signal) $("progress").hidden = true;
  }
}

function ask(threshold, accept, signal) {
  const [endpoint, parameters] = target();
  const { path, headers, ...init } = request(source, endpoint, { ...parameters, score_threshold: threshold });
  const attempt = () => {
    $("progress-text").textContent = DETECTING;
    return call(path, { ...init, headers: { ...headers, Accept: accept }, signal, key: key() });
  };
  return patiently(attempt, signal, (failure, left) => {
    $("progress-text").textContent = failure.message;
    $("elapsed").textContent = `Again in ${left} s`;
  });
}

function clock() {
  const begun = Date.now();
  $("progress-text").textContent = DETECTING;
  $("elapsed").textContent = "";
  return setInterval(() => {
    if ($("progress-text").textContent === DETECTING) $("elapsed").textContent = `${((Date.now() - begun) / 1000).toFixed(1)} s`;
  }, 100);
}

function fail(error) {
  const known = error instanceof Failure ? error : new Failure(`The answer could not be shown: ${error.message}`, { code: "page_error" });
  const facts = [known.status, known.code, known.requestId && `request ${known.requestId}`].filter(Boolean).join(" · ");
  const again = make("button", { type: "button", className: "button small", onclick: () => detect(source) }, "Try again");
  state("failing");
  $("result").hidden = !$("picture").naturalWidth;
  $("failure").replaceChildren(make("strong", {}, known.message), make("p", { className: "hint" }, facts), make("p", { className: "row" }, again));
  $("failure").hidden = false;
  if (known.status !== 401) return;
  $("key-form").hidden = false;
  $("key").focus();
}

// The picture

function show(blob) {
  const picture = $("picture");
  URL.revokeObjectURL(picture.src);
  if (blob) picture.src = URL.createObjectURL(blob);
  else picture.removeAttribute("src");
  picture.alt = $("caption").textContent = source.name;
  frame(0, 0);
  picture.decode().then(() => frame(picture.naturalWidth, picture.naturalHeight), () => {});
}

function frame(width, height) {
  $("frame").classList.toggle("bare", !width);
  $("frame").style.aspectRatio = width ? `${width} / ${height}` : "";
  $("frame").style.width = width ? `min(100%, ${(72 * width) / height}vh, ${width * 3}px)` : "";
}

/** Whether the browser shows the photo in the same upright pixels that the boxes are in. */
async function isShownUpright({ width, height }) {
  await $("picture").decode().catch(() => {});
  return $("picture").naturalWidth === width && $("picture").naturalHeight === height;
}

// The answer

function present(roundTripMs) {
  const { width, height } = reply.image;
  frame(width, height);
  $("caption").textContent = `${source.name} · ${width} × ${height}`;
  state("done");
  view.draw(reply);
  view.time(reply.timings_ms, roundTripMs, reply.cold_start);
  $("notes").replaceChildren(...(reply.notes ?? []).map((note) => make("li", {}, note)));
  refresh();
  announce();
  const { top } = $("result").getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.4) $("result").scrollIntoView();
}

function refresh() {
  $("score-text").textContent = least().toFixed(2);
  if (!reply) return;
  view.filter(reply.predictions, least());
  const [endpoint, parameters] = target();
  $("curl").textContent = curl(source, endpoint, { ...parameters, score_threshold: least() }, key());
}

const announce = () => { $("announce").textContent = reply && `${$("count").textContent}: ${$("summary").textContent}`; };

function download() {
  const shown = { ...reply, predictions: reply.predictions.filter((p) => p.score >= least()) };
  const href = URL.createObjectURL(new Blob([JSON.stringify(shown, null, 2)], { type: "application/json" }));
  make("a", { href, download: `${source.name.replace(/\.\w+$/, "")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

async function copy() {
  const copied = await navigator.clipboard?.writeText($("curl").textContent).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren($("curl")); // no clipboard on plain http
  $("copied").textContent = copied ? "Copied" : "Selected: press Ctrl C";
  setTimeout(() => { $("copied").textContent = ""; }, 4000);
}

// Ways to give a photo

const take = (blob) => detect({ blob, name: blob.name ?? "photo.jpg" });

function takeUrl(text) {
  $("url").value = text;
  detect({ url: text, name: text.split(/[?#]/)[0].split("/").pop() || text });
}

function takeTransfer(data) {
  if (data.files.length) return take(data.files[0]);
  const text = (data.getData("text/uri-list") || data.getData("text/plain")).trim();
  if (/^https?:\/\/\S+$/i.test(text)) takeUrl(text);
}

function listen() {
  const on = (id, type, listener) => $(id).addEventListener(type, listener);
  on("file", "change", () => {
    const [file] = $("file").files;
    if (file) take(file);
    $("file").value = "";
  });
  on("source", "submit", (event) => {
    event.preventDefault();
    const text = $("url").value.trim();
    if (text) takeUrl(text);
    else $("url").focus();
  });
  on("samples", "dragstart", (event) => event.preventDefault());
  on("samples", "click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    detect({ href: link.href, name: link.href.split("/").pop() });
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length || !event.target.closest("input")) takeTransfer(event.clipboardData);
  });
  const dropping = (shown) => (event) => {
    event.preventDefault();
    if (event.type !== "dragleave" || !event.relatedTarget) $("drop").hidden = !shown;
    if (event.type === "drop") takeTransfer(event.dataTransfer);
  };
  document.addEventListener("dragover", dropping(true));
  document.addEventListener("dragleave", dropping(false));
  document.addEventListener("drop", dropping(false));
  on("score", "input", refresh);
  on("score", "change", announce);
  on("cancel", "click", () => {
    running.abort();
    fail(new Failure("Cancelled.", { code: "cancelled" }));
  });
  on("copy", "click", copy);
  on("download", "click", download);
  on("key-form", "submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("key").value.trim());
    $("key").value = "";
    keyChanged();
    if (source) detect(source);
  });
  on("forget", "click", () => {
    sessionStorage.removeItem(KEY);
    keyChanged();
  });
  on("options", "toggle", showOptions);
  on("camera", "click", async () => (await import("./camera.js")).open(take));
  view.listen();
}

// The server

function keyChanged() {
  $("forget").hidden = !key();
  refresh();
}

async function showOptions() {
  if (options || !$("options").open) return;
  try {
    const { models } = await (await call("models", { key: key() })).json();
    const loaded = await import("./options.js");
    loaded.build(models.filter(({ task }) => task === "detection"), () => { if (source) detect(source); });
    options = loaded;
  } catch (error) {
    $("parameters").replaceChildren(error.message);
  }
}

const STATES = { cold: "Starting", warming: "Loading the model", at_capacity: "Busy", broken: "The model does not work" };

/** Asking is also what makes a cold server load its model, while a photo is being chosen. */
async function watch() {
  for (let tries = 0, again = true; again && tries < READY_TRIES; tries++) {
    const response = await fetch(new URL("ready", BASE)).catch(() => null);
    const said = (await response?.json().catch(() => null)) ?? {};
    const now = response?.ok ? "ready" : (said.state ?? "offline");
    $("status").dataset.state = now;
    $("status-text").textContent = now === "ready" ? "Ready" : (STATES[now] ?? "The server cannot be reached") + (now === "broken" && said.reason ? `: ${said.reason}` : "");
    again = ["cold", "warming", "at_capacity"].includes(now);
    if (again) await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

listen();
keyChanged();
watch();
