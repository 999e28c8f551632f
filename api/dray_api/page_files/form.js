// A job to be posted: as a form, or as JSON. Both edit the same job; what the form has no field for stays as it is.

import { announce, button, fill, h, newId } from "./dom.js";
import { Away, Problem, json } from "./http.js";
import { JOB_FIELDS, STEP_FIELDS, variables } from "./fields.js";

const EXAMPLE = {
  name: "Word Job",
  steps: [
    { name: "random-word", source: "centurylink/randword", environment: [{ variable: "WORD_COUNT", value: "10" }] },
    { name: "uppercase", source: "centurylink/upper" },
    { name: "reverse", source: "centurylink/reverse" },
  ],
};

export function showForm(main) {
  document.title = "New job – Dray";
  new Form(main).begin();
}

class Form {
  constructor(main) {
    this.main = main;
    this.job = structuredClone(EXAMPLE);
    this.asJson = false;
  }

  begin() {
    this.wrong = h("div", { class: "wrongs", role: "alert" });
    this.fields = h("div", { class: "fields" });
    this.views = ["Form", "JSON"].map((name, at) => button(name, () => this.turn(at === 1), { class: "quiet", "aria-pressed": String(at === 0) }));
    this.submit = h("button", { class: "main" }, "Run it");
    const form = h(
      "form",
      { class: "job", novalidate: true, onsubmit: (event) => this.post(event) },
      this.wrong,
      this.fields,
      h("div", { class: "row end sticky" }, button("Empty it", () => this.clear(), { class: "quiet" }), this.submit),
    );
    fill(
      this.main,
      h("div", { class: "head" }, h("h1", {}, "New job"), h("div", { class: "row views", role: "group", "aria-label": "Edit as" }, ...this.views)),
      h("p", { class: "muted" }, "Each step is an image. What it writes is what the next one reads. Filled in is an example: its images come from examples/images.py."),
      form,
    );
    this.draw();
  }

  clear() {
    this.job = { steps: [{ source: "" }] };
    this.draw();
    this.fields.querySelector("input, textarea").focus();
  }

  turn(asJson) {
    if (asJson === this.asJson) return;
    if (this.asJson && !this.read()) return;
    this.asJson = asJson;
    this.views.forEach((view, at) => view.setAttribute("aria-pressed", String((at === 1) === asJson)));
    this.draw();
  }

  draw() {
    fill(this.wrong);
    if (this.asJson) this.drawJson();
    else this.drawForm();
  }

  drawJson() {
    this.text = h("textarea", { id: "json", class: "code", rows: 24, spellcheck: "false", "data-field": "" });
    this.text.value = JSON.stringify(this.job, null, 2);
    fill(this.fields, h("label", { for: "json" }, "The job as JSON, as POST /jobs takes it"), this.text);
  }

  /** Takes over what is in the JSON; false, and says why, where it is none. */
  read() {
    try {
      const read = JSON.parse(this.text.value);
      if (read === null || typeof read !== "object" || Array.isArray(read)) throw new SyntaxError("it is no object");
      if (!Array.isArray(read.steps) || read.steps.some((step) => step === null || typeof step !== "object")) read.steps = [{ source: "" }];
      this.job = read;
      return true;
    } catch (error) {
      this.refuse([{ field: "", message: `This is no JSON: ${error.message}` }]);
      return false;
    }
  }

  drawForm(focused = null) {
    this.list = h("ol", { class: "steps edit" }, ...this.job.steps.map((step, at) => this.step(step, at)));
    fill(
      this.fields,
      h("fieldset", {}, h("legend", {}, "The job"), h("div", { class: "grid" }, ...JOB_FIELDS.filter((one) => !one.more).map((one) => one.make(this.job, ""))), variables(this.job, ""), more(JOB_FIELDS, this.job, "")),
      h("h2", {}, "Steps"),
      this.list,
      button("Add a step", () => this.add(), { class: "add" }),
    );
    if (focused !== null) this.list.children[Math.min(focused, this.job.steps.length - 1)]?.querySelector("input").focus();
  }

  step(step, at) {
    const prefix = `steps[${at}].`;
    const last = this.job.steps.length - 1;
    const left = Object.keys(step).filter((name) => name !== "environment" && !STEP_FIELDS.some((one) => one.name === name));
    return h(
      "li",
      {},
      h(
        "fieldset",
        {},
        h("legend", {}, `Step ${at + 1}`),
        h(
          "div",
          { class: "row tools" },
          button("↑", () => this.move(at, -1), { class: "quiet", "aria-label": `Move step ${at + 1} up`, disabled: at === 0 }),
          button("↓", () => this.move(at, 1), { class: "quiet", "aria-label": `Move step ${at + 1} down`, disabled: at === last }),
          button("Remove", () => this.remove(at), { class: "quiet", "aria-label": `Remove step ${at + 1}`, disabled: last === 0 }),
        ),
        h("div", { class: "grid" }, ...STEP_FIELDS.filter((one) => !one.more).map((one) => one.make(step, prefix))),
        variables(step, prefix),
        more(STEP_FIELDS, step, prefix),
        left.length > 0 && h("p", { class: "muted", "data-field": `${prefix}*` }, `Also set, to be seen as JSON: ${left.join(", ")}.`),
      ),
    );
  }

  add() {
    this.job.steps.push({ source: "" });
    this.drawForm(this.job.steps.length - 1);
  }

  remove(at) {
    this.job.steps.splice(at, 1);
    this.drawForm(at);
  }

  move(at, by) {
    const [moved] = this.job.steps.splice(at, 1);
    this.job.steps.splice(at + by, 0, moved);
    this.drawForm(at + by);
  }

  // --- to the server and back

  async post(event) {
    event.preventDefault();
    if (this.asJson && !this.read()) return;
    this.submit.disabled = true;
    try {
      const made = await json("jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(this.job) });
      location.hash = `#/jobs/${made.id}`;
      announce("The job is posted.");
    } catch (error) {
      if (!(error instanceof Problem || error instanceof Away)) throw error;
      this.refuse(error.errors?.length ? error.errors : [{ field: "", message: error.message || "Dray does not answer. Try again." }]);
    } finally {
      this.submit.disabled = false;
    }
  }

  /** Each error at its field, or at the one that it is within; those of no field above all. */
  refuse(errors) {
    for (const old of this.fields.querySelectorAll("p.wrong")) old.remove();
    for (const control of this.fields.querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
    const shown = errors.map((error) => [error, this.asJson ? null : this.control(error.field)]);
    for (const [error, control] of shown) if (control) mark(control, error);
    const apart = shown.filter(([, control]) => !control).map(([error]) => error);
    const first = this.asJson ? this.text : shown.find(([, control]) => control)?.[1];
    if (this.asJson) mark(this.text, null);
    fill(
      this.wrong,
      h("p", {}, h("strong", {}, errors.length === 1 ? "One thing is to be mended" : `${errors.length} things are to be mended`, apart.length > 0 ? ":" : ", marked below.")),
      apart.length > 0 && h("ul", {}, ...apart.map((error) => h("li", {}, error.field ? `${error.field}: ` : "", error.message))),
    );
    first?.closest("details")?.setAttribute("open", "");
    first?.focus();
  }

  control(field) {
    for (let name = field; name; name = name.replace(/(\.[^.[\]]+|\[\d+\])$|^[^.[\]]+$/, "")) {
      const found = [...this.fields.querySelectorAll("[data-field]")].find((one) => one.dataset.field === name && one.matches("input, select, textarea"));
      if (found) return found;
    }
    return null;
  }
}

function mark(control, error) {
  control.setAttribute("aria-invalid", "true");
  if (error === null) return;
  const note = h("p", { class: "wrong", id: newId("wrong") }, error.message);
  control.closest(".field").append(note);
  control.setAttribute("aria-describedby", `${control.getAttribute("aria-describedby") ?? ""} ${note.id}`.trim());
}

function more(fields, target, prefix) {
  const rest = fields.filter((one) => one.more);
  const used = rest.some((one) => target[one.name] !== undefined);
  return h("details", { open: used }, h("summary", {}, "More"), h("div", { class: "grid" }, ...rest.map((one) => one.make(target, prefix))));
}
