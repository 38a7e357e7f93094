/** The panel: rooms, private conversations, who is here. */

import { arrange, byId, element, followArrows, isolated, keepOneStop, write } from "./elements.js";
import { fold, hue, isolate, plural } from "../text/text.js";

const MOST = 200; // people, and rooms, that are shown

/** @typedef {import("../chat/conversation.js").Conversation} Conversation */

/** @param {string} name @param {number} unread */
export function withUnread(name, unread) {
  return unread ? `${name}, ${unread} sin leer` : name;
}

export class Lists {
  /** @param {{join: (room: string) => void, open: (nick?: string) => void}} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.lists = { rooms: byId("rooms"), privates: byId("privates"), people: byId("people") };
    for (const list of Object.values(this.lists)) followArrows(list);
    const { people } = this.lists; // there may be many
    people.addEventListener("focusin", (/** @type {Event} */ event) => keepOneStop(people, event.target));
    byId("join").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const room = byId("room").value.trim();
      byId("room").value = "";
      if (room) handlers.join(room);
    });
  }

  /** @param {Conversation} chat @param {Set<string>} changes */
  show(chat, changes) {
    if (["rooms", "place", "members"].some((part) => changes.has(part))) this.#showRooms(chat);
    if (changes.has("privates") || changes.has("place")) this.#showPrivates(chat);
    if (changes.has("members") || changes.has("place")) this.#showPeople(chat);
  }

  /** @param {Conversation} chat */
  #showRooms(chat) {
    const others = chat.rooms.filter(({ name }) => name !== chat.room);
    const rooms = others.sort((one, other) => other.count - one.count).slice(0, MOST);
    if (chat.room) rooms.push({ name: chat.room, count: chat.people.count });
    rooms.sort((one, other) => (one.name < other.name ? -1 : 1));
    this.#fill(this.lists.rooms, rooms.map(({ name, count }) => {
      const own = name === chat.room;
      const unread = own && chat.privates.open ? chat.timeline.unread : 0;
      return {
        key: name, label: withUnread(name, unread), name: isolated(name), unread,
        tally: count, title: plural(count, "persona", "personas"),
        current: own && !chat.privates.open,
        act: () => (own ? this.handlers.open() : this.handlers.join(name)),
      };
    }));
  }

  /** @param {Conversation} chat */
  #showPrivates(chat) {
    const all = [...chat.privates.all.values()].reverse();
    byId("no-privates").hidden = all.length > 0;
    this.#fill(this.lists.privates, all.map((each) => {
      const { nick, timeline: { unread } } = each;
      return {
        key: fold(nick), label: withUnread(nick, unread), name: isolated(nick, `hue-${hue(nick)}`), unread,
        current: chat.privates.open === each, act: () => this.handlers.open(nick),
      };
    }));
  }

  /** @param {Conversation} chat */
  #showPeople(chat) {
    const nicks = chat.people.sorted(MOST);
    const more = chat.people.count - nicks.length;
    write(byId("people-count"), String(chat.people.count));
    byId("more-people").hidden = more <= 0;
    write(byId("more-people"), `y ${more} más`);
    this.#fill(this.lists.people, nicks.map((nick) => ({
      key: fold(nick), label: nick, name: isolated(nick, `hue-${hue(nick)}`), unread: 0,
      note: fold(nick) === fold(chat.nick) ? "tú" : "",
      title: `Hablar a solas con ${isolate(nick)}`, act: () => this.handlers.open(nick),
    })));
    keepOneStop(this.lists.people);
  }

  /**
   * @param {HTMLElement} list
   * @param {{key: string, label: string, name: HTMLElement, unread: number, tally?: number,
   *   note?: string, title?: string, current?: boolean, act: () => void}[]} rows
   */
  #fill(list, rows) {
    /** @type {Map<string | undefined, HTMLElement>} */
    const known = new Map();
    for (const item of /** @type {HTMLElement[]} */ ([...list.children])) known.set(item.dataset.key, item);
    const items = rows.map((row) => {
      const item = known.get(row.key) ?? element("li", "", element("button", "row"));
      const button = /** @type {HTMLButtonElement} */ (item.firstChild);
      item.dataset.key = row.key;
      button.type = "button";
      button.onclick = row.act;
      button.setAttribute("aria-label", row.label);
      button.title = row.title ?? "";
      if (row.current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      button.replaceChildren(row.name);
      const aside = row.note ?? row.tally;
      if (row.unread) button.append(element("span", "badge", String(row.unread)));
      else if (aside !== undefined && aside !== "") button.append(element("span", "tally", String(aside)));
      return item;
    });
    arrange(list, items);
  }
}
