// What every module of the page needs of the document.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A group of radio buttons that looks like one switch: `choices` are [value, what it shows]; `onPick(value)` after each change. */
export function pills(name, legend, choices, chosen, onPick) {
  const each = choices.map(([value, shown]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onPick(value) });
    return make("label", {}, input, make("span", {}, ...[shown].flat()));
  });
  return make("fieldset", { className: "pills" }, make("legend", { className: "sr" }, legend), ...each);
}

export function save(blob, name) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
