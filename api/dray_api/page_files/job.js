// One job: how far it is, what can be done with it, its steps and its log.

import { confirm } from "./dialogs.js";
import { announce, badge, button, fill, h, say } from "./dom.js";
import { Problem, ask, attempt, download, json, repeat } from "./http.js";
import { LogView } from "./log.js";
import { Steps } from "./steps.js";
import { duration, inert, moment, time } from "./text.js";

const EVERY = 1000; // ms, while it runs

export function showJob(main, signal, _, id) {
  document.title = "Job – Dray";
  new JobPage(main, signal, id).begin();
}

class JobPage {
  constructor(main, signal, id) {
    this.main = main;
    this.signal = signal;
    this.id = id;
    this.path = `jobs/${id}`;
    this.record = null;
  }

  begin() {
    fill(this.main, h("p", { class: "muted" }, "Loading…"));
    this.look = repeat(() => this.refresh(), this.signal);
  }

  async refresh() {
    try {
      this.show(await json(this.path, { signal: this.signal }));
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 404) throw error;
      this.showGone();
      return null;
    }
    return this.record.status === "running" ? EVERY : null;
  }

  showGone() {
    document.title = "No such job – Dray";
    this.log?.end();
    fill(this.main, h("div", { class: "empty" }, h("h1", {}, "There is no such job"), h("p", {}, "It was deleted, or never was."), h("a", { class: "button", href: "#/" }, "All jobs")));
  }

  show(record) {
    const before = this.record;
    this.record = record;
    if (before === null) this.build(record);
    this.status.update(record);
    this.steps.update(record);
    this.actions(record);
    if (before?.status === "running" && record.status !== "running") announce(record.status === "complete" ? "The job is complete." : `The job ended in error: ${record.message}`, record.status === "complete" ? "good" : "bad");
  }

  build(record) {
    document.title = inert(`${record.name || record.id} – Dray`);
    this.status = new Status(record);
    this.steps = new Steps(record, { rerun: (step) => this.rerun(step), save: (step) => this.save(step) });
    this.log = new LogView(this.path, this.signal, (step) => record.steps[step - 1]?.name || `step ${step}`);
    this.buttons = {
      output: button("Download output", () => this.save(null)),
      cancel: button("Cancel", () => this.cancel()),
      rerun: button("Run again", () => this.rerun(1)),
      delete: button("Delete", () => this.delete(), { class: "danger" }),
    };
    fill(
      this.main,
      h("p", { class: "crumb" }, h("a", { href: "#/" }, "Jobs"), " / ", h("span", { class: "id" }, record.id)),
      h("div", { class: "head" }, h("h1", { class: record.name ? "" : "unnamed" }, record.name || "unnamed"), this.status.badge, h("div", { class: "row actions" }, ...Object.values(this.buttons))),
      this.status.element,
      h("section", { "aria-labelledby": "steps" }, h("h2", { id: "steps" }, "Steps"), this.steps.element),
      this.log.element,
    );
    this.log.begin();
  }

  actions(record) {
    const runs = record.status === "running";
    this.buttons.output.hidden = record.status !== "complete";
    this.buttons.cancel.hidden = !runs;
    const rest = record.steps.some((step) => step.always && step.finishedAt === null);
    this.buttons.cancel.disabled = Boolean(record.cancelRequested) && !rest;
    say(this.buttons.cancel, record.cancelRequested ? (rest ? "Stop the last steps too" : "Cancelling…") : "Cancel");
    this.buttons.rerun.hidden = runs;
  }

  cancel() {
    return attempt(async () => {
      const all = this.record.cancelRequested ? "?always=true" : "";
      this.show(await json(`${this.path}/cancel${all}`, { method: "POST" }));
      announce(all ? "All steps are being stopped." : "The job is being stopped.");
      this.look();
    });
  }

  rerun(step) {
    return attempt(async () => {
      const made = await json(`${this.path}/rerun?from=${step}`, { method: "POST" });
      location.hash = `#/jobs/${made.id}`;
      announce(step === 1 ? "It runs again, as this new job." : `It runs again from step ${step}, as this new job.`);
    });
  }

  save(step) {
    const [path, name] = step === null ? [`${this.path}/output`, `${this.id}.out`] : [`${this.path}/steps/${step}/output`, `${this.id}-step-${step}.out`];
    return attempt(() => download(path, name));
  }

  async delete() {
    const what = this.record.name || this.id;
    const runs = this.record.status === "running" ? " Deleting does not stop what runs: cancel it first if it should end." : "";
    if (!(await confirm("Delete this job?", `The record, log and output of “${what}” are gone for good.${runs}`, "Delete"))) return;
    await attempt(async () => {
      await ask(this.path, { method: "DELETE" });
      location.hash = "#/";
      announce("The job is deleted.");
    });
  }
}

/** What a job says of itself, above its steps. */
class Status {
  constructor(record) {
    this.badge = h("span", { role: "status" });
    this.took = h("dd");
    this.completed = h("dd");
    this.why = h("div");
    const labels = Object.entries(record.labels);
    this.element = h(
      "div",
      {},
      h(
        "dl",
        { class: "facts" },
        fact("Posted", h("dd", {}, h("time", { datetime: record.createdAt }, moment(time(record.createdAt))))),
        fact("Took", this.took),
        fact("Steps completed", this.completed),
        record.rerunOf && fact("Rerun of", h("dd", {}, h("a", { class: "id", href: `#/jobs/${record.rerunOf}` }, record.rerunOf))),
        labels.length > 0 && fact("Labels", h("dd", {}, ...labels.map(([key, value]) => h("a", { class: "label", href: `#/?${new URLSearchParams({ label: `${key}=${value}` })}` }, value ? `${key}=${value}` : key)))),
      ),
      this.why,
    );
  }

  update(record) {
    const waits = record.status === "running" && record.startedAt === null;
    const state = record.held ? "held" : waits ? "waiting" : record.status;
    if (this.state !== state) {
      this.state = state;
      fill(this.badge, badge(record.status, state));
    }
    say(this.took, duration(record.finishedIn ?? Math.max(0, (Date.now() - time(record.createdAt)) / 1000)));
    say(this.completed, `${record.stepsCompleted} of ${record.steps.length}`);
    const told = JSON.stringify([record.reason, record.message, record.stderr]);
    if (record.reason && this.told !== told) {
      this.told = told;
      fill(this.why, why(record));
    }
  }
}

function fact(name, value) {
  return h("div", {}, h("dt", {}, name), value);
}

function why(record) {
  const hint = record.fault === "infrastructure" ? "Not the job’s fault." : "The job’s own fault.";
  const again = record.retryable ? "Running it again can help." : "Running it again does not help by itself.";
  return h(
    "section",
    { class: "why", "aria-label": "Why it failed" },
    h("p", {}, h("strong", {}, `Failed: ${record.reason.replaceAll("_", " ")}`)),
    h("p", {}, record.message),
    record.stderr.length > 0 && h("pre", { tabindex: "0", "aria-label": "Last lines on stderr" }, ...record.stderr.map((line) => h("div", {}, line))),
    h("p", { class: "muted" }, `${hint} ${again}`),
  );
}
