/** Text as the server treats it, so that both sides agree on what was said and who is who. */

const KEPT = new Set(["\t", "\u200c", "\u200d"]);
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const MAX_FRAME = 4096; // bytes that the server takes in one frame
const HUES = 10; // of nicks, in colours.css
export const ID_LENGTH = 24;

const encoder = new TextEncoder();

/** The text with U+FFFD for each character that the server would replace. @param {string} text */
export function clean(text) {
  return text.replace(HIDDEN, (char) => (KEPT.has(char) ? char : "\ufffd"));
}

/** The form in which nicks are compared. @param {string} nick */
export function fold(nick) {
  return nick.normalize("NFC").toLowerCase();
}

/** Which of the colours a nick has. @param {string} nick */
export function hue(nick) {
  let hash = 0x811c9dc5; // FNV-1a: nicks that differ little get other colours
  for (const char of fold(nick)) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193);
  return ((hash ^ (hash >>> 15)) >>> 0) % HUES;
}

/** A line with its id, as it is sent. @param {string} id @param {string} line */
export function frame(id, line) {
  return JSON.stringify({ id, text: line });
}

/** Bytes by which a frame is too long. @param {string} data */
export function excess(data) {
  return Math.max(0, encoder.encode(data).length - MAX_FRAME);
}

/** A new id, of ID_LENGTH characters. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(ID_LENGTH / 2));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const ISOLATED = /\u2068([^\u2069]*)\u2069/;

/** Somebody's text in one of ours: its direction is its own, and changes nothing around it. The
 * two characters are those of Unicode for it, which no text from the server has.
 * @param {string} text */
export function isolate(text) {
  return `\u2068${text}\u2069`;
}

/** A text in parts, every other one of which has been isolated. @param {string} text */
export function parts(text) {
  return text.split(ISOLATED);
}

/** `one` or `many`, by the count. @param {number} count @param {string} one @param {string} many */
export function plural(count, one, many) {
  return `${count} ${count === 1 ? one : many}`;
}
