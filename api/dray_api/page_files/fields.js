// The fields of a job and of a step, each with how it is typed. An empty one is left out of the job.

import { button, fill, h, newId } from "./dom.js";

/** A field whose text `read` turns into the job's value, and `write` back. */
function field(name, label, { hint = "", read = (text) => text, write = (value) => String(value), more = false, tag = "input", required = false, ...attributes } = {}) {
  const make = (target, prefix) => {
    const id = newId("field");
    const control = h(tag, { id, "data-field": prefix + name, autocomplete: "off", spellcheck: "false", required, "aria-describedby": hint && `${id}-hint`, ...attributes });
    control.value = target[name] === undefined || target[name] === null ? "" : write(target[name]);
    control.addEventListener("input", () => {
      if (control.value === "" && !required) delete target[name];
      else target[name] = read(control.value);
    });
    return h("div", { class: "field" }, h("label", { for: id }, label), control, hint && h("p", { class: "hint", id: `${id}-hint` }, hint));
  };
  return { name, more, make };
}

function flag(name, label, hint) {
  const make = (target, prefix) => {
    const id = newId("field");
    const control = h("input", { id, type: "checkbox", "data-field": prefix + name, "aria-describedby": `${id}-hint` });
    control.checked = target[name] === true;
    control.addEventListener("change", () => {
      if (control.checked) target[name] = true;
      else delete target[name];
    });
    return h("div", { class: "field check" }, control, h("label", { for: id }, label), h("p", { class: "hint", id: `${id}-hint` }, hint));
  };
  return { name, more: true, make };
}

/** A number where it is one; else the text as it is, for the server to say what is wrong. */
const number = { inputmode: "decimal", read: (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text) };
const words = { tag: "textarea", rows: 2, read: (text) => text.replace(/\n$/, "").split("\n"), write: (value) => (Array.isArray(value) ? value.join("\n") : String(value)) };
const pairs = {
  tag: "textarea",
  rows: 2,
  read: (text) => Object.fromEntries(text.split("\n").filter(Boolean).map((line) => [line.split("=", 1)[0], line.includes("=") ? line.slice(line.indexOf("=") + 1) : ""])),
  write: (value) => Object.entries(value).map((pair) => pair.join("=")).join("\n"),
};

export const JOB_FIELDS = [
  field("name", "Name", { hint: "Optional" }),
  field("timeout", "Timeout", { ...number, hint: "Seconds, for the whole job", more: true }),
  field("labels", "Labels", { ...pairs, hint: "key=value, one on a line", more: true }),
  field("network", "Network", { hint: "bridge, none, or one of the engine’s", more: true }),
];

export const STEP_FIELDS = [
  field("source", "Image", { required: true, hint: "As registry/name:tag; without a tag, latest" }),
  field("name", "Name", { hint: "Optional" }),
  field("command", "Command", { ...words, hint: "Instead of the image’s: one word on a line", more: true }),
  field("args", "Arguments", { ...words, hint: "One on a line", more: true }),
  field("output", "Passes on", { hint: "stdout, stderr, or a file’s absolute path", placeholder: "stdout", more: true }),
  field("workdir", "Working directory", { more: true }),
  field("beginDelimiter", "Begin delimiter", { hint: "Only lines after this one are passed on", more: true }),
  field("endDelimiter", "End delimiter", { hint: "… and before this one", more: true }),
  field("timeout", "Timeout", { ...number, hint: "Seconds, for one attempt", more: true }),
  field("retries", "Retries", { ...number, hint: "Further attempts after one that failed", more: true }),
  flag("refresh", "Pull the image anew", "Even when it is there"),
  flag("always", "Always runs", "At the end, whatever happened"),
];

/** The environment: a row for each variable, with a value or the name of a secret. */
export function variables(target, prefix) {
  const rows = h("div", { class: "variables" });
  const draw = (focused = -1) => {
    fill(rows, ...(Array.isArray(target.environment) ? target.environment : []).map((one, at) => variable(one, at)));
    rows.children[focused]?.querySelector("input").focus();
  };
  const variable = (one, at) => {
    const path = `${prefix}environment[${at}]`;
    const kind = h("select", { "aria-label": `Variable ${at + 1} is`, "data-field": path }, h("option", { value: "value" }, "="), h("option", { value: "secret" }, "secret"));
    kind.value = "secret" in one ? "secret" : "value";
    const text = (name, label) => {
      const input = h("input", { "data-field": `${path}.${name}`, "aria-label": label, placeholder: label, autocomplete: "off", spellcheck: "false" });
      input.value = one[name] ?? "";
      input.addEventListener("input", () => {
        one[name] = input.value;
      });
      return input;
    };
    kind.addEventListener("change", () => {
      const [from, to] = kind.value === "secret" ? ["value", "secret"] : ["secret", "value"];
      one[to] = one[from] ?? "";
      delete one[from];
      draw(at);
    });
    const remove = button("×", () => {
      target.environment.splice(at, 1);
      if (target.environment.length === 0) delete target.environment;
      draw();
      add.focus();
    }, { class: "quiet", "aria-label": `Remove variable ${at + 1}` });
    return h("div", { class: "field variable" }, text("variable", "Name"), kind, text(kind.value, kind.value === "secret" ? "Secret’s name" : "Value"), remove);
  };
  const add = button("Add a variable", () => {
    target.environment = [...(target.environment ?? []), { variable: "", value: "" }];
    draw(target.environment.length - 1);
  }, { class: "quiet small" });
  draw();
  return h("div", { class: "field", role: "group", "aria-label": "Environment" }, h("p", { class: "label-text" }, "Environment"), rows, add);
}
