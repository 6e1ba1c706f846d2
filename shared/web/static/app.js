// The page: ways to give a photo, one request at a time, and what came of it. What an answer looks like is for the
// module of the picked task, which is fetched with the first photo.

import { BASE, call, Failure, imported, patiently, request } from "./api.js";
import { $, make, save } from "./dom.js";
import * as models from "./models.js";

const KEY = "thinlens-api-key";
const READY_TRIES = 90;
const AT_ONCE_MS = 700; // a request that is over by then shows no progress

let running = new AbortController(); // of the request under way
let source = null; // {name} and one of {blob}, {url}, {href}: a sample, whose blob comes later
let reply = null;
let task = null; // the module of the task whose answer is shown
let beside = null; // the module of what is told beside every answer
let opening = false; // whether the first answer for a new photo is under way
let options = null; // the module of the parameters' fields, once they are there
let doing = "";

const key = () => sessionStorage.getItem(KEY);
const state = (name) => { $("main").className = name; };
const type = () => source.blob?.type ?? "";

// One request at a time

/** Runs `steps(signal)` in the place of whatever was under way. A `quiet` one leaves the last answer in sight. */
async function work(name, steps, quiet = false) {
  running.abort();
  const mine = running = new AbortController();
  doing = name;
  $("failure").hidden = $("key-form").hidden = true;
  $("result").hidden = false;
  if (!quiet) state("busy");
  else if (reply) state("done");
  const tick = clock(quiet ? AT_ONCE_MS : 0);
  try {
    await steps(mine.signal);
  } catch (error) {
    if (!mine.signal.aborted) fail(error, () => work(name, steps, quiet));
  } finally {
    clearInterval(tick);
    if (mine === running) $("progress").hidden = true;
  }
}

/** Sends the photo with `parameters` and gives the Response; a busy server is waited for. */
function send(parameters, accept, signal) {
  const { path, headers, ...init } = request(source, models.endpoint(), { ...task.usual?.(), ...options?.chosen(), ...parameters });
  return waiting(() => call(path, { ...init, headers: { ...headers, Accept: accept }, signal, key: key() }), signal);
}

function waiting(attempt, signal) {
  const again = () => {
    $("progress-text").textContent = doing;
    return attempt();
  };
  return patiently(again, signal, (failure, left) => {
    $("progress").hidden = false;
    $("progress-text").textContent = failure.message;
    $("elapsed").textContent = `Again in ${left} s`;
  });
}

function clock(patienceMs) {
  const begun = Date.now();
  $("progress").hidden = patienceMs > 0;
  $("progress-text").textContent = doing;
  $("elapsed").textContent = "";
  return setInterval(() => {
    if (Date.now() - begun > patienceMs) $("progress").hidden = false;
    if ($("progress-text").textContent === doing) $("elapsed").textContent = `${((Date.now() - begun) / 1000).toFixed(1)} s`;
  }, 100);
}

function fail(error, retry) {
  const known = error instanceof Failure ? error : new Failure(`The answer could not be shown: ${error.message}`, { code: "page_error" });
  const facts = [known.status, known.code, known.requestId && `request ${known.requestId}`].filter(Boolean).join(" · ");
  const again = make("button", { type: "button", className: "button small", onclick: retry }, "Try again");
  state("failing");
  $("result").hidden = !$("picture").naturalWidth;
  $("failure").replaceChildren(make("strong", {}, known.message), make("p", { className: "hint" }, facts), make("p", { className: "row" }, again));
  $("failure").hidden = false;
  if (known.status !== 401) return;
  $("key-form").hidden = false;
  $("key").focus();
}

// A photo, and what is asked about it

/** A new photo, or the same one for another model. */
function take(next) {
  source = next;
  reply = null;
  task?.begin();
  show(next.blob);
  work(models.task().doing, async (signal) => {
    opening = true;
    try {
      await waiting(() => models.learn({ key: key(), signal }), signal);
      beside ??= await imported(import("./answer.js"));
      await use((await imported(models.task().load())).default, signal);
      if (next.href && !next.blob) {
        next.blob = await (await call(next.href, { signal, headers: { Accept: "image/*" } })).blob();
        signal.throwIfAborted();
        show(next.blob);
      }
      const answered = await ask(task.first(), signal);
      await shownUpright(answered.answer, signal);
      opening = false;
      present(answered, true);
    } finally {
      if (!signal.aborted) opening = false;
    }
  });
}

/** Makes `module` the task's; what the former one has put on the page goes. */
async function use(module, signal) {
  signal.throwIfAborted();
  if (module === task) return;
  task?.close();
  task = module;
  for (const name of ["controls", "tools", "boxes"]) $(name).replaceChildren();
  task.open({ ask: askAgain, refresh, announce, type, isOpening: () => opening, schema: (name) => models.model()?.parameters?.properties[name] });
  task.begin();
}

async function ask(parameters, signal) {
  const begun = performance.now();
  const answer = await (await send(parameters, "application/json", signal)).json();
  signal.throwIfAborted();
  return { answer, roundTripMs: performance.now() - begun };
}

/** What a task asks beyond its first question: the same photo, other parameters. */
function askAgain(parameters, { quiet = true, name = models.task().doing } = {}) {
  work(name, async (signal) => present(await ask(parameters, signal)), quiet);
}

/** The same photo under other parameters of the person's. */
function again() {
  if (source && !opening && reply && task.again) task.again();
  else if (source) take(source);
}

// The picture

function show(blob) {
  const picture = $("picture");
  URL.revokeObjectURL(picture.src);
  if (blob) picture.src = URL.createObjectURL(blob);
  else picture.removeAttribute("src");
  picture.alt = source.name;
  $("caption").textContent = source.name;
  frame(0, 0);
  picture.decode().then(() => frame(picture.naturalWidth, picture.naturalHeight), () => {});
}

function frame(width, height) {
  $("frame").classList.toggle("bare", !width);
  $("frame").style.aspectRatio = width ? `${width} / ${height}` : "";
  $("frame").style.width = width ? `min(100%, ${(72 * width) / height}vh, ${width * 3}px)` : "";
}

/** Has the photo in the same upright pixels that the answer is in. An address (the page loads nothing from elsewhere),
 * or a format that no browser shows, comes from the server, asked so that it draws nothing on it. */
async function shownUpright({ image: { width, height } }, signal) {
  await $("picture").decode().catch(() => {});
  if (!task.bare || ($("picture").naturalWidth === width && $("picture").naturalHeight === height)) return;
  const picture = await send(task.bare, "image/jpeg", signal);
  show(await picture.blob());
  await $("picture").decode().catch(() => {});
}

// The answer

function present({ answer, roundTripMs }, isFirst = false) {
  reply = answer;
  const { width, height } = reply.image;
  frame(width, height);
  $("caption").textContent = `${source.name} · ${width} × ${height}`;
  $("boxes").replaceChildren();
  $("notes").replaceChildren(...notes().map((note) => make("li", {}, note)));
  state("done");
  task.present(reply, isFirst);
  beside.time(reply.timings_ms, roundTripMs, reply.cold_start);
  refresh();
  announce();
  const { top } = $("result").getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.4) $("result").scrollIntoView();
}

const notes = () => [...(reply.notes ?? []), ...(reply.render_factor ? [`render factor ${reply.render_factor}`] : [])];

/** After what can change the same call from a terminal. */
function refresh() {
  if (reply) $("curl").textContent = beside.curl(source, models.endpoint(), { ...options?.chosen(), ...task.current() }, key());
}

const announce = () => { $("announce").textContent = reply && `${$("count").textContent}: ${$("summary").textContent}`; };

const named = (ending) => `${source.name.replace(/\.\w+$/, "")}${ending}`;

function downloadReply() {
  save(new Blob([JSON.stringify(task.kept(reply), null, 2)], { type: "application/json" }), named(".json"));
}

/** The picture of the answer: the task's own, or the one that the server draws. */
async function downloadPicture() {
  const made = await task.picture?.();
  if (made) return save(made, named(`-${task.suffix}.${made.type.split("/")[1]}`));
  const form = type() === "image/png" ? "png" : "jpeg";
  work("Drawing", async (signal) => {
    const drawn = await (await send(task.current(), `image/${form}`, signal)).blob();
    signal.throwIfAborted();
    save(drawn, named(`-${task.suffix}.${form}`));
  }, true);
}

// Ways to give a photo

const takeBlob = (blob) => take({ blob, name: blob.name ?? "photo.jpg" });

function takeUrl(text) {
  $("url").value = text;
  take({ url: text, name: text.split(/[?#]/)[0].split("/").pop() || text });
}

function takeTransfer(data) {
  if (data.files.length) return takeBlob(data.files[0]);
  const text = (data.getData("text/uri-list") || data.getData("text/plain")).trim();
  if (/^https?:\/\/\S+$/i.test(text)) takeUrl(text);
}

function listen() {
  const on = (id, type, listener) => $(id).addEventListener(type, listener);
  on("file", "change", () => {
    const [file] = $("file").files;
    if (file) takeBlob(file);
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
    take({ href: link.href, name: link.href.split("/").pop() });
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
  on("cancel", "click", () => {
    running.abort();
    opening = false;
    $("progress").hidden = true;
    fail(new Failure("Cancelled.", { code: "cancelled" }), () => take(source));
  });
  on("copy", "click", () => beside.copy());
  on("download", "click", downloadReply);
  on("download-picture", "click", downloadPicture);
  on("key-form", "submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("key").value.trim());
    $("key").value = "";
    keyChanged();
    if (source) take(source);
  });
  on("forget", "click", () => {
    sessionStorage.removeItem(KEY);
    keyChanged();
  });
  on("options", "toggle", showOptions);
  on("camera", "click", async () => (await import("./camera.js")).open(takeBlob));
  models.listen(async () => {
    await fields();
    if (source) take(source);
  });
}

// The server

function keyChanged() {
  $("forget").hidden = !key();
  refresh();
}

async function showOptions() {
  if (options || !$("options").open) return;
  try {
    await models.learn({ key: key() });
    options = await import("./options.js");
    await fields();
  } catch (error) {
    options = null;
    $("parameters").replaceChildren(error.message);
  }
}

/** The fields of the picked model. One that could not tell its parameters yet is asked again. */
async function fields() {
  if (!options) return;
  const model = models.model();
  if (model && !model.parameters) {
    const told = await call(`models/${encodeURIComponent(model.name)}`, { key: key() }).catch(() => null);
    Object.assign(model, await told?.json());
  }
  options.build(model, again);
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
models.learn({ key: key() }).catch(() => {}).finally(watch); // without a key, or a network, the first photo asks again
