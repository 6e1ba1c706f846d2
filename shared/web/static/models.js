// What this server can do: its tasks, the models of each, and which of them the person has picked.

import { call } from "./api.js";
import { $, make, pills } from "./dom.js";

const DETECTION = "detection";

export const TASKS = {
  [DETECTION]: {
    name: "Find objects", title: "What is in this photo?", verb: "Detect", doing: "Detecting",
    does: "The model on this server finds the objects and marks where they are.",
    load: () => import("./detection.js"),
  },
  "instance-segmentation": {
    name: "Outline objects", title: "What is in this photo?", verb: "Outline", doing: "Outlining",
    does: "The model on this server finds the objects and outlines each of them.",
    load: () => import("./instances.js"),
  },
  "promptable-segmentation": {
    name: "Cut out", title: "Cut anything out", verb: "Open", doing: "Reading the photo",
    does: "Click a thing in your photo, or draw a box around it, and the model on this server finds its outline.",
    load: () => import("./prompts.js"),
  },
  "super-resolution": {
    name: "Enlarge", title: "Make a photo larger", verb: "Enlarge", doing: "Enlarging",
    does: "The model on this server enlarges a photo and fills in what the pixels leave open.",
    load: () => import("./enlarge.js"),
  },
};

let models = null; // as GET /models lists them, the default first
let chosen = null;
let onPick = () => {};

export const list = () => models;
export const task = () => TASKS[chosen?.task ?? DETECTION];
export const model = () => chosen;
/** Where the picked model is asked. */
export const endpoint = () => (!chosen || chosen.default ? "predict" : `models/${encodeURIComponent(chosen.name)}/predict`);

export function listen(picked) {
  onPick = picked;
}

/** Asks the server what it serves, until it has told once. */
export async function learn(options) {
  if (models) return;
  const told = (await (await call("models", options)).json()).models;
  if (models) return; // asked twice at once
  models = told.filter((one) => one.task in TASKS).sort((a, b) => Boolean(b.default) - Boolean(a.default));
  pick(models[0] ?? null);
}

function pick(next) {
  chosen = next;
  const { title, does, verb } = task();
  $("title").textContent = title;
  $("does").textContent = does;
  $("go").textContent = verb;
  const names = Object.keys(TASKS).filter((name) => models.some((one) => one.task === name));
  const first = (name) => models.find((one) => one.task === name);
  const switches = names.length > 1 ? [pills("task", "Task", names.map((name) => [name, TASKS[name].name]), chosen?.task, (name) => change(first(name)))] : [];
  const same = models.filter((one) => one.task === chosen?.task);
  const options = same.map(({ name, ready, reason }) => make("option", { value: name, selected: name === chosen.name }, reason && !ready ? `${name} (not ready)` : name));
  const picker = make("select", { ariaLabel: "Model", onchange: () => change(same.find(({ name }) => name === picker.value)) }, ...options);
  const focused = document.activeElement?.name === "task";
  $("tasks").replaceChildren(...switches, ...(same.length > 1 ? [picker] : []));
  $("tasks").hidden = !$("tasks").childElementCount;
  if (focused) $("tasks").querySelector(":checked").focus();
}

function change(next) {
  pick(next);
  onPick();
}
