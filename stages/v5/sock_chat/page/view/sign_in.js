/** The form at the door, and the dialog that asks for the password of another nick inside. */

import { byId, write } from "./elements.js";

/** @typedef {import("../chat/conversation.js").Conversation} Conversation */

export class SignIn {
  /** @param {{enter: (nick: string, password: string) => void, answer: (password: string) => void}} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.nick = byId("nick");
    this.password = byId("password");
    this.field = byId("password-field");
    this.button = byId("enter");
    this.alert = byId("alert");
    /** @type {HTMLDialogElement | undefined} */
    this.dialog = undefined;
    this.wasAsked = "";
    byId("sign-in").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      const nick = this.nick.value.trim();
      if (!nick) this.nick.focus();
      else if (this.button.getAttribute("aria-disabled") !== "true") handlers.enter(nick, this.password.value);
    });
  }

  /** @param {Conversation} chat */
  show({ phase, door, asksPassword, connected }) {
    const busy = door.busy && connected; // otherwise it may be long, and another nick can be tried
    const asked = phase === "out" ? door.asked : "";
    const asksFor = asked === "password" || (door.busy && !this.field.hidden) ? "password" : "nick";
    this.field.hidden = asksFor !== "password";
    this.button.setAttribute("aria-disabled", String(busy));
    write(this.button, busy ? "Entrando…" : "Entrar");
    write(this.alert, door.alert);
    if (!this.nick.value) this.nick.value = door.nick;
    if (phase !== "out") this.password.value = "";
    else if (!door.busy && (asked !== this.wasAsked || door.alert)) this.#focus(asksFor);
    if (!door.busy) this.wasAsked = asked;
    if (asksPassword && !this.dialog) this.#openDialog();
    else if (!asksPassword) this.#closeDialog();
  }

  #openDialog() {
    document.body.append(byId("password-template").content.cloneNode(true));
    /** @type {HTMLDialogElement} */
    const dialog = byId("password-dialog");
    const field = byId("dialog-password");
    const answer = (/** @type {Event} */ event, /** @type {string} */ password) => {
      event.preventDefault();
      this.#closeDialog();
      this.handlers.answer(password);
    };
    byId("password-form").addEventListener("submit", (/** @type {Event} */ event) => answer(event, field.value));
    byId("dialog-cancel").addEventListener("click", (/** @type {Event} */ event) => answer(event, ""));
    dialog.addEventListener("cancel", (event) => answer(event, ""));
    this.dialog = dialog;
    dialog.showModal();
  }

  #closeDialog() {
    this.dialog?.close();
    this.dialog?.remove();
    this.dialog = undefined;
  }

  /** @param {string} asked */
  #focus(asked) {
    const field = asked === "password" ? this.password : this.nick;
    field.focus();
    field.select();
  }
}
