// What was found: boxes or outlines over the photo and rows of the table, which light up together.

import { $, make } from "./dom.js";

const COLOURS = 10;
const TAG_ROOM_PX = 45; // with less width of the photo for each, tags would hide it
const TAG_PX = 22;

let layer = null; // the Masks of the predictions, where they have some
let shownTo = []; // what is drawn

const groups = () => [$("boxes"), $("rows").querySelector("tbody")];
const parts = (i) => groups().flatMap((group) => [...group.children]).filter((part) => i === undefined || part.dataset.i === i);

/** Each prediction's label, its colour's class, and the words of its row. */
const LABELLED = {
  heads: ["Object", "Score", "Box x₁ y₁ x₂ y₂"],
  cells: (p) => [p.label, p.score.toFixed(2), p.box.map(Math.round).join(" ")],
  tag: (p) => `${p.label} ${p.score.toFixed(2)}`,
  name: (p) => `${p.label}, score ${p.score.toFixed(2)}`,
  kind: (p) => p.label,
};

/** Boxes and rows for `reply`, in the same order, as `words` has them; their masks on `masks`, where there are any. */
export function draw({ image, predictions }, words = LABELLED, masks = null) {
  layer = masks;
  shownTo = predictions;
  const kinds = [...new Set(predictions.map(words.kind))];
  const drawn = predictions.map((p, i) => {
    const colour = `c${kinds.indexOf(words.kind(p, i)) % COLOURS}`;
    const [first, ...others] = words.cells(p, i);
    const row = make("tr", {}, make("td", {}, make("span", { className: `swatch ${colour}` }), first), ...others.map((cell) => make("td", {}, cell)));
    const tag = words.tag(p, i);
    const box = make("div", { className: `box ${colour}`, role: "img", ariaLabel: words.name(p, i) }, ...(tag ? [make("span", {}, tag)] : []));
    box.dataset.i = row.dataset.i = i;
    place(box, p.box, image);
    return [box, row];
  });
  $("rows").querySelector("thead tr").replaceChildren(...words.heads.map((head) => make("th", { scope: "col" }, head)));
  groups().forEach((group, which) => group.replaceChildren(...drawn.map((pair) => pair[which])));
  $("boxes").classList.toggle("masked", Boolean(masks));
}

function place(box, [x1, y1, x2, y2], { width, height }) {
  const [left, top, wide, high] = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height];
  Object.entries({ left, top, width: wide, height: high }).forEach(([side, part]) => { box.style[side] = `${part * 100}%`; });
  box.style.zIndex = Math.round(9999 * (1 - wide * high)); // a small box stays reachable inside a large one
  box.classList.toggle("right", left > 0.65);
}

/** A tag that would stick out over the top of the photo goes inside its box; a crowd shows its tags one by one. */
function placeTags() {
  for (const box of $("boxes").children) box.classList.toggle("inside", box.offsetTop < TAG_PX);
  $("boxes").classList.toggle("dense", visible($("boxes")).length * TAG_ROOM_PX > $("boxes").clientWidth);
}

/** Shows the predictions from `least` up; gives those. */
export function filter(least) {
  const shown = shownTo.filter((p) => p.score >= least);
  for (const part of parts()) part.hidden = shownTo[part.dataset.i].score < least;
  for (const group of groups()) rove(visible(group)[0]);
  placeTags();
  $("rows").hidden = !shown.length;
  layer?.show(shownTo.map((p, i) => ({ mask: p.mask, area: p.area, colour: colourOf(i), hidden: p.score < least })));
  return shown;
}

/** The colour of a box as its style has it: `#rrggbb`. */
const colourOf = (i) => getComputedStyle($("boxes").children[i]).getPropertyValue("--c").trim();

/** `person × 2, dog`. */
export function tally(predictions) {
  const counts = new Map();
  for (const { label } of predictions) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${label} × ${count}` : label)).join(", ");
}

/** `2 objects`, `No object`. */
export const counted = (count, thing) => `${count || "No"} ${thing}${count === 1 ? "" : "s"}`;

const visible = (group) => [...group.children].filter((part) => !part.hidden);

/** Makes `part` the one tab stop of its group. */
function rove(part) {
  if (!part) return;
  for (const other of part.parentElement.children) other.tabIndex = -1;
  part.tabIndex = 0;
}

function light(i) {
  for (const part of parts()) part.classList.toggle("on", part.dataset.i === i);
  $("boxes").classList.toggle("some", i !== undefined);
  layer?.light(i === undefined ? null : Number(i));
}

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/** Pointer, focus and arrow keys: the same for what is on the photo and for the rows. */
function listen() {
  const indexOf = (event) => event.target.closest("[data-i]")?.dataset.i ?? (event.currentTarget === $("boxes") ? layer?.at(event) : undefined);
  for (const group of groups()) {
    const focused = () => (group.contains(document.activeElement) ? document.activeElement.dataset.i : undefined);
    for (const type of ["pointerover", "pointermove"]) group.addEventListener(type, (event) => lightOnce(indexOf(event)));
    group.addEventListener("pointerleave", () => light(focused()));
    group.addEventListener("focusout", () => light());
    group.addEventListener("focusin", (event) => {
      rove(event.target);
      light(event.target.dataset.i);
    });
    group.addEventListener("click", (event) => {
      const i = indexOf(event);
      if (i === undefined) return;
      parts(i)[groups().indexOf(group)].focus({ preventScroll: true });
      $("rows").scrollTop = parts(i)[1].offsetTop - $("rows").clientHeight / 2; // the list alone
    });
    group.addEventListener("keydown", (event) => {
      const all = visible(group);
      const here = all.indexOf(event.target);
      if (!(event.key in STEPS) || here < 0) return;
      event.preventDefault();
      all[Math.min(Math.max(here + STEPS[event.key], 0), all.length - 1)].focus();
    });
  }
  new ResizeObserver(placeTags).observe($("frame"));
}

/** A pointer that stays on one thing changes nothing. */
function lightOnce(i) {
  const lit = $("boxes").querySelector(".on")?.dataset.i;
  if (lit !== i) light(i);
}

listen();
