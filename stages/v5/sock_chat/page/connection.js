/**
 * The WebSocket: opened anew after a cut, at once when the network or the reader comes back, else
 * after a back-off that doubles up to MAX_DELAY and is spread, so that the browsers of a server that
 * has gone do not come back all together.
 *
 * A socket does not notice that its network has gone. Who has sent something expects an answer, of
 * whatever kind, and gives the socket up without.
 */

const MIN_DELAY = 0.5; // seconds
const MAX_DELAY = 30;
const ANSWER_TIME = 30; // seconds for whatever is sent
const PROBE_TIME = 5; // seconds after the page was hidden or the network away
const LOST = 1006; // the close code of a connection that was cut

/** @typedef {"idle" | "connecting" | "open" | "waiting"} State */

export class Connection {
  /**
   * @param {object} handlers
   * @param {() => string} handlers.address of the WebSocket
   * @param {() => void} handlers.opened
   * @param {(events: Record<string, any>[]) => void} handlers.received
   * @param {(code: number) => void} handlers.closed
   * @param {() => void} handlers.changed the state, or the seconds that are left
   * @param {() => void} handlers.probe send something that is answered
   */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {State} */
    this.state = "idle";
    this.until = 0; // when the next attempt is due, in milliseconds
    this.failures = 0;
    /** @type {WebSocket | undefined} */
    this.socket = undefined;
    this.timer = 0; // of the next attempt
    this.ticker = 0;
    this.answerTimer = 0;
    this.patient = false; // the server has said that it waits itself
    addEventListener("online", () => this.#wake());
    addEventListener("offline", () => this.#probe());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#wake();
    });
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.#wake();
    });
  }

  /** Seconds until the next attempt. */
  get seconds() {
    return Math.max(1, Math.ceil((this.until - Date.now()) / 1000));
  }

  connect() {
    this.#rest();
    this.#drop();
    const socket = new WebSocket(this.handlers.address());
    this.socket = socket;
    this.#change("connecting");
    this.#expect(ANSWER_TIME);
    socket.onopen = () => {
      this.#change("open");
      this.handlers.opened();
    };
    socket.onmessage = ({ data }) => {
      clearTimeout(this.answerTimer);
      this.answerTimer = 0;
      this.handlers.received(JSON.parse(data));
    };
    socket.onclose = ({ code }) => this.#closed(code);
  }

  /** Connect after a while. @param {number} [seconds] that the server wants; without: back-off */
  retry(seconds) {
    const ceiling = Math.min(MAX_DELAY, MIN_DELAY * 2 ** this.failures);
    this.failures += 1;
    const delay = seconds ?? ceiling * (0.5 + Math.random() / 2);
    this.until = Date.now() + delay * 1000;
    this.timer = setTimeout(() => this.connect(), delay * 1000);
    this.ticker = setInterval(() => this.handlers.changed(), 500);
    this.#change("waiting");
  }

  stop() {
    this.#rest();
    this.#drop();
    this.#change("idle");
  }

  /** The chat goes on: the next failure is the first. */
  settle() {
    this.failures = 0;
  }

  /** @param {string} data */
  send(data) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    this.socket.send(data);
    if (!this.answerTimer && !this.patient) this.#expect(ANSWER_TIME);
  }

  #wake() {
    if (this.state === "waiting") this.connect();
    else this.#probe();
  }

  #probe() {
    if (this.state !== "open" || this.patient) return;
    this.#expect(PROBE_TIME);
    this.handlers.probe();
  }

  /** @param {number} seconds */
  #expect(seconds) {
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => this.#closed(LOST), seconds * 1000);
  }

  /** @param {number} code */
  #closed(code) {
    this.#drop();
    this.#change("idle");
    this.handlers.closed(code);
  }

  #drop() {
    clearTimeout(this.answerTimer);
    this.answerTimer = 0;
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = undefined;
  }

  #rest() {
    clearTimeout(this.timer);
    clearInterval(this.ticker);
  }

  /** @param {State} state */
  #change(state) {
    this.state = state;
    this.handlers.changed();
  }
}
