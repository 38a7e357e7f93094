/** How an entry of a timeline looks. */

import { element, isolated } from "./elements.js";
import { hue, parts } from "../text/text.js";

/** @typedef {import("../chat/timeline.js").Entry} Entry */

const GROUP_TIME = 5 * 60_000; // milliseconds between two messages that stand together
const LONG = /^(\/[^:\n]+): (.+)$/; // a line of /help

const time = new Intl.DateTimeFormat("es", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat("es", { dateStyle: "full", timeStyle: "medium", hourCycle: "h23" });
const date = new Intl.DateTimeFormat("es", { dateStyle: "full" });

/** @param {Entry | undefined} before @param {Entry} entry whether a day begins with the entry */
export function beginsDay(before, entry) {
  return !before || before.at.toDateString() !== entry.at.toDateString();
}

/** Whether the entry is shown with its nick and time. @param {Entry | undefined} before @param {Entry} entry */
export function leads(before, entry) {
  return before?.kind !== "message" || before.nick !== entry.nick || before.own !== entry.own ||
    entry.at.getTime() - before.at.getTime() > GROUP_TIME || beginsDay(before, entry);
}

/** @param {Date} at */
export function dayElement(at) {
  const text = date.format(at);
  return element("div", "day", text[0].toUpperCase() + text.slice(1));
}

/** @param {Entry} entry @param {(entry: Entry) => void} retry */
export function entryElement(entry, retry) {
  if (entry.kind !== "message") return noticeElement(entry);
  const nick = isolated(entry.nick ?? "", `nick hue-${hue(entry.nick ?? "")}`);
  const text = element("div", "text", entry.text);
  const shown = element("div", entry.own ? "message own" : "message", nick, text, element("time", ""));
  text.dir = "auto";
  updateEntry(shown, entry, retry);
  return shown;
}

/** The state of a message has changed.
 * @param {HTMLElement} shown @param {Entry} entry @param {(entry: Entry) => void} retry */
export function updateEntry(shown, entry, retry) {
  const when = /** @type {HTMLTimeElement} */ (shown.querySelector("time"));
  when.dateTime = entry.at.toISOString();
  when.title = full.format(entry.at);
  when.textContent = time.format(entry.at);
  shown.dataset.state = entry.state;
  if (entry.position !== undefined) shown.dataset.position = String(entry.position);
  shown.querySelector(".state")?.remove();
  if (entry.state === "refused") {
    const again = element("button", "quiet", "Enviar otra vez");
    again.setAttribute("type", "button");
    again.addEventListener("click", () => retry(entry));
    shown.append(element("div", "state", `${entry.refusal} `, again));
  }
}

/** @param {Entry} entry */
function noticeElement({ kind, text }) {
  const shown = element("div", kind === "presence" ? "notice presence" : kind);
  const lines = text.split("\n");
  if (lines.length > 1 && lines.every((line) => LONG.test(line))) {
    const list = element("dl", "help");
    for (const line of lines) {
      const [, usage, help] = LONG.exec(line) ?? [];
      list.append(element("dt", "", usage), element("dd", "", help));
    }
    shown.classList.add("long");
    shown.append(list);
  } else {
    shown.dir = "auto";
    shown.append(...parts(text).map((part, index) => (index % 2 ? isolated(part) : part)));
  }
  return shown;
}
