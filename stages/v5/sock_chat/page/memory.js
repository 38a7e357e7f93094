/**
 * What outlives a reload, in the tab's sessionStorage: how to go on, lines that are on their way to
 * a room, and drafts. Passwords and private messages are not kept, nor are drafts that hold one.
 */

const KEY = "sock_chat";
const SECRET = /^\s*\/(login|register|password|pm)\b/i;

/** @returns {Record<string, any>} */
export function load() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    return {}; // no storage in this browser, or not ours
  }
}

/** Keep these values beside the others. @param {Record<string, unknown>} values */
export function save(values) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ ...load(), ...values }));
  } catch {
    // It is a convenience; the chat goes on without.
  }
}

/** @param {string} text */
export function saveDraft(text) {
  save({ draft: SECRET.test(text) ? "" : text });
}
