/** Private conversations: in memory only, and so few and short that nobody can fill it. */

import { Timeline } from "./timeline.js";
import { fold } from "../text/text.js";

const MOST = 50;
const MEMORY = 1_000; // entries of each

/** @typedef {{nick: string, timeline: Timeline}} Private */

export class Privates {
  constructor() {
    /** @type {Map<string, Private>} by the folded nick, the newest last */
    this.all = new Map();
    /** @type {Private | undefined} the one that is shown */
    this.open = undefined;
  }

  get unread() {
    let sum = 0;
    for (const { timeline } of this.all.values()) sum += timeline.unread;
    return sum;
  }

  /** The conversation with somebody, begun if there is none. @param {string} nick */
  with(nick) {
    let found = this.all.get(fold(nick));
    if (!found) {
      found = { nick, timeline: new Timeline(MEMORY) };
      this.all.set(fold(nick), found);
      if (this.all.size > MOST) this.#dropOldest();
    }
    return found;
  }

  /** @param {string} nick */
  find(nick) {
    return this.all.get(fold(nick));
  }

  /** @param {Private} conversation */
  close(conversation) {
    this.all.delete(fold(conversation.nick));
    if (this.open === conversation) this.open = undefined;
  }

  /** Somebody has another nick. A conversation that there is under that one stays apart.
   * @param {string} nick @param {string} to */
  rename(nick, to) {
    const found = this.find(nick);
    if (!found || (this.find(to) && fold(nick) !== fold(to))) return;
    this.all.delete(fold(nick));
    found.nick = to;
    this.all.set(fold(to), found);
  }

  #dropOldest() {
    for (const [key, each] of this.all) {
      if (each !== this.open) {
        this.all.delete(key);
        return;
      }
    }
  }
}
