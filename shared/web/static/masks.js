// Masks over the photo: COCO's compressed run lengths, painted on a canvas in the pixels of the screen.

import { $, make } from "./dom.js";

const MOST_PIXELS = 2_500_000; // of the canvas: a dense screen shows no more than that anyway
const HALO = 0x70000000; // around an outline, so that it stands out on any ground; colours are 0xAABBGGRR

/** The run lengths in COCO's compressed string: pixels outside and inside by turns, column by column (rleFrString of
 * cocoapi's maskApi.c: five bits a character, from the lowest up, the first three as they are and the others as the
 * difference from the one before the last). */
export function runLengths(text) {
  const runs = [];
  for (let at = 0; at < text.length;) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** Puts `id` wherever the mask is into `ids`, `width` x `height` row by row, which may be of another size than the mask:
 * each of its pixels takes what lies under its middle. */
export function rasterise({ size: [high, wide], counts }, ids, width, height, id) {
  const across = (x) => Math.ceil((x * width) / wide - 0.5);
  const down = (y) => Math.ceil((y * height) / high - 0.5);
  const column = (x, from, to) => {
    const [top, bottom] = [down(from), down(to)];
    for (let left = across(x), right = across(x + 1); left < right; left++) {
      for (let y = top; y < bottom; y++) ids[y * width + left] = id;
    }
  };
  let at = 0;
  runLengths(counts).forEach((length, turn) => {
    const end = at + length;
    for (; turn % 2 && at < end; at = Math.min(end, at - (at % high) + high)) {
      const x = Math.floor(at / high);
      column(x, at - x * high, Math.min(end - x * high, high));
    }
    at = end;
  });
}

const abgr = (hex, alpha) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return ((Math.round(alpha * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
};

/** Fills the masks of `ids` into `pixels`: their colours with `alpha`, an opaque line `thick` pixels wide along their
 * edges, and a dark one outside it. */
function fill(pixels, ids, width, height, colours, alpha, thick) {
  const inner = colours.map((colour) => abgr(colour, alpha));
  const line = colours.map((colour) => abgr(colour, Math.max(alpha, 0.95)));
  const other = (x, y, id) => x >= 0 && y >= 0 && x < width && y < height && ids[y * width + x] !== id;
  const around = (x, y, id, by) => other(x - by, y, id) || other(x + by, y, id) || other(x, y - by, id) || other(x, y + by, id);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const id = ids[at];
      if (id) pixels[at] = around(x, y, id, thick) ? line[id - 1] : inner[id - 1];
      else if (around(x, y, 0, 1)) pixels[at] = HALO;
    }
  }
}

/** The masks of one answer: small ones over large ones; one may be lit. */
export class Masks {
  #canvas = make("canvas", { className: "masks", ariaHidden: "true" });
  #slider = make("input", { type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: 0.45 });
  #said = make("output", {});
  #masks = [];
  #ids = new Uint16Array(0);
  #lit = null;
  #watch = new ResizeObserver(() => this.#redraw());
  #drawing = 0;

  open() {
    $("frame").insertBefore(this.#canvas, $("boxes"));
    $("controls").append(make("div", { className: "slider" }, make("label", { htmlFor: "opacity" }, "Masks"), this.#said, this.#slider));
    this.#slider.oninput = () => this.#soon();
    this.#watch.observe($("frame"));
    this.show([]);
  }

  close() {
    this.#watch.disconnect();
    this.#canvas.remove();
    $("boxes").classList.remove("masked");
  }

  /** Draws `masks`: {mask, area, colour, hidden} each. */
  show(masks) {
    this.#masks = masks;
    this.#lit = null;
    this.#redraw();
  }

  /** Brings out one mask by its place; null for none. */
  light(i) {
    this.#lit = i;
    this.#soon();
  }

  /** The place, as text, of the mask under the pointer; undefined where there is none. */
  at({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const x = Math.floor(((clientX - left) / width) * this.#canvas.width);
    const y = Math.floor(((clientY - top) / height) * this.#canvas.height);
    const inside = x >= 0 && y >= 0 && x < this.#canvas.width && y < this.#canvas.height;
    const id = inside ? this.#ids[y * this.#canvas.width + x] : 0;
    return id ? String(id - 1) : undefined;
  }

  /** What is seen, in the photo's own pixels, drawn on it. */
  async picture(photo, { width, height }, type) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const masks = document.createElement("canvas");
    Object.assign(masks, { width, height });
    this.#paint(masks, this.#order(width, height), Math.max(1, Math.round(Math.max(width, height) / 600)), null);
    const context = canvas.getContext("2d");
    for (const each of [photo, masks]) context.drawImage(each, 0, 0, width, height);
    return new Promise((done) => canvas.toBlob(done, type, 0.92));
  }

  #order(width, height) {
    const ids = new Uint16Array(width * height);
    const shown = this.#masks.map((one, i) => ({ ...one, id: i + 1 })).filter(({ mask, hidden }) => mask && !hidden);
    for (const { mask, id } of shown.sort((a, b) => b.area - a.area)) rasterise(mask, ids, width, height, id);
    return ids;
  }

  #redraw() {
    const { clientWidth, clientHeight } = $("frame");
    const dense = Math.min(devicePixelRatio, Math.sqrt(MOST_PIXELS / Math.max(1, clientWidth * clientHeight)));
    this.#canvas.width = Math.max(1, Math.round(clientWidth * dense));
    this.#canvas.height = Math.max(1, Math.round(clientHeight * dense));
    this.#ids = this.#order(this.#canvas.width, this.#canvas.height);
    this.#soon();
  }

  /** Painting waits for the screen: a pointer may light several in one frame. */
  #soon() {
    this.#said.textContent = `${Math.round(this.#slider.value * 100)} %`;
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => this.#paint(this.#canvas, this.#ids, Math.max(1, Math.round(devicePixelRatio * 1.5)), this.#lit));
  }

  #paint(canvas, ids, thick, place) {
    const { width, height } = canvas;
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = this.#masks.map(({ colour }) => colour);
    const lit = this.#masks[place];
    const alpha = Number(this.#slider.value);
    if (this.#masks.length) fill(pixels, ids, width, height, colours, lit ? alpha / 3 : alpha, thick);
    if (lit?.mask && !lit.hidden) {
      const own = new Uint16Array(width * height);
      rasterise(lit.mask, own, width, height, 1);
      fill(pixels, own, width, height, [lit.colour], Math.min(1, alpha + 0.2), thick * 2);
    }
    context.putImageData(image, 0, 0);
  }
}
