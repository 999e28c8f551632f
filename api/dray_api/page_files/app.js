// Which page is shown: the part of the address after `#`, which no server sees.

import { fill, h } from "./dom.js";
import { showForm } from "./form.js";
import { forgetToken, hasToken } from "./http.js";
import { showJob } from "./job.js";
import { showJobs } from "./jobs.js";

const main = document.getElementById("main");
let shown = null; // its AbortController: what goes on in a page ends with it

const PAGES = [
  [/^\/?$/, "jobs", showJobs],
  [/^\/new$/, "new", showForm],
  [/^\/jobs\/([0-9A-Za-z-]+)$/, "jobs", showJob],
];

function show(first = false) {
  const [path, query] = (location.hash.slice(1) || "/").split("?");
  shown?.abort();
  shown = new AbortController();
  for (const [pattern, name, page] of PAGES) {
    const found = pattern.exec(path);
    if (!found) continue;
    mark(name);
    fill(main);
    page(main, shown.signal, new URLSearchParams(query), ...found.slice(1));
    if (!first) main.focus({ preventScroll: true });
    scrollTo(0, 0);
    return;
  }
  mark("");
  fill(main, h("h1", {}, "No such page"), h("p", {}, h("a", { href: "#/" }, "All jobs")));
}

function mark(name) {
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// --- the frame

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function nameTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
}

theme.addEventListener("click", () => {
  const wanted = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = wanted;
  localStorage.setItem("dray-theme", wanted);
  nameTheme();
});
dark.addEventListener("change", nameTheme);
nameTheme();

const forget = document.getElementById("forget");
forget.hidden = !hasToken();
forget.addEventListener("click", forgetToken);

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the page
  main.focus();
});
addEventListener("hashchange", () => show());
show(true);
