/**
 * What the reader says, and what that changes in the conversation. Sans-IO.
 *
 * What is said is shown at once, connected or not. A command is for now: without a connection it is
 * not taken, and stays where it is written.
 *
 * @typedef {import("./conversation.js").Conversation} Conversation
 * @typedef {import("./timeline.js").Entry} Entry
 */

import { isCommand, makeLines, parsePm, tooLong, unescape } from "../text/lines.js";
import { isolate, newId } from "../text/text.js";

const OFFLINE = "Sin conexión: la orden no se ha enviado.";
const QUIT = /^\/quit\b/i;

/** Say what is written. Returns whether it has been taken.
 * @param {Conversation} chat @param {string} text */
export function submit(chat, text) {
  const lines = makeLines(text, chat.privates.open?.nick);
  const taken = !tooLong(lines) && lines.every((line) => say(chat, line));
  chat.flush();
  return taken;
}

/** Bytes by which what is written is too long. @param {Conversation} chat @param {string} text */
export function excess(chat, text) {
  return tooLong(makeLines(text, chat.privates.open?.nick));
}

/** @param {Conversation} chat @param {string} text */
function say(chat, text) {
  const pm = parsePm(text);
  if (pm) sayTo(chat, text, pm);
  else if (isCommand(text)) return command(chat, text);
  else {
    const { timeline, room } = chat;
    chat.queue({ id: newId(), text, timeline, entry: makeEntry(chat, unescape(text)), room });
    chat.save();
  }
  return true;
}

/** @param {Conversation} chat @param {string} line @param {{nick: string, text: string}} pm */
function sayTo(chat, line, { nick, text }) {
  const { timeline } = chat.privates.with(nick);
  const entry = makeEntry(chat, text);
  chat.queue({ id: newId(), text: line, timeline: chat.shown, entry, home: timeline });
  chat.changes.add("privates");
  if (timeline !== chat.shown) {
    chat.tell("notice", `Lo que le dices a ${isolate(nick)} está en Privados.`, chat.shown);
  }
}

/** @param {Conversation} chat @param {string} text @returns {Entry} */
function makeEntry(chat, text) {
  const at = new Date(chat.now());
  return { kind: "message", nick: chat.nick, text, at, own: true, state: "pending" };
}

/** Say a refused message once more. @param {Conversation} chat @param {Entry} entry */
export function retry(chat, entry) {
  chat.shown.remove(entry);
  chat.changes.add("entries");
  submit(chat, entry.text.replace(/^\//, "//"));
}

/** Returns whether it has been taken. @param {Conversation} chat @param {string} text */
export function command(chat, text) {
  if (chat.online) chat.queue({ id: newId(), text, timeline: chat.shown });
  else if (QUIT.test(text)) chat.leave();
  else chat.tell("error", OFFLINE, chat.shown);
  chat.flush();
  return chat.online || QUIT.test(text);
}

/** Ask something by the page itself, unless it is asked already. The answer is not shown.
 * @param {Conversation} chat @param {string} text */
export function ask(chat, text) {
  if (!chat.online || chat.outbox.lines.some((line) => line.quiet && line.text === text)) return;
  chat.queue({ id: newId(), text, timeline: chat.timeline, quiet: true });
  chat.flush();
}
