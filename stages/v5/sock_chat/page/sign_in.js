/** The form at the door, and the dialog that asks for the password of another nick inside. */

import { byId, write } from "./elements.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

export class SignIn {
  /** @param {{enter: (nick: string, password: string) => void, answer: (password: string) => void}} handlers */
  constructor(handlers) {
    this.nick = byId("nick");
    this.password = byId("password");
    this.field = byId("password-field");
    this.button = byId("enter");
    this.alert = byId("alert");
    this.dialog = byId("password-dialog");
    this.answer = byId("dialog-password");
    this.wasAsked = "";
    byId("sign-in").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const nick = this.nick.value.trim();
      if (!nick) this.nick.focus();
      else if (this.button.ariaDisabled !== "true") handlers.enter(nick, this.password.value);
    });
    const finish = (/** @type {string} */ password) => {
      this.answer.value = "";
      this.dialog.close();
      handlers.answer(password);
    };
    byId("password-form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      finish(this.answer.value);
    });
    byId("dialog-cancel").addEventListener("click", () => finish(""));
    this.dialog.addEventListener("cancel", (/** @type {Event} */ event) => {
      event.preventDefault();
      finish("");
    });
  }

  /** @param {Conversation} chat */
  show({ phase, door, asksPassword }) {
    const asked = phase === "out" ? door.asked : "";
    const asksFor = asked === "password" || (door.busy && !this.field.hidden) ? "password" : "nick";
    this.field.hidden = asksFor !== "password";
    this.button.setAttribute("aria-disabled", String(door.busy));
    write(this.button, door.busy ? "Entrando…" : "Entrar");
    write(this.alert, door.alert);
    if (!this.nick.value) this.nick.value = door.nick;
    if (phase !== "out") this.password.value = "";
    else if (!door.busy && asked !== this.wasAsked) this.#focus(asksFor);
    if (!door.busy) this.wasAsked = phase === "out" ? asked : "";
    if (asksPassword && !this.dialog.open) this.dialog.showModal();
    else if (!asksPassword && this.dialog.open) this.dialog.close();
  }

  /** @param {string} asked */
  #focus(asked) {
    const field = asked === "password" ? this.password : this.nick;
    field.focus();
    field.select();
  }
}
