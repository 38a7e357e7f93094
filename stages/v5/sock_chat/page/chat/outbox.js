/**
 * The reader's own lines on their way to the server, each with an id. Sans-IO.
 *
 * - A line leaves the outbox when the server acknowledges its id, or refuses it.
 * - The server handles lines in their order, but acknowledges what is said in a room at the end of
 *   a turn, and answers a command at once: an answer without an id belongs to the oldest command.
 * - After `/nick` and `/login` nothing is sent until they are answered: the server may ask for a
 *   password, and would take the next line for it.
 * - After a cut, what is said in a room and what is said to one person is sent again with its id,
 *   which the server knows for a while. Other commands are forgotten: their answer is for one who
 *   waits for it.
 *
 * @typedef {import("./timeline.js").Entry} Entry
 * @typedef {import("./timeline.js").Timeline} Timeline
 *
 * @typedef {object} Line
 * @property {string} id
 * @property {string} text as it is sent
 * @property {Timeline} timeline where it was written, and where answers to it are shown
 * @property {Entry} [entry] how it is shown
 * @property {Timeline} [home] where it is shown, if not where it was written
 * @property {string} [room] in which it is said; a command has none
 * @property {boolean} [quiet] the page asks by itself
 * @property {number} [sentAt] in milliseconds; a line that waits has none
 */

const REMEMBERED = 100_000; // milliseconds for which the server surely knows an id
const BARRIER = /^\/(nick|login)\b/i;

export class Outbox {
  constructor() {
    /** @type {Line[]} */
    this.lines = [];
  }

  /** What is said in rooms, for after a reload. */
  get memory() {
    return this.said.map(({ id, text, entry, room }) => ({ id, text, entry, room }));
  }

  /** @param {Line} line */
  add(line) {
    this.lines.push(line);
  }

  /** The lines that are to be sent now. @param {number} now */
  take(now) {
    const taken = [];
    for (const line of this.lines) {
      if (line.sentAt === undefined) {
        line.sentAt = now;
        taken.push(line);
      }
      if (BARRIER.test(line.text)) break;
    }
    return taken;
  }

  /** The line with this id, which is on its way no more. @param {string} id */
  acknowledge(id) {
    const line = this.lines.find((each) => each.id === id);
    if (line) this.remove(line);
    return line;
  }

  /** The server answers the oldest command: that one, which is on its way no more.
   * @param {boolean} [refuses] otherwise it is no private message, which is only acknowledged */
  answer(refuses = false) {
    const line = this.lines.find((each) =>
      each.room === undefined && each.sentAt !== undefined && (refuses || !each.entry));
    if (line) this.remove(line);
    return line;
  }

  /** What was said in rooms, and not acknowledged. */
  get said() {
    return this.lines.filter((line) => line.room !== undefined);
  }

  /** @param {Line} line */
  remove(line) {
    this.lines.splice(this.lines.indexOf(line), 1);
  }

  /**
   * After a cut, in the room where one is now. Returns the lines that the history shows to have
   * been said, each with its message, and those that can no longer be sent: they were for another
   * room, or may have arrived and are too old for their ids to be known.
   *
   * @param {string} room
   * @param {{nick: string, text: string}[]} history that is new to the page
   * @param {string} nick
   * @param {boolean} gap there is more that was said, and not in the history
   * @param {number} now
   */
  recover(room, history, nick, gap, now) {
    const said = [];
    const lost = [];
    const kept = [];
    let start = 0;
    for (const line of this.lines) {
      const { entry, sentAt } = line;
      if (!entry) continue;
      const mayBe = line.room === room && sentAt !== undefined;
      const index = mayBe ? history.findIndex((message, at) =>
        at >= start && message.text === entry.text && [entry.nick, nick].includes(message.nick)) : -1;
      const unknown = sentAt !== undefined && now - sentAt > REMEMBERED;
      if (index >= 0) {
        said.push({ line, message: history[index] });
        start = index + 1;
      } else if (entry.state === "refused") {
        continue;
      } else if (line.room === undefined ? unknown : line.room !== room || (unknown && gap)) {
        lost.push(line);
      } else {
        line.sentAt = undefined;
        kept.push(line);
      }
    }
    this.lines = kept;
    return { said, lost };
  }
}
