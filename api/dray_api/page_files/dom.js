// Elements, made and filled without any HTML: what comes from elsewhere is text only.

import { inert } from "./text.js";

/** h("p", {class: "x", onclick: f}, "text", child): texts are made inert; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  return fill(made, ...children);
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(asNode));
  return parent;
}

function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(inert(child));
}

/** Changes nothing where it says so already: a selection and a screen reader's place stay. */
export function say(element, text) {
  const shown = inert(text);
  if (element.textContent !== shown) element.textContent = shown;
}

export function button(label, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, label);
}

/** What happened, for everybody: a note that is also spoken. */
export function announce(text, kind = "good") {
  const said = document.getElementById("said");
  said.dataset.kind = kind;
  fill(said, h("p", {}, text, button("×", () => fill(said), { class: "quiet", "aria-label": "Close" })));
  clearTimeout(announce.timer);
  if (kind === "good") announce.timer = setTimeout(() => fill(said), 6000);
}

export function badge(state, text = state) {
  return h("span", { class: `badge ${state}` }, text);
}

let ids = 0;
export function newId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}
