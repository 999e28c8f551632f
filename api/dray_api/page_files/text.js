// Text from elsewhere made inert, and numbers for people. No DOM here.

const COLOURS = /\x1b\[[0-9;:]*m/g;
// Control, format (bidi overrides, invisible ones), surrogates, line and paragraph ends; not tab, nor the joiners of Persian and of emoji.
const UNSAFE = /(?![\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Nothing in it hides, moves or turns other text: colours are dropped, other such characters are written out, as `\u001b`. */
export function inert(text) {
  return String(text).replace(COLOURS, "").replace(UNSAFE, writtenOut);
}

function writtenOut(char) {
  return Array.from({ length: char.length }, (_, at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, "0")}`).join("");
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

/** Milliseconds since 1970; NaN where there is none. Takes Go's form too. */
export function time(text) {
  return text ? Date.parse(text.replace(" +0000 UTC", "Z").replace(" ", "T")) : NaN;
}

export function ago(milliseconds) {
  const seconds = Math.max(0, (Date.now() - milliseconds) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(milliseconds).toLocaleDateString();
}

export function moment(milliseconds) {
  return new Date(milliseconds).toLocaleString();
}
