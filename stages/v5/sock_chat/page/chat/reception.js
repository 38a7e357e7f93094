/**
 * What the server tells, and what that changes in the conversation. Sans-IO.
 *
 * A type of event that is not in the table is of a newer server, and ignored.
 *
 * @typedef {import("./conversation.js").Conversation} Conversation
 * @typedef {import("./timeline.js").Entry} Entry
 * @typedef {{position: number, at: string, nick: string, text: string}} Said
 */

import { ask } from "./speech.js";
import { Timeline } from "./timeline.js";
import { fold, isolate } from "../text/text.js";

export const EARLIER = "/history 200"; // as many as the server gives
const RECENT = 20; // messages that the server shows a newcomer
const GAP = "Faltan mensajes: hubo más de los que se guardan.";
const LOST = "No se sabe si ha llegado.";
const NOT_SAID = "No se ha dicho";
const WAITS = "El chat espera a su bus.";
const ALL_SEEN = "Lo último que se ha dicho ya está a la vista.";

/** @param {Conversation} chat @param {Record<string, any>[]} events */
export function receive(chat, events) {
  for (const event of events) {
    chat.waits = false;
    if (Object.hasOwn(HANDLERS, event.type)) HANDLERS[event.type](chat, event);
  }
}

/** @type {Record<string, (chat: Conversation, event: any) => void>} */
const HANDLERS = {
  ask(chat, { what }) {
    chat.changes.add("state");
    if (chat.online) {
      chat.asksPassword = true;
      return;
    }
    for (const send of chat.door.ask(what)) chat.effects.push({ send });
    if (chat.door.asked && !chat.door.busy) chat.phase = "out";
  },

  welcome(chat, event) {
    const { nick, room, epoch, position, history, gap } = event;
    const returns = !chat.online;
    const goesOn = returns && chat.goesOn; // the history begins where the page knew the room to
    const same = room === chat.room && !chat.fresh;
    const continues = epoch === chat.epoch && position >= chat.known;
    const news = history.filter((/** @type {Said} */ { position: at }) => at > chat.known);
    Object.assign(chat.door, { nick, token: event.resume, busy: false, alert: "" });
    if (!returns) {
      chat.outbox.answer();
      chat.open();
    }
    const { said, lost } = returns
      ? chat.outbox.recover(room, continues ? news : [], nick, gap, chat.now())
      : { said: [], lost: [] };

    Object.assign(chat, { nick, room, epoch, known: position, online: true, phase: "in" });
    chat.fresh = chat.asksPassword = false;
    if (same && continues && returns) {
      if (gap) chat.tell("notice", GAP, chat.timeline);
      const own = new Map(said.map(({ line, message }) => [message, line]));
      for (const message of news) {
        const line = own.get(message);
        if (line?.entry) acknowledge(chat, line.entry, message, chat.timeline);
        else show(chat, chat.timeline, entry(chat, message), true);
      }
    } else {
      begin(chat, same && gap);
      chat.timeline.mayHaveMore = history.length >= RECENT;
      for (const message of history) show(chat, chat.timeline, entry(chat, message), false);
    }
    for (const { entry: each, home } of lost) {
      if (each) refuse(chat, each, LOST, home ?? chat.timeline);
    }
    chat.people.reset(event.members, event.count);
    chat.effects.push({ settled: true });
    chat.changes.add("state").add("place").add("members").add("rooms").add("privates");
    if (goesOn && !(same && continues)) ask(chat, EARLIER);
    ask(chat, "/rooms");
    chat.save();
  },

  said(chat, event) {
    if (event.position <= chat.known) return;
    chat.known = event.position;
    show(chat, chat.timeline, entry(chat, event), true);
    chat.effects.push({ save: { known: chat.known } });
  },

  ack(chat, event) {
    const line = chat.outbox.acknowledge(event.id);
    if (!line?.entry) return;
    const { at, position } = event;
    if (line.room === undefined) {
      acknowledge(chat, line.entry, { at }, line.home ?? line.timeline);
    } else {
      acknowledge(chat, line.entry, { at, position }, line.timeline);
      chat.known = Math.max(chat.known, event.position);
      chat.save();
    }
  },

  joined(chat, { nick }) {
    chat.people.add(nick);
    chat.changes.add("members");
    chat.tell("presence", `${isolate(nick)} ha entrado.`, chat.timeline);
  },

  left(chat, { nick, reason }) {
    const text = `${isolate(nick)} ha salido${reason ? `: ${isolate(reason)}` : "."}`;
    chat.people.remove(nick);
    chat.changes.add("members");
    chat.tell("presence", text, chat.timeline);
  },

  renamed(chat, { nick, to }) {
    chat.people.rename(nick, to);
    chat.privates.rename(nick, to);
    if (nick === chat.nick) {
      chat.outbox.answer();
      chat.nick = chat.door.nick = to;
      chat.door.password = "";
      chat.save();
    }
    chat.changes.add("members").add("privates").add("place");
    chat.tell("presence", `${isolate(nick)} ahora es ${isolate(to)}.`, chat.timeline);
  },

  private(chat, event) {
    const own = fold(event.nick) === fold(chat.nick);
    const { timeline } = chat.privates.with(event.nick);
    chat.changes.add("privates");
    // What one says to oneself is shown already.
    if (own && timeline.has(event.text)) return;
    show(chat, timeline, entry(chat, event), true);
    if (chat.shown !== timeline) {
      chat.effects.push({ announce: `Mensaje privado de ${isolate(event.nick)}.` });
    }
  },

  history(chat, { messages }) {
    const entries = messages.map((/** @type {Said} */ said) => entry(chat, said));
    const command = chat.outbox.answer();
    if (!chat.timeline.prepend(entries) && !command?.quiet) {
      chat.tell("notice", ALL_SEEN, chat.timeline);
    }
    chat.changes.add("entries");
  },

  notice(chat, { text }) {
    chat.waits = text === WAITS;
    const command = chat.waits ? undefined : chat.outbox.answer();
    if (text.startsWith("Salas: ")) {
      chat.rooms = rooms(text);
      chat.changes.add("rooms");
      if (command?.quiet) return;
    }
    chat.tell("notice", text, command?.timeline ?? chat.timeline);
  },

  error(chat, { text }) {
    chat.lastError = text;
    chat.changes.add("state");
    if (!chat.online) {
      chat.door.refuse(text);
      chat.phase = "out";
      return;
    }
    chat.asksPassword = false;
    if (text.startsWith(NOT_SAID)) {
      for (const line of chat.outbox.said) {
        if (line.entry && line.sentAt !== undefined) refuse(chat, line.entry, text, line.timeline);
      }
      return;
    }
    const line = chat.outbox.answer(true);
    if (line?.entry) refuse(chat, line.entry, text, line.home ?? line.timeline);
    chat.tell("error", text, line?.timeline ?? chat.timeline);
  },

  closing(chat, event) {
    chat.retryAfter = event.retry_after;
    chat.tell("notice", "El servidor se cierra.", chat.timeline);
  },
};

/** Another room begins, or another past of the same. What is on its way will be said in it.
 * @param {Conversation} chat @param {boolean} gap */
function begin(chat, gap) {
  const before = chat.timeline;
  chat.timeline = new Timeline();
  if (gap) chat.tell("notice", GAP, chat.timeline);
  for (const line of chat.outbox.lines) {
    if (line.timeline === before) line.timeline = chat.timeline;
    if (line.room === undefined) continue;
    line.room = chat.room;
    if (line.entry) chat.timeline.append(line.entry);
  }
}

/** @param {Conversation} chat @param {{nick: string, text: string, at: string, position?: number}} event
 * @returns {Entry} */
function entry(chat, { nick, text, at, position }) {
  return {
    kind: "message", nick, text, position, at: new Date(at),
    own: fold(nick) === fold(chat.nick), state: "sent",
  };
}

/** @param {Conversation} chat @param {Timeline} timeline @param {Entry} each @param {boolean} isNew */
function show(chat, timeline, each, isNew) {
  timeline.append(each);
  chat.changes.add("entries");
  if (isNew && !each.own && !(chat.attended && chat.shown === timeline)) {
    timeline.unread += 1;
    chat.changes.add(timeline === chat.timeline ? "rooms" : "privates");
  }
}

/** @param {Conversation} chat @param {Entry} each
 * @param {{at: string, position?: number}} event @param {Timeline} timeline */
function acknowledge(chat, each, event, timeline) {
  each.state = "sent";
  each.at = new Date(event.at);
  each.position = event.position;
  each.refusal = undefined;
  timeline.settle(each);
  chat.changedEntries.add(each);
  chat.changes.add("entries");
}

/** @param {Conversation} chat @param {Entry} each @param {string} text @param {Timeline} timeline */
function refuse(chat, each, text, timeline) {
  const anew = each.state === "pending" && !timeline.pending.includes(each);
  each.state = "refused";
  each.refusal = text;
  if (anew) timeline.append(each);
  else timeline.settle(each);
  chat.changedEntries.add(each);
  chat.changes.add("entries");
}

/** @param {string} text a notice, `Salas: cine (1), general (3)` */
function rooms(text) {
  const found = text.slice("Salas: ".length).matchAll(/(\S+) \((\d+)\)/g);
  return Array.from(found, ([, name, count]) => ({ name, count: Number(count) }));
}
