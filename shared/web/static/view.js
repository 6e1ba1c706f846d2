// Predictions on the page: boxes over the photo, rows of the table, and the time that each stage took.

export const $ = (id) => document.getElementById(id);
const COLOURS = 10;
const TAG_ROOM_PX = 45; // with less width of the photo for each, tags would hide it
const TAG_PX = 22;

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const groups = () => [$("boxes"), $("rows").querySelector("tbody")];
const parts = (i) => groups().flatMap((group) => [...group.children]).filter((part) => i === undefined || part.dataset.i === i);

/** Boxes and rows for `reply`, in the same order; row i and box i light up together. */
export function draw({ image, predictions }) {
  const labels = [...new Set(predictions.map((p) => p.label))];
  const drawn = predictions.map((p, i) => {
    const colour = `c${labels.indexOf(p.label) % COLOURS}`;
    const score = p.score.toFixed(2);
    const swatch = make("span", { className: `swatch ${colour}` });
    const row = make("tr", {}, make("td", {}, swatch, p.label), make("td", {}, score), make("td", {}, p.box.map(Math.round).join(" ")));
    const box = make("div", { className: `box ${colour}`, role: "img", ariaLabel: `${p.label}, score ${score}` }, make("span", {}, `${p.label} ${score}`));
    box.dataset.i = row.dataset.i = i;
    place(box, p.box, image);
    return [box, row];
  });
  groups().forEach((group, which) => group.replaceChildren(...drawn.map((pair) => pair[which])));
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

/** Shows the predictions from `least` up, and says how many they are. */
export function filter(predictions, least) {
  for (const part of parts()) part.hidden = predictions[part.dataset.i].score < least;
  for (const group of groups()) rove(visible(group)[0]);
  const counts = new Map();
  const shown = predictions.filter((p) => p.score >= least);
  for (const { label } of shown) counts.set(label, (counts.get(label) ?? 0) + 1);
  const fainter = predictions.length - shown.length;
  placeTags();
  $("rows").hidden = !shown.length;
  $("count").textContent = `${shown.length || "No"} object${shown.length === 1 ? "" : "s"}`;
  $("summary").textContent = [...counts].map(([label, count]) => (count > 1 ? `${label} × ${count}` : label)).join(", ")
    || (fainter ? `Below this score: ${fainter} more.` : "The model found nothing that it knows.");
}

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
}

const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/** Pointer, focus and arrow keys: the same for the boxes and for the rows. */
export function listen() {
  const partOf = (event) => event.target.closest("[data-i]");
  for (const group of groups()) {
    const focused = () => (group.contains(document.activeElement) ? document.activeElement.dataset.i : undefined);
    group.addEventListener("pointerover", (event) => light(partOf(event)?.dataset.i));
    group.addEventListener("pointerleave", () => light(focused()));
    group.addEventListener("focusout", () => light());
    group.addEventListener("focusin", (event) => {
      rove(partOf(event));
      light(partOf(event)?.dataset.i);
    });
    group.addEventListener("click", (event) => {
      const part = partOf(event);
      part?.focus({ preventScroll: true });
      if (part) $("rows").scrollTop = parts(part.dataset.i)[1].offsetTop - $("rows").clientHeight / 2; // the list alone
    });
    group.addEventListener("keydown", (event) => {
      const all = visible(group);
      const here = all.indexOf(partOf(event));
      if (!(event.key in STEPS) || here < 0) return;
      event.preventDefault();
      all[Math.min(Math.max(here + STEPS[event.key], 0), all.length - 1)].focus();
    });
  }
  new ResizeObserver(placeTags).observe($("frame"));
}

const duration = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`);

export function time({ total, ...stages }, roundTripMs, cold) {
  const known = Object.entries(stages);
  const other = total - known.reduce((sum, [, ms]) => sum + ms, 0);
  if (other > total / 20) known.push(["other", other]);
  $("total").textContent = duration(total ?? roundTripMs);
  $("cold").hidden = !cold;
  $("bar").replaceChildren(...known.map(([, ms], i) => {
    const part = make("i", { className: `s${i % 6}` });
    part.style.flexGrow = Math.max(ms, 0.001);
    return part;
  }));
  $("timings").replaceChildren(...[...known, ["round trip", roundTripMs]].map(([name, ms], i) => {
    const swatch = i < known.length ? [make("span", { className: `swatch s${i % 6}` })] : [];
    return make("div", {}, make("dt", {}, ...swatch, name.replaceAll("_", " ")), make("dd", {}, duration(ms)));
  }));
}
