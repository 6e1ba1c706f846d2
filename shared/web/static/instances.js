// Objects with their outlines.

import { Masks } from "./masks.js";
import { objects } from "./objects.js";

const words = {
  heads: ["Object", "Score", "Area px"],
  cells: (p) => [p.label, p.score.toFixed(2), p.area.toLocaleString("en")],
  tag: (p) => p.label,
  name: (p) => `${p.label}, score ${p.score.toFixed(2)}, ${p.area} pixels`,
  kind: (p) => p.label,
};

// Each object takes the model time, unlike in detection, so the faintest are not asked for.
export default objects({ least: 0.2, asked: { mask_format: "rle" }, suffix: "outlines", words, layer: new Masks() });
