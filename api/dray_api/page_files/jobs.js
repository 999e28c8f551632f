// The list of jobs: one page of it at a time, looked at again every two seconds.

import { badge, button, fill, h, say } from "./dom.js";
import { ask, repeat } from "./http.js";
import { ago, duration, moment, time } from "./text.js";

const ON_A_PAGE = 50;
const EVERY = 2000; // ms
const FILTERS = ["status", "name", "label"];

export function showJobs(main, signal, query) {
  document.title = "Jobs – Dray";
  new List(main, signal, query).begin();
}

class List {
  constructor(main, signal, query) {
    this.main = main;
    this.signal = signal;
    this.query = query;
    this.rows = new Map();
    this.cursors = [null]; // of the pages up to this one
  }

  begin() {
    this.body = h("tbody");
    this.empty = h("div", { class: "empty" });
    this.table = h(
      "table",
      { class: "jobs", hidden: true },
      h("caption", { class: "unseen" }, "Jobs, newest first"),
      h("thead", {}, h("tr", {}, ...["Job", "Status", "Steps", "Took", "Posted"].map((name) => h("th", { scope: "col" }, name)))),
      this.body,
    );
    this.newer = button("← Newer", () => this.turn(-1));
    this.older = button("Older →", () => this.turn(1));
    this.where = h("span", { role: "status" });
    this.pages = h("nav", { class: "pages", "aria-label": "Pages of the list", hidden: true }, this.newer, this.where, this.older);
    this.form = this.filters();
    fill(
      this.main,
      h("div", { class: "head" }, h("h1", {}, "Jobs"), h("a", { class: "button main", href: "#/new" }, "New job")),
      this.form,
      this.table,
      this.empty,
      this.pages,
    );
    this.look = repeat(() => this.refresh(), this.signal);
  }

  filters() {
    const status = h("select", { id: "status", name: "status" }, ...["", "running", "complete", "error"].map((one) => h("option", { value: one }, one || "any")));
    status.value = this.query.get("status") ?? "";
    const field = (name, hint) => h("input", { id: name, name, value: this.query.get(name) ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false" });
    const form = h(
      "form",
      { class: "filters", hidden: true, role: "search", "aria-label": "Jobs", onsubmit: (event) => event.preventDefault(), onchange: () => this.filter(form) },
      labelled("Status", status),
      labelled("Name", field("name", "the whole name")),
      labelled("Label", field("label", "key or key=value")),
      button("Clear", showAll, { class: "quiet", hidden: !this.filtered }),
    );
    return form;
  }

  get filtered() {
    return FILTERS.some((name) => this.query.get(name));
  }

  /** The address has the filters, so that it can be kept; the form stays, and with it the focus. */
  filter(form) {
    for (const name of FILTERS) {
      if (form.elements[name].value.trim()) this.query.set(name, form.elements[name].value.trim());
      else this.query.delete(name);
    }
    form.querySelector("button").hidden = !this.filtered;
    history.replaceState(null, "", this.filtered ? `#/?${this.query}` : "#/");
    this.cursors = [null];
    this.look();
  }

  turn(by) {
    if (by > 0) this.cursors.push(this.next);
    else this.cursors.pop();
    this.look();
    scrollTo(0, 0);
  }

  async refresh() {
    const asked = new URLSearchParams({ order: "newest", limit: ON_A_PAGE });
    for (const name of FILTERS) if (this.query.get(name)) asked.set(name, this.query.get(name));
    const cursor = this.cursors.at(-1);
    if (cursor !== null) asked.set("cursor", cursor);
    const answer = await ask(`jobs?${asked}`, { signal: this.signal });
    const jobs = await answer.json();
    if (cursor !== this.cursors.at(-1)) return 0;
    this.next = /cursor=(\d+)>; rel="next"/.exec(answer.headers.get("Link") ?? "")?.[1] ?? null;
    this.show(jobs);
    return EVERY;
  }

  show(jobs) {
    if (jobs.length === 0 && this.cursors.length > 1) {
      this.turn(-1); // all that were on it are gone
      return;
    }
    const rows = jobs.map((job) => this.row(job));
    this.rows = new Map(rows.map((row) => [row.id, row]));
    arrange(this.body, rows.map((row) => row.element));
    const page = this.cursors.length;
    this.table.hidden = jobs.length === 0;
    this.pages.hidden = page === 1 && this.next === null;
    this.newer.disabled = page === 1;
    this.older.disabled = this.next === null;
    say(this.where, page === 1 && this.next === null ? "" : `Page ${page}`);
    this.showEmpty(jobs.length === 0);
  }

  showEmpty(isEmpty) {
    const kind = isEmpty ? (this.filtered ? "filtered" : "none") : "";
    if (this.empty.dataset.kind === kind) return;
    this.form.hidden = kind === "none";
    this.empty.dataset.kind = kind;
    if (kind === "none") fill(this.empty, h("h2", {}, "No jobs yet"), h("p", {}, "A job is a list of steps. Each step is an image, and reads what the one before wrote."), h("a", { class: "button main", href: "#/new" }, "Run the first one"));
    else if (kind === "filtered") fill(this.empty, h("h2", {}, "No job is like that"), h("p", {}, "Names are compared as a whole, capitals and all."), button("Show all jobs", showAll));
    else fill(this.empty);
  }

  row(job) {
    const row = this.rows.get(job.id) ?? new Row(job);
    row.update(job);
    return row;
  }
}

class Row {
  constructor(job) {
    this.id = job.id;
    this.status = h("td", { "data-name": "Status" });
    this.steps = h("td", { "data-name": "Steps", class: "number" });
    this.took = h("td", { "data-name": "Took", class: "number" });
    this.posted = h("time", { datetime: job.createdAt, title: moment(time(job.createdAt)) });
    const labels = Object.entries(job.labels).map(([key, value]) => h("a", { class: "label", href: `#/?${new URLSearchParams({ label: `${key}=${value}` })}` }, value ? `${key}=${value}` : key));
    this.element = h(
      "tr",
      { "data-id": job.id },
      h("th", { scope: "row" }, h("a", { class: job.name ? "" : "unnamed", href: `#/jobs/${job.id}` }, job.name || "unnamed"), h("span", { class: "id" }, job.id), labels.length > 0 && h("span", { class: "labels" }, ...labels)),
      this.status,
      this.steps,
      this.took,
      h("td", { "data-name": "Posted" }, this.posted),
    );
  }

  update(job) {
    const state = `${job.status} ${job.reason ?? ""}`;
    if (this.state !== state) {
      this.state = state;
      fill(this.status, badge(job.status), job.reason && h("span", { class: "reason" }, job.reason.replaceAll("_", " ")));
    }
    say(this.steps, `${job.stepsCompleted} of ${job.steps}`);
    say(this.took, job.finishedIn === undefined ? duration(Math.max(0, (Date.now() - time(job.createdAt)) / 1000)) : duration(job.finishedIn));
    say(this.posted, ago(time(job.createdAt)));
  }
}

/** The children in this order, moving none that stands right: what has the focus keeps it. */
function arrange(parent, children) {
  const kept = new Set(children);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  children.forEach((child, at) => {
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
  });
}

function labelled(text, control) {
  return h("div", { class: "field" }, h("label", { for: control.id }, text), control);
}

function showAll() {
  location.hash = "#/";
}
