/** What the reader has written, and the lines that are sent for it. */

import { clean, excess, frame, ID_LENGTH } from "./text.js";

const COMMAND = /^\/(?!\/)/;
const PM = /^\/pm +([^ ]+) (.*\S.*)$/i;

/**
 * The lines of a text, as they are sent. Where there are several, none is a command. In a private
 * conversation a line is for the other one.
 * @param {string} text @param {string} [nick] with whom the conversation is
 */
export function makeLines(text, nick) {
  let lines = text.split(/\r?\n/).filter((line) => line.trim()).map(clean);
  if (lines.length > 1) lines = lines.map((line) => line.replace(COMMAND, "//"));
  return nick === undefined ? lines :
    lines.map((line) => (isCommand(line) ? line : `/pm ${nick} ${unescape(line)}`));
}

/** @param {string} line */
export function isCommand(line) {
  return COMMAND.test(line);
}

/** What a line says that is no command. @param {string} line */
export function unescape(line) {
  return line.replace(/^\//, "");
}

/** Whom a line says something to in private, and what. @param {string} line */
export function parsePm(line) {
  const [, nick, text] = PM.exec(line) ?? [];
  return nick === undefined ? undefined : { nick, text };
}

/** Bytes by which the longest of the lines is too long. @param {string[]} lines */
export function tooLong(lines) {
  return Math.max(0, ...lines.map((line) => excess(frame("0".repeat(ID_LENGTH), line))));
}
