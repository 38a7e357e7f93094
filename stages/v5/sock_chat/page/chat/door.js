/**
 * How one gets in: by the token of an earlier session, by a nick, by a nick and its password.
 * Sans-IO: what the server asks and refuses comes in, frames to be sent go out.
 *
 * - The server asks for the nick at once. With a token that question is not answered: the first
 *   frame is the token, and only when the server asks again, or refuses, it has not been taken.
 * - A question is answered with what the person has entered, once; after that the person is asked.
 * - When a password is asked and the person has entered another nick, an empty frame takes the
 *   question back, and the server asks for the nick again.
 */

import { frame, newId } from "../text/text.js";

const BAD_NICK = "Apodo no válido: de 1 a 24 letras, cifras, - o _; empieza por una letra.";

/** A line as a frame. One with a brace would be taken for an object. @param {string} text */
function line(text) {
  return text.startsWith("{") ? frame(newId(), text) : text;
}

export class Door {
  /** @param {string} nick @param {string} token of an earlier session */
  constructor(nick, token) {
    this.nick = nick;
    this.token = token;
    this.password = ""; // in memory only
    /** @type {"" | "nick" | "password"} what the server waits for */
    this.asked = "";
    this.busy = false; // the person has entered something that is not answered yet
    this.alert = "";
    this.sentNick = "";
    this.due = { nick: false, password: false }; // what has not been sent on this connection
    this.resuming = false;
    this.greeted = false;
  }

  /** The person has filled in the form. Frames, if the server waits for them.
   * @param {string} nick @param {string} password */
  enter(nick, password) {
    if (nick.startsWith("/")) { // it would be a command
      this.alert = BAD_NICK;
      return [];
    }
    Object.assign(this, { nick, password, alert: "", busy: true });
    this.due = { nick: nick !== this.sentNick || this.asked !== "password", password: true };
    return this.#answer();
  }

  /** A connection is open. */
  opened() {
    this.asked = this.sentNick = "";
    this.due = { nick: true, password: true };
    this.greeted = false;
    this.resuming = Boolean(this.token);
    return this.resuming ? [JSON.stringify({ resume: this.token })] : [];
  }

  /** @param {"nick" | "password"} what */
  ask(what) {
    if (this.resuming && what === "nick" && !this.greeted) {
      this.greeted = true;
      return [];
    }
    if (this.resuming && what === "password") {
      this.due.nick = false;
      this.sentNick = this.nick;
    }
    this.#forgetToken();
    this.asked = what;
    return this.#answer();
  }

  /** @param {string} text */
  refuse(text) {
    this.#forgetToken();
    this.asked ||= "nick";
    this.password = "";
    this.alert = text;
    this.busy = false;
  }

  #forgetToken() {
    if (this.resuming) this.token = "";
    this.resuming = false;
  }

  #answer() {
    if (this.asked === "nick" && this.due.nick) {
      this.due.nick = false;
      this.sentNick = this.nick;
      return [line(this.nick)];
    }
    if (this.asked === "password" && this.due.nick) {
      this.asked = "";
      return [""];
    }
    if (this.asked === "password" && this.due.password && this.password) {
      this.due.password = false;
      return [line(this.password)];
    }
    if (this.asked) this.busy = false;
    return [];
  }
}
