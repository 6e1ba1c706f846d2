// Tasks whose answer is objects with a score: asked of the server once, down to the least score; the slider filters
// from there without asking again.

import { $ } from "./dom.js";
import * as view from "./view.js";

const NOTHING_DRAWN = 1;

/** A task's module: `least` score asked for, `asked` of the server besides, and how the objects look. */
export function objects({ least: lowest, asked = {}, suffix, words, layer }) {
  let reply = null;
  let host = null;
  const least = () => Number($("score").value);

  function refresh() {
    $("score-text").textContent = least().toFixed(2);
    if (!reply) return;
    const shown = view.filter(least());
    const fainter = reply.predictions.length - shown.length;
    $("count").textContent = view.counted(shown.length, "object");
    $("summary").textContent = view.tally(shown) || (fainter ? `Below this score: ${fainter} more.` : "The model found nothing that it knows.");
    host.refresh();
  }

  return {
    suffix,
    bare: { score_threshold: NOTHING_DRAWN },
    first: () => ({ ...asked, score_threshold: lowest }),
    current: () => ({ score_threshold: least() }),
    kept: (whole) => ({ ...whole, predictions: whole.predictions.filter((p) => p.score >= least()) }),
    open(page) {
      host = page;
      $("score").min = lowest;
      $("score").oninput = refresh;
      $("score").onchange = host.announce;
      $("score-slider").hidden = false;
      layer?.open();
      refresh();
    },
    begin() { reply = null; },
    close() {
      $("score-slider").hidden = $("rows").hidden = true;
      layer?.close();
    },
    present(answer) {
      reply = answer;
      view.draw(reply, words, layer);
      refresh();
    },
  };
}
