// One thing cut out by clicks and a box, or everything in the photo.

import { $, make, pills } from "./dom.js";
import { Masks } from "./masks.js";
import * as view from "./view.js";

const DRAG_PX = 5; // with less way between press and release it was a click
const STEP = 1 / 40; // of the photo's long side, for an arrow key
const COLOUR = "#56cdf5";
const TOOLS = [["add", "Add"], ["take", "Take away"], ["box", "Box"]];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const EVERYTHING = {
  heads: ["Mask", "Score", "Area px"],
  cells: (p, i) => [String(i + 1), p.score.toFixed(2), p.area.toLocaleString("en")],
  tag: () => "",
  name: (p) => `Mask, score ${p.score.toFixed(2)}, ${p.area} pixels`,
  kind: (p) => p,
};

let host = null;
let reply = null;
let prompts = []; // in the order in which they were given: {at, label} or {box}; the last box counts
let everything = false;
let choice = 0; // of several masks, the best first
let tool = "add";
let cursor = null; // where the arrow keys have led, or null
let corner = null; // where a box was begun with the keyboard
let listening = null;
const layer = new Masks();
const overlay = make("div", { className: "prompts", ariaHidden: "true" });

// What is asked

const pointsOf = () => prompts.filter(({ at }) => at);
const boxOf = () => prompts.findLast(({ box }) => box)?.box;

function asked() {
  const [points, box] = [pointsOf(), boxOf()];
  return {
    ...(points.length && { points: JSON.stringify(points.map(({ at }) => at)), point_labels: JSON.stringify(points.map(({ label }) => label)) }),
    ...(box && { box: JSON.stringify(box) }),
    multimask: points.length === 1 && !box, // one point may mean a thing or its part; more is plain
  };
}

/** Before anything is clicked the encoder is run, which is what takes long; the click then needs the decoder only. */
const first = () => ({ points: "[[0, 0]]", multimask: false, mask_format: "none" });

function change() {
  drawPrompts();
  if (host.isOpening()) return; // what is under way is what this needs; `present` goes on
  if (prompts.length) return host.ask(asked());
  if (reply) present(reply);
  host.refresh();
  host.announce();
}

function add(prompt) {
  if (everything) clear();
  prompts.push(prompt);
  choice = 0;
  change();
}

function undo() {
  prompts.pop();
  change();
}

function clear() {
  everything = false;
  prompts = [];
  choice = 0;
}

function findEverything() {
  clear();
  everything = true;
  drawPrompts();
  host.ask({}, { quiet: false, name: "Finding everything" });
}

// What came of it

function present(answer, isFirst) {
  reply = answer;
  drawPrompts();
  $("boxes").replaceChildren();
  choices.replaceChildren();
  $("rows").hidden = true;
  if (isFirst && prompts.length) return change(); // clicked while the photo was being read
  if (everything) presentAll();
  else if (prompts.length) presentChoices();
  else {
    $("count").textContent = "Ready for a click";
    $("summary").textContent = "Click a thing on the photo, or drag a box around it. A right click takes a place away.";
    layer.show([]);
  }
}

function presentAll() {
  view.draw(reply, EVERYTHING, layer);
  const { length } = view.filter(-Infinity);
  $("count").textContent = view.counted(length, "mask");
  $("summary").textContent = length ? "Point at one to see it alone." : "Nothing passed the thresholds of the parameters.";
}

function presentChoices() {
  const { predictions, image } = reply;
  const share = ({ area }) => `${((100 * area) / (image.width * image.height)).toFixed(1)} %`;
  const words = (p) => [p.score.toFixed(2), make("small", {}, share(p))];
  const best = predictions[choice];
  if (predictions.length > 1) choices.replaceChildren(pills("choice", "Which mask", predictions.map((p, i) => [String(i), words(p)]), String(choice), pickChoice));
  $("count").textContent = best ? `Score ${best.score.toFixed(2)}` : "No mask";
  $("summary").textContent = best ? `${best.area.toLocaleString("en")} pixels, ${share(best)} of the photo` : "Try another place.";
  layer.show(best ? [{ mask: best.mask, area: best.area, colour: COLOUR, hidden: false }] : []);
}

function pickChoice(value) {
  choice = Number(value);
  presentChoices();
  choices.querySelector(":checked").focus();
  host.refresh();
  host.announce();
}

// The marks on the photo

const size = () => reply?.image ?? { width: $("picture").naturalWidth, height: $("picture").naturalHeight };

function mark(className, [x, y, right = x, bottom = y]) {
  const { width, height } = size();
  const element = make("i", { className });
  Object.assign(element.style, { left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%`, width: `${(100 * (right - x)) / width}%`, height: `${(100 * (bottom - y)) / height}%` });
  return element;
}

function drawPrompts(rubber) {
  const box = rubber ?? boxOf();
  const points = pointsOf().map(({ at, label }) => mark(label ? "dot" : "dot minus", at));
  overlay.replaceChildren(...(box ? [mark("rubber", box)] : []), ...points, ...(cursor ? [mark("cross", cursor)] : []));
  undoing.disabled = clearing.disabled = !prompts.length && !everything;
}

// The pointer

function placeOf({ clientX, clientY }) {
  const { left, top, width, height } = $("frame").getBoundingClientRect();
  const whole = size();
  const inside = (part, most) => Math.round(Math.min(Math.max(part, 0), 1) * most * 10) / 10;
  return [inside((clientX - left) / width, whole.width), inside((clientY - top) / height, whole.height)];
}

const boxBetween = ([x1, y1], [x2, y2]) => [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
const isBox = ([x1, y1, x2, y2]) => x2 - x1 >= 1 && y2 - y1 >= 1;

function press(event) {
  if (!event.isPrimary || !size().width) return;
  const from = placeOf(event);
  let box = null;
  const frame = $("frame");
  const gesture = new AbortController();
  const on = (type, listener) => frame.addEventListener(type, listener, { signal: gesture.signal });
  on("pointermove", (moved) => {
    const far = Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY) > DRAG_PX;
    if (!(far || box) || event.button === 2 || (event.pointerType === "touch" && tool !== "box")) return;
    if (!box) frame.setPointerCapture(event.pointerId);
    box = boxBetween(from, placeOf(moved));
    drawPrompts(box);
  });
  on("pointercancel", () => { // the page is being scrolled
    gesture.abort();
    drawPrompts();
  });
  on("pointerup", () => {
    gesture.abort();
    cursor = null;
    frame.focus({ preventScroll: true });
    if (box && isBox(box)) return add({ box });
    const taken = event.button === 2 || event.altKey || event.ctrlKey || tool === "take";
    if (!box && tool !== "box") add({ at: from, label: taken ? 0 : 1 });
    else drawPrompts();
  });
}

// The keyboard

function key(event) {
  if (event.target !== $("frame") || event.ctrlKey || event.metaKey || event.altKey || !size().width) return;
  const { width, height } = size();
  const acts = { Enter: place, " ": place, b: setCorner, B: setCorner, Backspace: undo, Delete: undo, Escape: startAnew };
  if (event.key in ARROWS) {
    const step = event.shiftKey ? 1 : Math.max(1, Math.max(width, height) * STEP);
    const [x, y] = cursor ?? [width / 2, height / 2];
    const [right, down] = cursor ? ARROWS[event.key] : [0, 0]; // the first arrow shows the cross
    cursor = [Math.min(Math.max(x + right * step, 0), width), Math.min(Math.max(y + down * step, 0), height)];
    drawPrompts(corner && boxBetween(corner, cursor));
  } else if (event.key in acts) acts[event.key](event);
  else return;
  event.preventDefault();
}

function place(event) {
  if (tool === "box") return setCorner();
  if (cursor) add({ at: cursor, label: event.shiftKey || tool === "take" ? 0 : 1 });
}

function setCorner() {
  if (!cursor) return;
  const box = corner && boxBetween(corner, cursor);
  corner = corner ? null : cursor;
  if (box && isBox(box)) add({ box });
}

function startAnew() {
  clear();
  cursor = corner = null;
  change();
}

// The tools

const undoing = make("button", { type: "button", className: "button small", onclick: undo }, "Undo");
const clearing = make("button", { type: "button", className: "button small", onclick: startAnew }, "Clear");
const finding = make("button", { type: "button", className: "button small", onclick: findEverything }, "Find everything");
const choices = make("div", { className: "choices" });

function pickTool(value) {
  tool = value;
  $("frame").classList.toggle("boxing", tool === "box");
}

function open(page) {
  host = page;
  listening = new AbortController();
  const { signal } = listening;
  const frame = $("frame");
  frame.tabIndex = 0;
  frame.setAttribute("role", "application");
  frame.ariaLabel = "The photo. Arrow keys move a cross, Enter puts a point there, Shift Enter takes the place away, B sets the corners of a box, Backspace undoes.";
  frame.classList.add("prompted");
  frame.append(overlay);
  layer.open();
  $("controls").prepend(choices);
  $("tools").replaceChildren(pills("tool", "A click", TOOLS, tool, pickTool), make("div", { className: "row" }, undoing, clearing, finding));
  pickTool(tool);
  frame.addEventListener("pointerdown", press, { signal });
  frame.addEventListener("keydown", key, { signal });
  frame.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && prompts.length && !event.target.closest("input:not([type=radio], [type=range])")) {
      event.preventDefault();
      undo();
    }
  }, { signal });
}

function begin() {
  clear();
  reply = cursor = corner = null;
  layer.show([]);
  drawPrompts();
}

function close() {
  listening.abort();
  layer.close();
  overlay.remove();
  const frame = $("frame");
  frame.classList.remove("prompted", "boxing");
  for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
  $("rows").hidden = true;
}



export default {
  suffix: "masks",
  // Everything is looked for, and nothing is good enough to be drawn.
  bare: { points_per_side: 1, pred_iou_thresh: 1, stability_score_thresh: 1 },
  first,
  current: () => (prompts.length ? asked() : {}),
  kept: (whole) => whole,
  again: () => (everything ? findEverything() : change()),
  picture: () => layer.picture($("picture"), size(), host.type() === "image/png" ? "image/png" : "image/jpeg"),
  open, begin, close, present,
};
