// The model to ask and its parameters: fields made from the JSON Schema that the server states for it.

import { $, make } from "./view.js";

const ELSEWHERE = ["score_threshold", "format"]; // the slider, and what the page itself needs

/** Fields for `models`, as GET /models lists them; `onChange` after each change. */
export function build(models, onChange) {
  const form = $("parameters");
  const picker = make("select", { name: "model" }, ...models.map(({ name }) => make("option", {}, name)));
  const fill = () => {
    const { parameters = {} } = models.find(({ name }) => name === picker.value) ?? {};
    const named = parameters.$defs?.[parameters.$ref?.split("/").pop()] ?? parameters;
    const fields = Object.entries(named.properties ?? {}).filter(([name]) => !ELSEWHERE.includes(name)).map(field);
    form.replaceChildren(...(models.length > 1 ? [make("label", {}, "Model", picker)] : []), ...fields);
  };
  picker.onchange = fill;
  form.onchange = onChange;
  form.onsubmit = (event) => event.preventDefault();
  fill();
}

/** What the person set: the model's name where there are several, and the parameters as query text. */
export function chosen() {
  const filled = [...new FormData($("parameters"))].filter(([, value]) => value.trim());
  const { model, ...rest } = Object.fromEntries(filled);
  for (const input of $("parameters").querySelectorAll("[data-list]")) {
    if (rest[input.name]) rest[input.name] = JSON.stringify(rest[input.name].split(",").map((part) => part.trim()).filter(Boolean));
  }
  return { model, parameters: rest };
}

function field([name, schema]) {
  const kind = schema.anyOf?.find(({ type }) => type !== "null") ?? schema;
  const numeric = ["number", "integer"].includes(kind.type);
  const limits = numeric && { type: "number", min: kind.minimum ?? "", max: kind.maximum ?? "", step: kind.type === "integer" ? 1 : "any" };
  const input = make("input", { name, placeholder: String(schema.default ?? ""), ...limits });
  if (kind.type === "array") Object.assign(input, { placeholder: "person, dog" }).dataset.list = "";
  return make("label", {}, name.replaceAll("_", " "), input, make("small", {}, schema.description ?? ""));
}
