// What is told beside an answer: the time that each stage took, and the same call from a terminal.

import { BASE, typeOf, withQuery } from "./api.js";
import { $, make } from "./dom.js";

// The looks of what lies over the photo come with the first of them.
await new Promise((done) => {
  const { href } = new URL("answer.css", import.meta.url);
  document.head.append(make("link", { rel: "stylesheet", href, onload: done, onerror: done }));
});

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

export async function copy() {
  const copied = await navigator.clipboard?.writeText($("curl").textContent).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren($("curl")); // no clipboard on plain http
  $("copied").textContent = copied ? "Copied" : "Selected: press Ctrl C";
  setTimeout(() => { $("copied").textContent = ""; }, 4000);
}

/** The same call as a POSIX shell command. A key stays out of it: the shell reads it from $API_KEY. */
export function curl(source, endpoint, parameters, keyed) {
  const target = new URL(endpoint, BASE).href;
  const key = keyed ? ['-H "X-API-Key: $API_KEY"'] : [];
  if (source.url) {
    const pairs = Object.entries({ image_url: source.url, ...parameters });
    return lines(`curl --get ${quoted(target)}`, ...key, ...pairs.map((pair) => `--data-urlencode ${quoted(pair.join("="))}`));
  }
  const fetched = source.href ? `curl --silent ${quoted(source.href)} |\n` : "";
  const post = `curl ${quoted(withQuery(target, parameters))}`;
  const file = source.href ? "-" : source.name;
  return fetched + lines(post, ...key, `-H ${quoted(`Content-Type: ${typeOf(source)}`)}`, `--data-binary ${quoted(`@${file}`)}`);
}

const lines = (...parts) => parts.join(" \\\n  ");
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
