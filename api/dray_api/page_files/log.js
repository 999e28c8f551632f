// A job's log as it is seen: the rows that fit, wherever one scrolls. Follows the end until somebody scrolls back or pauses it.

import { button, fill, h, say } from "./dom.js";
import { Lines, Search } from "./lines.js";
import { count } from "./text.js";

const ROW = 20; // px, as style.css has it
const TALLEST = 8000000; // px: browsers cannot lay out much more

export class LogView {
  constructor(path, signal, nameOf) {
    this.signal = signal;
    this.nameOf = nameOf;
    this.lines = new Lines(path, signal, () => this.soon());
    this.search = null;
    this.following = true;
    this.top = 0; // line at the upper edge, with a fraction
    this.drawn = "";
    this.build();
  }

  build() {
    this.follow = button("Pause", () => this.setFollowing(!this.following), { class: "quiet" });
    this.total = h("span", { class: "muted total" });
    this.term = h("input", { type: "search", id: "find", placeholder: "Search the log", "aria-label": "Search the log", autocomplete: "off", spellcheck: "false" });
    this.hits = h("span", { class: "muted hits", role: "status" });
    this.previous = button("↑", () => this.go(-1), { class: "quiet", "aria-label": "Previous match", disabled: true });
    this.next = button("↓", () => this.go(1), { class: "quiet", "aria-label": "Next match", disabled: true });
    const finder = h("form", { class: "row finder", role: "search", "aria-label": "Log", onsubmit: (event) => this.submitted(event) }, this.term, this.hits, this.previous, this.next);
    this.term.addEventListener("input", () => this.find());
    this.term.addEventListener("keydown", (event) => event.key === "Enter" && event.shiftKey && (event.preventDefault(), this.go(-1)));
    this.rows = h("div", { class: "rows" });
    this.space = h("div", { class: "space" }, this.rows);
    this.box = h("div", { class: "log", role: "log", "aria-live": "off", "aria-labelledby": "log", tabindex: "0" }, this.space);
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.box.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    this.box.addEventListener("keydown", (event) => this.pressed(event));
    this.none = h("p", { class: "empty small", hidden: true });
    this.element = h("section", { class: "logs", "aria-labelledby": "log" }, h("div", { class: "head" }, h("h2", { id: "log" }, "Log"), this.total, finder, this.follow), this.none, this.box);
  }

  begin() {
    new ResizeObserver(() => this.soon()).observe(this.box);
    this.lines.follow();
    this.draw();
  }

  end() {
    this.search?.end();
  }

  // --- where it stands

  get fits() {
    return Math.max(1, this.box.clientHeight / ROW);
  }

  get lastTop() {
    return Math.max(0, this.lines.count - this.fits);
  }

  /** Pixels of scrolling for the whole; fewer than its rows would take where those are too many. */
  get height() {
    return Math.min(this.lines.count * ROW, TALLEST);
  }

  get scaled() {
    return this.lines.count * ROW > TALLEST;
  }

  setFollowing(follows) {
    this.following = follows;
    this.soon();
  }

  goTo(line) {
    this.top = Math.min(Math.max(0, line), this.lastTop);
    this.following = false;
    this.soon();
  }

  scrolled() {
    const at = this.box.scrollTop;
    if (Math.abs(at - this.put) < 1) return; // by ourselves
    const range = Math.max(1, this.height - this.box.clientHeight);
    this.top = this.scaled ? (at / range) * this.lastTop : at / ROW;
    this.put = at;
    this.following = this.top >= this.lastTop - 0.5 && (this.following || !this.lines.ended);
    this.soon();
  }

  wheeled(event) {
    if (!this.scaled || event.ctrlKey || !event.deltaY) return; // where a pixel is several lines, the wheel goes by lines
    event.preventDefault();
    this.goTo(this.top + (event.deltaMode ? event.deltaY : event.deltaY / ROW));
  }

  pressed(event) {
    const page = this.fits - 1;
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, " ": event.shiftKey ? -page : page }[event.key];
    if (event.key === "Home") this.goTo(0);
    else if (event.key === "End") this.setFollowing(true);
    else if (by !== undefined) this.goTo(this.top + by);
    else return;
    event.preventDefault();
  }

  // --- what is seen

  soon() {
    if (this.planned) return;
    this.planned = true;
    requestAnimationFrame(() => {
      this.planned = false;
      if (!this.signal.aborted) this.draw();
    });
  }

  draw() {
    const { count: total, ended } = this.lines;
    this.space.style.height = `${this.height}px`; // the box grows with it, up to its own limit
    this.none.hidden = total > 0;
    this.box.hidden = total === 0;
    if (this.following) this.top = this.lastTop;
    this.showState(total, ended);
    if (total === 0) return;
    this.rows.style.height = `${Math.min(this.box.clientHeight, this.height)}px`;
    this.scrollToTop();
    const first = Math.floor(this.top);
    const last = Math.min(total, Math.ceil(this.top + this.fits));
    const shown = [];
    for (let number = first; number < last; number += 1) shown.push(this.lines.line(number));
    const drawn = `${first} ${last} ${shown.map((line) => (line ? 1 : 0)).join("")} ${this.search?.text ?? ""} ${this.at ?? ""}`;
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.rows.replaceChildren(...shown.map((line, at) => this.row(line, first + at)));
    }
    this.rows.style.setProperty("--shift", `${(first - this.top) * ROW}px`);
  }

  scrollToTop() {
    const range = Math.max(0, this.height - this.box.clientHeight);
    const wanted = this.scaled ? (this.top / Math.max(1, this.lastTop)) * range : this.top * ROW;
    if (Math.abs(this.box.scrollTop - wanted) >= 1) this.box.scrollTop = wanted;
    this.put = this.box.scrollTop;
  }

  showState(total, ended) {
    say(this.none, ended ? "The steps wrote nothing." : "Nothing yet. Lines appear here as the steps write them.");
    say(this.total, total === 0 ? "" : count(total, "line"));
    const fresh = Math.max(0, total - Math.round(this.top + this.fits));
    const back = ended ? "To the end" : fresh > 0 ? `Follow, ${count(fresh, "line")} further` : "Follow";
    say(this.follow, this.following && !ended ? "Pause" : back);
    this.follow.hidden = total === 0 || (ended && this.following);
  }

  row(line, number) {
    if (line === undefined) return h("div", { class: "line" }, h("span", { class: "no" }, String(number + 1)), h("span", { class: "muted" }, "…"));
    const name = `${this.nameOf(line.step)}${line.attempt > 1 ? `, attempt ${line.attempt}` : ""}`;
    return h(
      "div",
      { class: `line ${line.stream}${number === this.at ? " at" : ""}`, "data-line": number },
      h("span", { class: "no" }, String(number + 1)),
      h("span", { class: "of", title: `${name}, ${line.time}` }, String(line.step)),
      h("span", { class: "from" }, { stdout: "", stderr: "err", dray: "dray" }[line.stream]),
      h("bdi", { class: "text" }, ...this.marked(line.text), line.more > 0 && h("span", { class: "muted" }, ` … ${count(line.more, "character")} more`)),
    );
  }

  /** The text in pieces, those that are searched for marked. */
  marked(text) {
    const term = this.search?.text;
    const lower = text.toLowerCase();
    if (!term || lower.length !== text.length) return [text];
    const pieces = [];
    let from = 0;
    for (let at = lower.indexOf(term); at >= 0 && pieces.length < 200; at = lower.indexOf(term, from)) {
      pieces.push(text.slice(from, at), h("mark", {}, text.slice(at, at + term.length)));
      from = at + term.length;
    }
    return [...pieces, text.slice(from)];
  }

  // --- search

  find() {
    this.search?.end();
    this.at = null;
    this.search = this.term.value ? new Search(this.lines, this.term.value, () => this.found()) : null;
    this.search?.begin();
    this.found();
  }

  submitted(event) {
    event.preventDefault();
    this.go(1);
  }

  found() {
    const { search } = this;
    const number = search?.found.length ?? 0;
    if (number > 0 && this.at === null) this.visit(search.found[0]);
    this.previous.disabled = this.next.disabled = number === 0;
    if (search === null) say(this.hits, "");
    else if (number === 0) say(this.hits, search.complete ? "no match" : "searching…");
    else say(this.hits, `${(search.found.indexOf(this.at) + 1).toLocaleString("en")} of ${number.toLocaleString("en")}${search.complete ? "" : "…"}`);
    this.soon();
  }

  /** To the next match after the one that is shown, round and round. */
  go(by) {
    const found = this.search?.found ?? [];
    if (found.length === 0) return;
    const at = found.indexOf(this.at) + by;
    this.visit(found[(at + found.length) % found.length]);
    this.found();
  }

  visit(line) {
    this.at = line;
    this.goTo(line - this.fits / 2);
  }
}
