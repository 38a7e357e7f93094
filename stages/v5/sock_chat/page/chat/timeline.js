/**
 * What has happened in one place, a room or a private conversation, in the order in which it is
 * shown: first what is settled, then the reader's own lines that nobody has acknowledged yet. The
 * server acknowledges in the order of the room, so a line that is settled stays where it stands.
 *
 * Only the newest entries are kept. `base` is the number of the oldest; numbers of entries
 * do not change when others go or older ones come.
 *
 * @typedef {object} Entry
 * @property {"message" | "presence" | "notice" | "error"} kind presence: who comes and goes
 * @property {string} text
 * @property {Date} at
 * @property {string} [nick] of a message
 * @property {boolean} [own]
 * @property {"pending" | "sent" | "refused"} [state] of a message
 * @property {number} [position] of a message in a room, once it has one
 * @property {string} [refusal] why it was refused
 */

const MEMORY = 10_000;

export class Timeline {
  /** @param {number} [memory] entries that are kept; a tenth more, so that many go at a time */
  constructor(memory = MEMORY) {
    this.memory = memory;
    /** @type {Entry[]} */
    this.settled = [];
    /** @type {Entry[]} */
    this.pending = [];
    this.base = 0;
    this.unread = 0; // messages of others
    this.oldest = Infinity; // position of the oldest message
    this.truncated = false; // older messages have been dropped
    this.mayHaveMore = false; // the server may have older ones
  }

  get end() {
    return this.base + this.settled.length + this.pending.length;
  }

  get empty() {
    return this.base === this.end;
  }

  /** The entry with this number. @param {number} number @returns {Entry | undefined} */
  at(number) {
    const index = number - this.base;
    const settled = this.settled.length;
    return index < settled ? this.settled[index] : this.pending[index - settled];
  }

  /** @param {Entry} entry */
  append(entry) {
    if (entry.state === "pending") {
      this.pending.push(entry);
      return;
    }
    if (entry.position !== undefined) this.oldest = Math.min(this.oldest, entry.position);
    this.settled.push(entry);
    if (this.settled.length > this.memory * 1.1) {
      const excess = this.settled.length - this.memory;
      this.settled.splice(0, excess);
      this.base += excess;
      this.truncated = true;
      this.oldest = this.settled.find((each) => each.position)?.position ?? Infinity;
    }
  }

  /** A pending message has been acknowledged or refused. @param {Entry} entry */
  settle(entry) {
    const index = this.pending.indexOf(entry);
    if (index < 0) return;
    this.pending.splice(index, 1);
    this.append(entry);
  }

  /** Whether one's own message with this text is here. @param {string} text */
  has(text) {
    return [...this.settled.slice(-20), ...this.pending].some((each) => each.text === text);
  }

  /** Take one's own refused line out: it is said anew. @param {Entry} entry */
  remove(entry) {
    const index = this.settled.indexOf(entry);
    if (index >= 0) this.settled.splice(index, 1);
  }

  /** Put messages before those that are here. How many were not. @param {Entry[]} messages */
  prepend(messages) {
    this.mayHaveMore = false;
    const older = messages.filter((message) => (message.position ?? 0) < this.oldest);
    if (older.length && !this.truncated) {
      this.settled.unshift(...older);
      this.base -= older.length;
      this.oldest = older[0].position ?? this.oldest;
    }
    return this.truncated ? 0 : older.length;
  }
}
