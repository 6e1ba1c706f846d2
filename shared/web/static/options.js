// The parameters of the picked model: fields made from the JSON Schema that the server states for it.

import { $, make } from "./dom.js";

// What the page itself sets: by a slider or a click, or because it can read nothing else.
const ELSEWHERE = [
  "format", "score_threshold", "mask_format", "polygon_tolerance", "multimask", "return_logits", "logits_dtype", "return_embedding",
  "scale", "twin",
];

/** Fields for a model, as GET /models describes it; `onChange` after each change. */
export function build(model, onChange) {
  const form = $("parameters");
  const fields = Object.entries(model?.parameters?.properties ?? {}).filter(([name]) => !ELSEWHERE.includes(name)).map(field);
  form.replaceChildren(...fields.filter(Boolean));
  if (!form.childElementCount) form.replaceChildren(model?.reason ?? "This model has no parameters.");
  form.onchange = onChange;
  form.onsubmit = (event) => event.preventDefault();
}

/** The parameters that the person has set, as query text. */
export function chosen() {
  const rest = Object.fromEntries([...new FormData($("parameters"))].filter(([, value]) => value.trim()));
  for (const input of $("parameters").querySelectorAll("[data-list]")) {
    if (rest[input.name]) rest[input.name] = JSON.stringify(rest[input.name].split(",").map((part) => part.trim()).filter(Boolean));
  }
  return rest;
}

/** One labelled field; null for what cannot be typed, such as points or an embedding. */
function field([name, schema]) {
  const kinds = (schema.anyOf ?? [schema]).filter(({ type }) => type !== "null");
  const input = control(kinds, schema.default);
  return input && make("label", {}, name.replaceAll("_", " "), Object.assign(input, { name }), make("small", {}, schema.description ?? ""));
}

function control(kinds, preset) {
  const [kind] = kinds;
  const words = kinds.flatMap((one) => one.enum ?? (one.type === "boolean" ? [true, false] : []));
  if (words.length && kinds.every((one) => one.enum || one.type === "boolean")) return select(words, preset);
  const input = make("input", { placeholder: shown(preset) });
  if (words.length) return Object.assign(input, { title: `a number, or ${words.join(", ")}` }); // `auto`, beside numbers
  if (["number", "integer"].includes(kind.type)) {
    return Object.assign(input, { type: "number", min: kind.minimum ?? "", max: kind.maximum ?? kind.exclusiveMaximum ?? "", step: kind.type === "integer" ? 1 : "any" });
  }
  if (kind.type === "array" && kind.items?.type === "string") {
    input.dataset.list = "";
    return Object.assign(input, { placeholder: "person, dog" });
  }
  return kind.type === "string" ? input : null;
}

/** The default is what is sent by leaving the parameter out. */
function select(words, preset) {
  const rest = words.filter((word) => word !== preset).map((word) => make("option", { value: word }, String(word)));
  return make("select", {}, make("option", { value: "" }, `${shown(preset)} (default)`), ...rest);
}

const shown = (preset) => (typeof preset === "number" ? String(Number(preset.toPrecision(4))) : String(preset ?? ""));
