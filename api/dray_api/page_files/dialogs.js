// Dialogs: the browser keeps the focus in them, and gives it back.

import { button, fill, h, newId } from "./dom.js";

/** Asks until there is a token. */
export function askToken(refused) {
  return new Promise((resolve) => {
    const [title, help, wrong] = [newId("title"), newId("help"), newId("wrong")];
    const input = h("input", { type: "password", id: newId("token"), autocomplete: "off", required: true, "aria-describedby": refused ? `${wrong} ${help}` : help, "aria-invalid": refused && "true" });
    const form = h(
      "form",
      { onsubmit: take },
      h("h2", { id: title }, "Token"),
      h("p", { id: help }, "This Dray wants its token (DRAY_TOKEN). It stays in this tab until you close it."),
      h("label", { for: input.id }, "Token"),
      input,
      refused && h("p", { class: "wrong", id: wrong }, "That is not the token."),
      h("div", { class: "row end" }, h("button", { class: "main" }, "Continue")),
    );
    const dialog = open(title, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    function take(event) {
      event.preventDefault();
      const token = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(token)) {
        input.setAttribute("aria-invalid", "true");
        return;
      }
      close(dialog);
      resolve(token);
    }
  });
}

/** Resolves to whether it was confirmed. `details` are nodes or texts below the question. */
export function confirm(question, details, label, kind = "danger") {
  return new Promise((resolve) => {
    const title = newId("title");
    const answer = (given) => {
      close(dialog);
      resolve(given);
    };
    const no = button("Keep it", () => answer(false));
    const dialog = open(
      title,
      h("h2", { id: title }, question),
      h("p", {}, details),
      h("div", { class: "row end" }, no, button(label, () => answer(true), { class: kind })),
    );
    dialog.addEventListener("cancel", () => answer(false));
    no.focus();
  });
}

function open(title, ...children) {
  const dialog = fill(h("dialog", { "aria-labelledby": title }), ...children);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function close(dialog) {
  dialog.close();
  dialog.remove();
}
