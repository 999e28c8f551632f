// A log of any length, of which a few thousand lines are held: those at its end as they come, others as they are looked at.

import { Away, Problem, events, json } from "./http.js";
import { inert } from "./text.js";

const CHUNK = 250; // lines
const HELD = 24; // chunks
const LONGEST = 4000; // characters of a line that are shown
const SEARCHED = 2000; // lines at a time
const MOST_FOUND = 10000;

export class Lines {
  /** `changed()` is called after lines came; `count` is how many there are. */
  constructor(path, signal, changed) {
    this.path = `${path}/log`;
    this.signal = signal;
    this.changed = changed;
    this.chunks = new Map(); // number → lines, the one used last at the end
    this.loading = null;
    this.count = 0;
    this.ended = false;
  }

  /** Follows the log's end while the tab is seen: a browser has few connections for one server. */
  async follow() {
    while (!this.signal.aborted && !this.ended) {
      if (document.hidden) await seen(this.signal);
      const hidden = new AbortController();
      const hide = () => document.hidden && hidden.abort();
      document.addEventListener("visibilitychange", hide, { signal: this.signal });
      try {
        await this.read(AbortSignal.any([this.signal, hidden.signal]));
      } catch (error) {
        if (error instanceof Problem && error.status === 404) return;
        if (!(error instanceof Problem || error instanceof Away || error.name === "AbortError" || error.name === "TypeError")) throw error;
      } finally {
        document.removeEventListener("visibilitychange", hide);
      }
      if (!this.ended && !hidden.signal.aborted) await pause(1000, this.signal);
    }
  }

  read(signal) {
    return events(`${this.path}?index=${this.count || -CHUNK}`, {}, signal, (name, line) => {
      if (name === "message") {
        this.keep(line);
        this.count = Math.max(this.count, line.seq + 1);
      } else {
        this.ended = true;
      }
      this.changed();
    });
  }

  /** The line, or undefined while it is not here; then it is fetched. */
  line(number) {
    const at = Math.floor(number / CHUNK);
    const found = this.chunks.get(at)?.[number % CHUNK];
    if (found === undefined) this.load(number);
    else this.use(at);
    return found;
  }

  use(at) {
    const chunk = this.chunks.get(at) ?? [];
    this.chunks.delete(at);
    this.chunks.set(at, chunk);
    if (this.chunks.size > HELD) this.chunks.delete(this.chunks.keys().next().value);
    return chunk;
  }

  keep(line) {
    const at = Math.floor(line.seq / CHUNK);
    const chunk = this.chunks.get(at) ?? this.use(at);
    const cut = line.line.length > LONGEST;
    chunk[line.seq % CHUNK] = {
      step: line.step,
      attempt: line.attempt,
      stream: line.stream,
      time: line.time,
      text: inert(cut ? line.line.slice(0, LONGEST) : line.line),
      more: cut ? line.line.length - LONGEST : 0,
    };
  }

  /** One fetch at a time: where somebody scrolls on, the next is for what is seen then. */
  async load(number) {
    if (this.loading !== null) return;
    const first = Math.floor(number / CHUNK) * CHUNK;
    const last = Math.min(first + CHUNK, this.count) - 1;
    this.loading = first;
    try {
      this.use(first / CHUNK);
      await events(`${this.path}?index=${first}`, {}, this.signal, (name, line) => {
        if (name !== "message") return false;
        this.keep(line);
        return line.seq < last;
      });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem || error instanceof Away || error.name === "TypeError")) throw error;
      await pause(1000, this.signal);
    } finally {
      this.loading = null;
    }
    this.changed();
  }
}

/** The lines that have a text, found from the first line on, and in new ones as they come. */
export class Search {
  constructor(lines, text, changed) {
    this.lines = lines;
    this.text = text.toLowerCase();
    this.changed = changed;
    this.found = []; // line numbers, ascending
    this.scanned = 0;
    this.over = false;
  }

  async begin() {
    while (!this.over && !this.lines.signal.aborted && this.found.length < MOST_FOUND) {
      if (this.scanned >= this.lines.count) {
        if (this.lines.ended) return;
        await pause(500, this.lines.signal);
        continue;
      }
      try {
        await this.scan();
      } catch (error) {
        if (error.name === "AbortError" || (error instanceof Problem && error.status === 404)) return;
        if (!(error instanceof Problem || error instanceof Away)) throw error;
        await pause(1000, this.lines.signal);
      }
      if (!this.over) this.changed();
    }
  }

  async scan() {
    const { lines } = await json(`${this.lines.path}?index=${this.scanned}&limit=${SEARCHED}`, { signal: this.lines.signal });
    lines.forEach((line, at) => {
      if (this.found.length < MOST_FOUND && inert(line).toLowerCase().includes(this.text)) this.found.push(this.scanned + at);
    });
    this.scanned += lines.length;
    this.lines.count = Math.max(this.lines.count, this.scanned);
  }

  get complete() {
    return this.scanned >= this.lines.count || this.found.length >= MOST_FOUND;
  }

  end() {
    this.over = true;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, milliseconds);
    signal.addEventListener("abort", over);
  });
}

function seen(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}
