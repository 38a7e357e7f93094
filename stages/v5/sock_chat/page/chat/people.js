/** Who is in the room. The server names 1,000 at most, and says how many there are. */

import { fold } from "../text/text.js";

const { compare } = new Intl.Collator("es");

export class People {
  constructor() {
    /** @type {Map<string, string>} nicks, by their folded form */
    this.nicks = new Map();
    this.count = 0;
  }

  /** @param {string[]} nicks @param {number} count */
  reset(nicks, count) {
    this.nicks = new Map(nicks.map((nick) => [fold(nick), nick]));
    this.count = count;
  }

  /** @param {string} nick */
  add(nick) {
    if (!this.nicks.has(fold(nick))) this.count += 1;
    this.nicks.set(fold(nick), nick);
  }

  /** @param {string} nick */
  remove(nick) {
    this.nicks.delete(fold(nick));
    this.count = Math.max(this.count - 1, this.nicks.size);
  }

  /** @param {string} nick @param {string} to */
  rename(nick, to) {
    this.nicks.delete(fold(nick));
    this.nicks.set(fold(to), to);
  }

  /** @param {string} nick */
  has(nick) {
    return this.nicks.has(fold(nick));
  }

  /** The first of them by name. @param {number} limit */
  sorted(limit) {
    const keys = [...this.nicks.keys()].sort(compare).slice(0, limit);
    return keys.map((key) => /** @type {string} */ (this.nicks.get(key)));
  }
}
