/** Where the reader writes. Enter sends; Shift and Enter make a space, for a line has no newline. */

import { byId, write } from "./elements.js";
import { plural } from "../text/text.js";

export class Composer {
  /**
   * @param {object} handlers
   * @param {(text: string) => boolean} handlers.submit whether it has been taken
   * @param {(text: string) => number} handlers.excess bytes that are too many
   * @param {(text: string) => void} handlers.draft
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.form = byId("composer");
    this.text = byId("text");
    this.note = byId("composer-note");
    /** @type {Map<object, string>} drafts of the places that are not shown */
    this.drafts = new Map();
    /** @type {object | undefined} */
    this.place = undefined;
    this.form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#submit();
    });
    this.text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      if (event.shiftKey) this.#insertSpace();
      else this.#submit();
    });
    this.text.addEventListener("input", () => this.#changed());
  }

  /** @param {string} text */
  restore(text) {
    this.text.value = text;
    this.#changed();
  }

  /** Each place has a draft of its own. @param {object} place */
  show(place) {
    if (place === this.place) return;
    if (this.place) {
      this.drafts.set(this.place, this.text.value);
      this.restore(this.drafts.get(place) ?? "");
      this.drafts.delete(place);
    }
    this.place = place;
  }

  /** Where a touch would bring up a keyboard over half of the screen, the reader reads first. */
  focus() {
    if (matchMedia("(pointer: coarse)").matches) byId("scroller").focus({ preventScroll: true });
    else this.text.focus();
  }

  #submit() {
    const { value } = this.text;
    if (value.trim() && this.handlers.submit(value)) this.restore("");
  }

  #insertSpace() {
    this.text.setRangeText(" ", this.text.selectionStart, this.text.selectionEnd, "end");
    this.#changed();
  }

  #changed() {
    const { text } = this;
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
    const excess = this.handlers.excess(text.value);
    this.note.classList.toggle("alarm", excess > 0);
    write(this.note, excess ? `Demasiado largo: ${plural(excess, "byte sobra", "bytes sobran")}.` : "");
    text.setAttribute("aria-invalid", String(excess > 0));
    this.handlers.draft(text.value);
  }
}
