// What is asked of the API. The token goes into a header, never into an address; it is kept in this tab alone.

import { askToken } from "./dialogs.js";
import { announce } from "./dom.js";

const KEY = "dray-token";
const away = document.getElementById("away");

/** An answer that is an error; `errors` are the fields that are wrong. */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `the server answered ${status}`);
    this.status = status;
    this.errors = document.errors || [];
  }
}

/** Nothing answers. */
export class Away extends Error {}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

/** The answer, once it is a good one. Asks for the token where the server wants it. Raises Problem, Away, and AbortError. */
export async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
    const answer = await reached(fetch(path, { ...options, headers, cache: "no-store" }), options.signal);
    if (answer.ok) return answer;
    const problem = new Problem(answer.status, await answer.json().catch(() => ({})));
    if (problem.status !== 401) throw problem;
    await tokenInsteadOf(token);
  }
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

let asking = null;

/** One dialog, however many requests were refused. */
async function tokenInsteadOf(refused) {
  if (sessionStorage.getItem(KEY) !== refused) return;
  asking ??= askToken(refused !== null).finally(() => {
    asking = null;
  });
  sessionStorage.setItem(KEY, await asking);
  document.getElementById("forget").hidden = false;
}

async function reached(answering, signal) {
  try {
    const answer = await answering;
    away.hidden = true;
    return answer;
  } catch (error) {
    if (signal?.aborted) throw error;
    away.textContent = "Dray does not answer. Trying again…";
    away.hidden = false;
    throw new Away();
  }
}

/** Calls `each(event, data)` for every server-sent event; returns where the server ends. `each` that returns false ends it too. */
export async function events(path, headers, signal, each) {
  const answer = await ask(path, { headers: { Accept: "text/event-stream", ...headers }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) if (told(block, each) === false) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function told(block, each) {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  return data === "" ? true : each(name, JSON.parse(data));
}

/** Saves what is at the path. Browsers stream a link, and keep a large blob on disk: neither takes the page's memory. */
export async function download(path, name) {
  if (hasToken()) {
    const url = URL.createObjectURL(await (await ask(path)).blob());
    follow(url, name);
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    return;
  }
  const found = await fetch(path, { method: "HEAD" });
  if (!found.ok) await ask(path); // says why not
  follow(path, name);
}

function follow(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

/** Calls `look` now and then, while the tab is seen; `look` returns the milliseconds until the next time, or null for the end. */
export function repeat(look, signal) {
  let timer = null;
  const go = async () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    const pause = await look().catch(later);
    clearTimeout(timer);
    if (pause !== null && !signal.aborted) timer = setTimeout(go, pause);
  };
  document.addEventListener("visibilitychange", go, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  go();
  return go;
}

function later(error) {
  if (error.name === "AbortError") return null;
  if (error instanceof Problem) announce(error.message, "bad");
  else if (!(error instanceof Away)) throw error;
  return 3000;
}

/** Does what a person asked for; where it cannot be done, says why. */
export async function attempt(deed) {
  try {
    return await deed();
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
    announce(error.message || "Dray does not answer. Try again.", "bad");
    return undefined;
  }
}
