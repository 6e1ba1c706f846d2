// The photo enlarged: beside it, behind a line that can be moved, what plain bicubic interpolation makes of it.

import { $, make, pills } from "./dom.js";

const FALLBACK_SCALES = [2, 3, 4, 8];

let host = null;
let reply = null;
let enlarged = null; // the Blob
let urls = [];
let scale = null;

const before = make("img", { className: "before" });
const after = make("img", { className: "after" });
const sheet = make("div", { className: "sheet" }, before, after);
const scroll = make("div", { className: "scroll" }, sheet);
const divider = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0.5, ariaLabel: "Where the enlarged photo begins" });
const line = make("i", { className: "line" });
const compare = make("div", { className: "compare" }, scroll, make("span", { className: "side left" }, "Bicubic"), make("span", { className: "side right" }, "Enlarged"), line, divider);
const zoom = make("input", { type: "checkbox", id: "zoom" });

const asked = () => ({ scale, twin: true });

/** How far the photo before reaches, in pixels of what is seen. */
function part() {
  const at = Number(divider.value) * compare.clientWidth;
  line.style.left = `${at}px`;
  after.style.clipPath = `inset(0 0 0 ${at + scroll.scrollLeft}px)`;
  divider.ariaValueText = `${Math.round(divider.value * 100)} % bicubic`;
}

function zoomed() {
  compare.classList.toggle("zoomed", zoom.checked);
  const one = reply?.predictions[0];
  sheet.style.width = zoom.checked && one ? `${one.width / devicePixelRatio}px` : "";
  const middle = (size, seen) => (size - seen) / 2;
  scroll.scrollTo(middle(scroll.scrollWidth, scroll.clientWidth), middle(scroll.scrollHeight, scroll.clientHeight));
  part();
}

const blobOf = (base64, format) => new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: `image/${format}` });

function image(element, blob, alt) {
  const href = URL.createObjectURL(blob);
  urls.push(href);
  Object.assign(element, { src: href, alt });
}

const bytes = (count) => (count < 1e6 ? `${Math.round(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`);

function present(answer) {
  reply = answer;
  const [one] = reply.predictions;
  const { width, height } = reply.image;
  forget();
  enlarged = blobOf(one.image, one.format);
  image(after, enlarged, `The photo enlarged ${one.scale} times`);
  image(before, blobOf(one.twin, one.format), "The same by bicubic interpolation");
  $("count").textContent = `${one.width} × ${one.height}`;
  $("summary").textContent = `${one.scale} times ${width} × ${height} · ${one.format.toUpperCase()}, ${bytes(enlarged.size)}`;
  $("frame").append(compare);
  zoomed();
}

function pickScale(value) {
  scale = value;
  if (reply) host.ask(asked(), { quiet: false });
}

function forget() {
  urls.forEach(URL.revokeObjectURL);
  urls = [];
  enlarged = null;
}

function clear() {
  compare.remove();
  forget();
  reply = null;
}

export default {
  suffix: "enlarged",
  first: asked,
  current: () => ({ scale }),
  // A photo that came without loss goes without.
  usual: () => (host.type() === "image/jpeg" ? { output_format: "jpeg", quality: 95 } : {}),
  kept: (whole) => whole,
  picture: () => enlarged,
  open(page) {
    host = page;
    const { enum: known = FALLBACK_SCALES, default: preset = known[0] } = host.schema("scale") ?? {};
    scale = String(preset);
    $("tools").replaceChildren(pills("scale", "Times larger", known.map((times) => [String(times), `${times}×`]), scale, pickScale));
    divider.oninput = part;
    scroll.onscroll = part;
    zoom.onchange = zoomed;
    new ResizeObserver(part).observe(compare);
    $("rows").hidden = true;
    $("controls").replaceChildren(make("label", { className: "check" }, zoom, "Full size"));
  },
  begin: clear,
  close: clear,
  present,
};
