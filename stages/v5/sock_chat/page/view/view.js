/** The page as a whole: which part is shown, the bar, the title; the parts are in modules of theirs. */

import { byId, write } from "./elements.js";
import { Lists, withUnread } from "./lists.js";
import { isolate, plural } from "../text/text.js";

/** @typedef {import("../chat/conversation.js").Conversation} Conversation
 * @typedef {import("../connection.js").Connection} Connection */

const WIDE = "(min-width: 56rem)"; // as in layout.css: the panel lies over nothing
const TITLE = "sock_chat";

export class View {
  /**
   * @param {object} handlers
   * @param {(room: string) => void} handlers.join
   * @param {(nick?: string) => void} handlers.open
   * @param {() => void} handlers.leave
   * @param {() => void} handlers.retry
   * @param {() => void} handlers.reenter
   */
  constructor(handlers) {
    const close = () => this.#setPanel(false);
    this.lists = new Lists({
      join: (room) => { close(); handlers.join(room); },
      open: (nick) => { close(); handlers.open(nick); },
    });
    this.panel = byId("panel");
    this.panelButton = byId("panel-button");
    this.status = byId("connection");
    this.panelButton.addEventListener("click", () => this.#setPanel(!this.panel.dataset.open));
    matchMedia(WIDE).addEventListener("change", close);
    byId("back").addEventListener("click", () => handlers.open());
    byId("leave").addEventListener("click", () => { close(); handlers.leave(); });
    byId("retry").addEventListener("click", () => handlers.retry());
    byId("reenter").addEventListener("click", () => handlers.reenter());
    byId("skip").addEventListener("click", (/** @type {Event} */ event) => {
      event.preventDefault();
      (byId("talk").hidden ? byId("nick") : byId("text")).focus();
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.panel.dataset.open || !(target instanceof Node)) return;
      if (!this.panel.contains(target) && !this.panelButton.contains(target)) close();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
      if (this.panel.dataset.open) {
        this.#setPanel(false);
        this.panelButton.focus();
      } else if (!byId("back").hidden && !byId("password-dialog")) {
        handlers.open();
      }
    });
  }

  /** @param {Conversation} chat @param {Set<string>} changes */
  show(chat, changes) {
    if (changes.has("state")) this.#showPhase(chat);
    if (["state", "place", "members"].some((part) => changes.has(part))) this.#showPlace(chat);
    this.lists.show(chat, changes);
    this.#showEmpty(chat);
    const { unread } = chat;
    const title = unread ? `(${unread}) ${TITLE}` : TITLE;
    if (document.title !== title) document.title = title;
    const privates = chat.privates.unread;
    write(this.panelButton, privates ? `Gente y salas · ${privates}` : "Gente y salas");
    this.panelButton.setAttribute("aria-label", withUnread("Gente y salas", privates));
  }

  /** @param {Conversation} chat */
  #showPhase({ phase, reason }) {
    document.documentElement.dataset.phase = phase;
    byId("door").hidden = phase !== "out";
    byId("panel").hidden = phase === "out";
    byId("talk").hidden = phase === "out";
    byId("composer").hidden = phase === "over";
    byId("over").hidden = phase !== "over";
    write(byId("reason"), phase === "over" ? reason : "");
  }

  /** @param {Conversation} chat */
  #showPlace({ room, nick, people, privates: { open } }) {
    const back = byId("back");
    write(byId("place-name"), open?.nick ?? room);
    write(byId("place-note"),
      open ? "a solas" : plural(people.count, "persona", "personas"));
    back.hidden = !open;
    back.title = `Volver a ${isolate(room)}`;
    back.setAttribute("aria-label", `Volver a ${room}`);
    write(byId("own-nick"), nick);
    byId("text").placeholder = open ? `A ${isolate(open.nick)}, a solas` : `En ${isolate(room)}`;
  }

  /** @param {Conversation} chat */
  #showEmpty({ online, shown, privates: { open }, room }) {
    const empty = byId("empty");
    empty.hidden = !shown.empty || !online;
    write(empty, open ? `Lo que escribas aquí solo lo lee ${isolate(open.nick)}.` :
      `Aún no se ha dicho nada en ${isolate(room)}. Empieza tú.`);
  }

  /** @param {Connection} connection @param {Conversation} chat */
  showConnection({ state, seconds }, { online, door, phase }) {
    const waiting = state === "waiting";
    const open = state === "open" && (online || !door.busy) && (online || phase === "out");
    const shown = state === "open" && !open ? "connecting" : state;
    const text = { open: "Conectado", connecting: "Conectando…", idle: phase === "over" ? "Sin conexión." : "",
      waiting: `Sin conexión. Nuevo intento en ${seconds} s.` }[shown];
    const { dataset } = document.documentElement;
    // That there is no connection is read out once, not each second.
    this.status.setAttribute("aria-live", waiting && dataset.connection === shown ? "off" : "polite");
    dataset.connection = text ? shown : "none";
    write(this.status, text);
    byId("retry").hidden = !waiting;
  }

  /** What had the focus has gone. */
  focusEnd() {
    byId("reenter").focus();
  }

  /** @param {string} text */
  announce(text) {
    byId("announcer").textContent = text;
  }

  /** @param {boolean} open */
  #setPanel(open) {
    if (open) this.panel.dataset.open = "true";
    else delete this.panel.dataset.open;
    this.panelButton.setAttribute("aria-expanded", String(open));
    byId("talk").inert = open;
    if (open) this.panel.querySelector("button")?.focus();
  }
}
