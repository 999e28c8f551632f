// A job's steps as a timeline: when each attempt ran, how much it read and passed on.

import { badge, button, fill, h, say } from "./dom.js";
import { count, duration, moment, size, time } from "./text.js";

export class Steps {
  /** deeds: rerun(step), save(step), steps counted from 1. */
  constructor(record, deeds) {
    this.steps = record.steps.map((step, at) => new Step(step, at + 1, deeds));
    this.element = h("ol", { class: "steps" }, ...this.steps.map((step) => step.element));
  }

  update(record) {
    const begin = time(record.startedAt ?? record.createdAt);
    const end = record.finishedAt ? time(record.finishedAt) : Date.now();
    const span = { begin, length: Math.max(end - begin, 1) };
    this.steps.forEach((step, at) => step.update(record, record.steps[at], span));
  }
}

class Step {
  constructor(step, number, deeds) {
    this.number = number;
    const name = step.name || step.source;
    this.state = h("span", { class: "state" });
    this.track = h("div", { class: "track", "aria-hidden": "true" });
    this.took = h("dd");
    this.read = h("dd");
    this.passed = h("dd");
    this.code = h("dd");
    this.note = h("p", { class: "note", hidden: true });
    this.attempts = h("tbody");
    this.before = h(
      "details",
      { hidden: true },
      h("summary"),
      h("table", {}, h("thead", {}, h("tr", {}, ...["Attempt", "Why it failed", "Exit code", "Took"].map((title) => h("th", { scope: "col" }, title)))), this.attempts),
    );
    this.save = button("Output", () => deeds.save(number), { class: "quiet small", "aria-label": `Download output of step ${number}, ${name}`, hidden: true });
    this.rerun = button("Rerun from here", () => deeds.rerun(number), { class: "quiet small", "aria-label": `Run again from step ${number}, ${name}`, hidden: true });
    this.element = h(
      "li",
      {},
      h(
        "div",
        { class: "step" },
        h("span", { class: "n", "aria-hidden": "true" }, String(number)),
        h("div", { class: "title" }, h("h3", {}, name), step.name && h("span", { class: "source" }, step.source), step.always && h("span", { class: "label" }, "always")),
        this.state,
        h("dl", { class: "figures" }, figure("Time", this.took), figure("In", this.read), figure("Out", this.passed), figure("Exit code", this.code)),
        h("div", { class: "row" }, this.save, this.rerun),
        this.track,
      ),
      this.note,
      this.before,
    );
  }

  update(record, step, span) {
    const shown = step.state === "waiting" && record.status !== "running" ? "not run" : step.state;
    if (this.shown !== shown) {
      this.shown = shown;
      fill(this.state, badge(step.state, shown));
      this.element.dataset.state = step.state;
    }
    const took = step.startedAt ? (step.finishedAt ? time(step.finishedAt) : Date.now()) - time(step.startedAt) : null;
    say(this.took, took === null ? "–" : duration(Math.max(0, took) / 1000));
    say(this.read, size(step.bytesIn));
    say(this.passed, size(step.bytesOut));
    say(this.code, step.exitCode === null ? "–" : String(step.exitCode));
    this.showBars(step, span);
    this.showAttempts(step);
    this.showNote(step);
    const ended = record.status !== "running";
    const piped = !step.always;
    this.save.hidden = !(piped && step.state === "complete" && step.bytesOut !== null);
    this.rerun.hidden = !(ended && piped && this.number > 1 && record.steps.slice(0, this.number - 1).every((one) => one.state === "complete"));
  }

  showBars(step, span) {
    const ran = [...step.attempts.map((past) => ({ ...past, state: "error past" })), step].filter((one) => one.startedAt);
    while (this.track.children.length > ran.length) this.track.lastChild.remove();
    ran.forEach((one, at) => {
      const bar = this.track.children[at] ?? this.track.appendChild(h("span"));
      const from = (time(one.startedAt) - span.begin) / span.length;
      const until = ((one.finishedAt ? time(one.finishedAt) : Date.now()) - span.begin) / span.length;
      bar.className = `bar ${one.state}`;
      bar.style.left = `${100 * within(from)}%`;
      bar.style.width = `${100 * Math.max(0, within(until) - within(from))}%`;
      bar.title = `${moment(time(one.startedAt))}, attempt ${one.attempt}`;
    });
  }

  showAttempts(step) {
    if (this.attempts.children.length === step.attempts.length) return;
    this.before.hidden = false;
    say(this.before.querySelector("summary"), count(step.attempts.length, "earlier attempt"));
    fill(this.attempts, ...step.attempts.map(attempt));
  }

  showNote(step) {
    const notes = [];
    if (step.retryAt) notes.push(`Next attempt at ${new Date(time(step.retryAt)).toLocaleTimeString()}.`);
    else if (step.attempt > 1) notes.push(`Attempt ${step.attempt}.`);
    if (step.image) notes.push(`Runs ${step.image}.`);
    this.note.hidden = notes.length === 0;
    say(this.note, notes.join(" "));
  }
}

function attempt(past) {
  const took = past.startedAt ? duration(Math.max(0, time(past.finishedAt) - time(past.startedAt)) / 1000) : "–";
  return h("tr", {}, h("td", {}, String(past.attempt)), h("td", {}, past.reason.replaceAll("_", " ")), h("td", {}, past.exitCode === null ? "–" : String(past.exitCode)), h("td", {}, took));
}

function figure(name, value) {
  return h("div", {}, h("dt", {}, name), value);
}

function within(part) {
  return Math.min(1, Math.max(0, part));
}
