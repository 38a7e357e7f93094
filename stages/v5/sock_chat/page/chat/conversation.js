/**
 * What the page knows of the chat, sans-IO: what the server tells (`reception`) and what the reader
 * says (`speech`) come in, effects go out. The rules:
 *
 * - `known` is the newest position of the room that the page has seen: in a welcome, a message, or
 *   the acknowledgement of one's own. A message that is not newer is dropped. After a cut the page
 *   asks for what came after it.
 * - A welcome in another epoch, or with an older position than the known one, is of a database that
 *   does not continue what is shown: the room is shown anew.
 * - Any other welcome to the same room continues it. Own lines that its history shows are
 *   acknowledged by that, the others are sent again (`outbox`).
 * - Close code 1000 is one's own /quit, 1008 a decision of the server: the reader decides whether
 *   there is another attempt. After every other end there is.
 *
 * @typedef {import("./timeline.js").Entry} Entry
 * @typedef {{send: string} | {connect: true} | {reconnect: number | undefined} | {settled: true}
 *   | {disconnect: true} | {save: Record<string, unknown>} | {announce: string}} Effect
 * @typedef {"state" | "members" | "rooms" | "privates" | "place" | "entries"} Part of the view
 */

import { Door } from "./door.js";
import { Outbox } from "./outbox.js";
import { People } from "./people.js";
import { Privates } from "./privates.js";
import { receive } from "./reception.js";
import { Timeline } from "./timeline.js";
import { frame, newId } from "../text/text.js";

const FAREWELL = "Has salido. Hasta pronto.";
const PUT_OUT = "El servidor ha cerrado la conexión.";

export class Conversation {
  /** @param {Record<string, any>} memory what `save` effects have kept
   * @param {() => number} now milliseconds since 1970 */
  constructor(memory, now) {
    this.now = now;
    this.door = new Door(memory.nick ?? "", memory.token ?? "");
    /** @type {"out" | "in" | "over"} at the door, inside, or put out for a `reason` */
    this.phase = memory.token ? "in" : "out";
    this.reason = "";
    this.connected = false;
    this.online = false; // connected and welcomed
    this.asksPassword = false; // of another nick, inside
    this.lastError = "";
    /** @type {number | undefined} seconds, by a server that stops */
    this.retryAfter = undefined;
    this.nick = memory.nick ?? "";
    this.room = memory.room ?? "";
    this.epoch = memory.epoch ?? "";
    this.known = memory.known ?? 0;
    this.fresh = true; // nothing of the room is shown yet
    this.waits = false; // the server has said that it waits itself
    this.attended = false; // the reader sees the end of what is shown
    this.timeline = new Timeline(); // of the room
    this.people = new People(); // in the room
    this.privates = new Privates();
    /** @type {{name: string, count: number}[]} */
    this.rooms = [];
    this.outbox = new Outbox();
    /** @type {Effect[]} */
    this.effects = [];
    /** @type {Set<Part>} */
    this.changes = new Set(["state", "place"]);
    /** @type {Set<Entry>} whose state has changed */
    this.changedEntries = new Set();
    for (const line of memory.pending ?? []) {
      const entry = { ...line.entry, at: new Date(line.entry.at) };
      this.queue({ ...line, entry, timeline: this.timeline, sentAt: now() });
    }
  }

  /** The effects since the last call. */
  take() {
    return this.effects.splice(0);
  }

  /** What is shown: the private conversation that is open, or the room. */
  get shown() {
    return this.privates.open?.timeline ?? this.timeline;
  }

  get unread() {
    return this.timeline.unread + this.privates.unread;
  }

  /** Whether the room is to be told from the known position on: after a reload, too, when lines are
   * on their way that may have been said. */
  get goesOn() {
    return !this.fresh || this.outbox.said.length > 0;
  }

  /** The query of the WebSocket's address. */
  get query() {
    const query = new URLSearchParams();
    if (this.goesOn) {
      query.set("since", String(this.known));
      query.set("epoch", this.epoch);
    }
    if (this.room) query.set("room", this.room);
    return query.toString();
  }

  // The connection

  opened() {
    this.connected = true;
    this.retryAfter = undefined;
    this.lastError = "";
    this.#send(this.door.opened());
    this.changes.add("state");
  }

  /** @param {Record<string, any>[]} events of one frame */
  receive(events) {
    receive(this, events);
    this.flush();
  }

  /** @param {number} code */
  closed(code) {
    const { lastError, door } = this;
    const unnamed = lastError.startsWith("Sin apodo");
    this.connected = this.online = this.asksPassword = false;
    this.changes.add("state");
    door.asked = "";
    if (code === 1000) {
      door.token = "";
      this.#end(FAREWELL);
    } else if (code === 1008 && this.phase === "in") {
      this.#end(lastError || PUT_OUT);
    } else if (code === 1008) {
      door.busy = false;
      door.alert = unnamed ? "" : lastError || PUT_OUT;
    } else if (this.phase === "in" || door.busy) {
      this.effects.push({ reconnect: this.retryAfter });
    }
  }

  /** @param {string} reason */
  #end(reason) {
    this.phase = "over";
    this.reason = reason;
    this.door.busy = false;
    this.effects.push({ save: { token: this.door.token } });
  }

  /** Send what the outbox has. */
  flush() {
    if (!this.online) return;
    for (const { id, text } of this.outbox.take(this.now())) this.#send([frame(id, text)]);
  }

  /** @param {string[]} frames */
  #send(frames) {
    for (const send of frames) this.effects.push({ send });
  }

  // The reader

  /** The form of the door. @param {string} nick @param {string} password */
  enter(nick, password) {
    const frames = this.door.enter(nick, password);
    if (this.connected) this.#send(frames);
    else if (this.door.busy) this.effects.push({ connect: true });
    this.changes.add("state");
  }

  /** Come back after the end. */
  reenter() {
    this.phase = this.door.token ? "in" : "out";
    this.enter(this.nick, this.door.password);
  }

  /** Leave for good, without a word to the server. */
  leave() {
    this.effects.push({ disconnect: true });
    this.closed(1000);
  }

  /** The password that is asked inside; empty: none, and the nick stays.
   * @param {string} password */
  answerPassword(password) {
    this.asksPassword = false;
    this.changes.add("state");
    if (!password) this.outbox.answer();
    this.#send([password.startsWith("{") ? frame(newId(), password) : password]);
    this.flush();
  }

  /** Show the conversation with somebody, or the room. @param {string} [nick] */
  open(nick) {
    this.privates.open = nick === undefined ? undefined : this.privates.with(nick);
    this.attended = false;
    this.changes.add("place").add("privates").add("rooms");
  }

  /** @param {boolean} attended whether the reader sees the end of what is shown */
  attend(attended) {
    this.attended = attended;
    if (attended && this.shown.unread) {
      this.shown.unread = 0;
      this.changes.add("privates").add("rooms").add("entries");
    }
  }

  // What is shown

  /** Show a line, and send it when it can be. @param {import("./outbox.js").Line} line */
  queue(line) {
    this.outbox.add(line);
    if (line.entry) (line.home ?? line.timeline).append(line.entry);
    this.changes.add("entries");
  }

  /** @param {"presence" | "notice" | "error"} kind @param {string} text @param {Timeline} timeline */
  tell(kind, text, timeline) {
    timeline.append({ kind, text, at: new Date(this.now()) });
    this.changes.add("entries");
  }

  /** Keep what is to outlive a reload: where to go on, and with what. */
  save() {
    const { nick, room, epoch, known } = this;
    const { token } = this.door;
    this.effects.push({ save: { nick, room, epoch, known, token, pending: this.outbox.memory } });
  }
}
