/**
 * The log: a window on a timeline. Of its entries only those around what the reader sees are in the
 * document: WINDOW at the end, MOST on the way through the past. What is above or below comes when
 * the reader comes near it.
 *
 * A reader at the end follows it. One who reads elsewhere stays where he is, whatever comes or goes
 * above: the browser's own anchoring is off, for not all browsers have it, and two would disagree.
 */

import { arrange, byId, write } from "./elements.js";
import { beginsDay, dayElement, entryElement, leads, updateEntry } from "./entry.js";
import { plural } from "../text/text.js";

/** @typedef {import("../chat/timeline.js").Entry} Entry @typedef {import("../chat/timeline.js").Timeline} Timeline */

const WINDOW = 150; // entries
const STEP = 75;
const MOST = 400;
const NEAR = 800; // pixels to the edge of the window at which it is moved
const AT_END = 48; // pixels that are the end
const SETTLING = 1000; // milliseconds for which the past that has been put in is not read out

export class Log {
  /**
   * @param {object} handlers
   * @param {(entry: Entry) => void} handlers.retry
   * @param {(attended: boolean) => void} handlers.attended
   * @param {() => void} handlers.earlier
   */
  constructor(handlers) {
    this.handlers = handlers;
    this.scroller = byId("scroller");
    this.log = byId("log");
    this.news = byId("news");
    this.earlier = byId("earlier");
    /** @type {Timeline | undefined} */
    this.timeline = undefined;
    this.from = 0;
    this.to = 0;
    this.following = true;
    /** @type {Map<Entry | string, HTMLElement>} of entries, and of days */
    this.elements = new Map();
    this.liveTimer = 0;
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.news.addEventListener("click", () => {
      this.scroller.focus({ preventScroll: true }); // the button goes
      this.follow();
    });
    this.earlier.addEventListener("click", () => {
      this.scroller.focus({ preventScroll: true });
      handlers.earlier();
    });
    const resizes = new ResizeObserver(() => this.#stick());
    resizes.observe(this.scroller);
    resizes.observe(this.log);
    document.addEventListener("visibilitychange", () => this.#attend());
  }

  /** Show what the timeline has now. @param {Timeline} timeline @param {Set<Entry>} changed */
  show(timeline, changed) {
    for (const entry of changed) {
      const shown = this.elements.get(entry);
      if (shown) updateEntry(shown, entry, this.handlers.retry);
    }
    if (timeline !== this.timeline) {
      this.timeline = timeline;
      this.following = true;
      this.elements.clear();
      this.log.replaceChildren();
      this.from = Math.max(timeline.base, timeline.end - WINDOW);
      this.#hush();
    }
    this.#render();
    this.#attend();
  }

  /** Go to the end. */
  follow() {
    this.following = true;
    this.#hush();
    this.#render();
    this.#attend();
  }

  /** What is put in now is not new. */
  #hush() {
    this.log.setAttribute("aria-live", "off");
    clearTimeout(this.liveTimer);
    this.liveTimer = setTimeout(() => this.log.setAttribute("aria-live", "polite"), SETTLING);
  }

  #render() {
    const { timeline } = this;
    if (!timeline) return;
    const { base, end } = timeline;
    if (this.following) {
      this.to = end;
      if (end - this.from > MOST) this.from = end - WINDOW;
    } else if (end - this.from <= MOST) {
      this.to = end; // what comes is put in below, as long as the window is not full
    }
    this.to = Math.min(this.to, end);
    this.from = Math.min(Math.max(this.from, base), this.to);
    this.#draw(timeline);
    // Short entries may leave nothing to scroll, and so no way to what is above.
    while (this.#nearTop(timeline)) {
      this.from = Math.max(base, this.from - STEP);
      this.#draw(timeline);
    }
    this.earlier.hidden = !timeline.mayHaveMore || this.from > base;
    const { unread } = timeline;
    this.news.hidden = this.following;
    write(this.news, unread ? plural(unread, "mensaje nuevo", "mensajes nuevos") : "Ir al final");
  }

  /** @param {Timeline} timeline */
  #draw(timeline) {
    const anchor = this.following ? undefined : this.#anchor();
    arrange(this.log, this.#elements(timeline));
    if (anchor?.shown.isConnected) {
      this.scroller.scrollTop += anchor.shown.getBoundingClientRect().top - anchor.top;
    }
    this.#stick();
  }

  /** Whether there is room for more above, and the reader too near to it to scroll there.
   * @param {Timeline} timeline */
  #nearTop({ base }) {
    return this.scroller.scrollTop < NEAR && this.from > base && this.to - this.from < MOST - STEP;
  }

  /** @param {Timeline} timeline */
  #elements(timeline) {
    const kept = new Map();
    let before = timeline.at(this.from - 1);
    for (let number = this.from; number < this.to; number += 1) {
      const entry = /** @type {Entry} */ (timeline.at(number));
      if (beginsDay(before, entry)) {
        const key = entry.at.toDateString();
        if (!kept.has(key)) kept.set(key, this.elements.get(key) ?? dayElement(entry.at));
      }
      const shown = this.elements.get(entry) ?? entryElement(entry, this.handlers.retry);
      if (entry.kind === "message") shown.classList.toggle("leads", leads(before, entry));
      kept.set(entry, shown);
      before = entry;
    }
    this.elements = kept;
    return [...kept.values()];
  }

  /** The first element that the reader sees, and where. */
  #anchor() {
    const { top } = this.scroller.getBoundingClientRect();
    for (const shown of this.log.children) {
      const box = shown.getBoundingClientRect();
      if (box.bottom > top) return { shown, top: box.top };
    }
    return undefined;
  }

  #stick() {
    if (this.following) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { timeline, scroller } = this;
    if (!timeline) return;
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    // What has come since the last drawing does not lie between the reader and the end.
    const following = below < AT_END && (this.following || this.to === timeline.end);
    const changes = following !== this.following;
    this.following = following;
    if (!following && scroller.scrollTop < NEAR && this.from > timeline.base) {
      this.from = Math.max(timeline.base, this.from - STEP);
      this.to = Math.min(this.to, this.from + MOST);
      this.#hush();
      this.#render();
    } else if (!following && below < NEAR && this.to < timeline.end) {
      this.to = Math.min(timeline.end, this.to + STEP);
      this.from = Math.max(this.from, this.to - MOST);
      this.#hush();
      this.#render();
    } else if (changes) {
      this.#render();
    }
    this.#attend();
  }

  #attend() {
    this.handlers.attended(this.following && !document.hidden);
  }
}
